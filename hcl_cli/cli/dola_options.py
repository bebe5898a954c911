"""Options of `hcl dola`."""

from pathlib import Path
from typing import Annotated

import typer

from hcl_cli.cli.options import natural
from hcl_cli.errors import BadOption

InputArg = Annotated[
    str | None,
    typer.Argument(metavar="FILE", show_default=False, help="A questions file; stdin if piped."),
]
MethodsOpt = Annotated[
    str,
    typer.Option(
        "--methods", metavar="METHODS",
        help="vanilla, dola-low, dola-high, dola:2-16:2, static:4, with commas; dola-low@published as in its code; "
        "vanilla@alpha=0.1@penalty=1.2 as control.",
    ),
]  # fmt: skip
BaselineOpt = Annotated[
    str,
    typer.Option("--baseline", metavar="METHOD", help="One of the methods: differences are from it, paired."),
]
DivergenceOpt = Annotated[
    str,
    typer.Option("--divergence", help="How the premature layer is chosen: jsd (the paper's), or published (reversed)."),
]
NormOpt = Annotated[
    bool, typer.Option("--norm/--no-norm", help="Read premature layers through the final norm, or without it.")
]
AlphaOpt = Annotated[
    float,
    typer.Option("--alpha", metavar="A", help="Plausible tokens are at least A times as likely as the likeliest."),
]
PenaltyOpt = Annotated[
    float, typer.Option("--penalty", metavar="P", help="On tokens that are there already; vanilla has none. 1 is off.")
]
PenaltyOnOpt = Annotated[str, typer.Option("--penalty-on", help="contrasted scores (published), or logits.")]
ShotsOpt = Annotated[
    int | None,
    typer.Option("--n-shots", metavar="N", show_default="all", help="The first N pairs of a prompt that has pairs."),
]
PromptOpt = Annotated[
    str,
    typer.Option(
        "--prompt", metavar="PROMPT",
        help="plain, chat, truthfulqa (pairs in the form of DoLa's prompt, in our words), published (Shakespearean "
        "Sparks', not DoLa's), or a file with {question} or Q/A pairs.",
    ),
]  # fmt: skip
MetricsOpt = Annotated[
    str,
    typer.Option(
        "--metrics", metavar="METRICS",
        help="bleu, rouge, bertscore, f1, exact, all, evaluate:NAME_OR_PATH (of the Hub: asked anew each time); with "
        "commas; none for none.",
    ),
]  # fmt: skip
EncoderOpt = Annotated[
    str | None,
    typer.Option(
        "--encoder", metavar="MODEL", show_default="all-MiniLM-L6-v2", help="Of BERTScore: a folder or a Hub name."
    ),
]
ChoicesOpt = Annotated[
    bool,
    typer.Option("--choices", help="Also MC1, MC2 and MC3 of questions with correct and incorrect answers."),
]
FactorOpt = Annotated[
    str | None,
    typer.Option(
        "--factor", metavar="DATA", show_default=False,
        help="Also FACTOR accuracy: factor_expert, or a file with prefix, completion and contradictions.",
    ),
]  # fmt: skip
PublishedChoicesOpt = Annotated[
    bool,
    typer.Option(
        "--published-choices", help="Normalise over the vocabulary, and add the MC2 that halves scores, as published."
    ),
]
PublishedTableOpt = Annotated[
    Path | None,
    typer.Option("--published-table", metavar="FILE", help="Ours beside the published numbers: .md, .csv or .tex."),
]
SamplesOpt = Annotated[
    int,
    typer.Option("--samples", "-n", metavar="N",
                 callback=natural("--samples/-n", 1, 2**31 - 1, "expected 1 to 2147483647 samples, e.g. -n 5"),
                 help="Answers per question and method."),
]  # fmt: skip


def baseline_of(text: str, methods: list[str]) -> str:
    """The method that differences are from; vanilla need not be there, and then there are none.

    Raises:
        BadOption: another one that is not among the methods.
    """
    name = text.strip()
    if name not in (*methods, "vanilla"):
        raise BadOption(f"--baseline {text}: is not among --methods; expected one of {', '.join(methods)}")
    return name
