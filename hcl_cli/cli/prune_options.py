"""The options of `hcl prune` that no other command has."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hcl_cli.cli.options import RUN_PANEL, natural, parse_exit_layers
from hcl_cli.errors import BadOption

if TYPE_CHECKING:
    from hcl_cli.measures.activations import Epsilon

# Which criteria there are, in the order in which they are shown.
IMPORTANCE = (
    "avss", "avss-published", "block-influence", "angular", "perplexity", "taylor", "magnitude", "random", "last",
    "first",
)  # fmt: skip
OF_ANSWERS = ("eavss", "hsav", "hss")
CRITERIA = (*IMPORTANCE, *OF_ANSWERS)
DEFAULT_CRITERIA = ("avss", "block-influence", "angular", "perplexity", "taylor", "magnitude", "random", "last")
ACTIVATIONS = ("residual", "attention", "mlp")
RULES = ("lowest", "cumulative", "published", "contiguous")
SEARCHES = ("none", "greedy")
_SCORES, _REMOVAL, _QUALITY = "Scores of blocks", "Removal", "Quality kept"

InputArg = Annotated[
    str | None,
    typer.Argument(metavar="FILE", show_default=False, help="Texts, questions or scored responses; stdin if piped."),
]
DatasetOpt = Annotated[
    str | None,
    typer.Option(
        "--dataset", "-d", metavar="DATA", show_default="lab for the lab models, else wikitext2",
        help="Texts or questions: built-in name (`hcl datasets`), file, or hub:NAME.",
    ),
]  # fmt: skip
LimitOpt = Annotated[
    int | None,
    typer.Option("--limit", metavar="N", show_default="128",
                 callback=natural("--limit", 1, 10**9, "expected 1 to 1000000000 texts, e.g. --limit 100"),
                 help="Only the first N texts, or questions; the quality is measured on sets of its own."),
]  # fmt: skip
MaxTokensOpt = Annotated[
    int,
    typer.Option("--max-tokens", metavar="N", callback=natural("--max-tokens", 2, 2**20, "expected 2 to 1048576"),
                 help="Longer texts are cut to their first N tokens."),
]  # fmt: skip

BatchTokensOpt = Annotated[
    int,
    typer.Option("--batch-tokens", metavar="N", rich_help_panel=RUN_PANEL,
                 callback=natural("--batch-tokens", 1, 2**40, "expected 1 or more"),
                 help="Token budget of one forward pass: texts times the longest."),
]  # fmt: skip

CriterionOpt = Annotated[
    str | None,
    typer.Option(
        "--criterion", "-c", metavar="NAMES", rich_help_panel=_SCORES, show_default=",".join(DEFAULT_CRITERIA),
        help=f"With commas: {', '.join(CRITERIA)}; or all. The last three need scored responses.",
    ),
]  # fmt: skip
ActivationsOpt = Annotated[
    str,
    typer.Option("--activations", metavar="NAMES", rich_help_panel=_SCORES,
                 help="What avss and its kin read: residual (block outputs), attention, mlp; with commas."),
]  # fmt: skip
EpsilonOpt = Annotated[
    str,
    typer.Option("--epsilon", metavar="E", rich_help_panel=_SCORES,
                 help="Sparsity counts |a| < E: 1e-5, or 0.01rms, relative to the token's root mean square."),
]  # fmt: skip
RandomSeedsOpt = Annotated[
    int,
    typer.Option("--random-seeds", metavar="N", rich_help_panel=_SCORES,
                 callback=natural("--random-seeds", 1, 1000, "expected 1 to 1000"),
                 help="How many random orders criterion `random` tries."),
]  # fmt: skip
DamageOpt = Annotated[
    bool,
    typer.Option("--damage/--no-damage", rich_help_panel=_SCORES,
                 help="Also measure what the removal of each block alone does to the likelihood of the texts."),
]  # fmt: skip
PermutationsOpt = Annotated[
    int,
    typer.Option("--permutations", metavar="N", rich_help_panel=_SCORES,
                 callback=natural("--permutations", 0, 10**6, "expected 0 to 1000000"),
                 help="Of the labels, for the p-values of eavss."),
]  # fmt: skip

FractionOpt = Annotated[
    float | None,
    typer.Option("--fraction", metavar="F", rich_help_panel=_REMOVAL, show_default="0.25",
                 help="Share of the blocks to remove."),
]  # fmt: skip
CountOpt = Annotated[
    int | None, typer.Option("--n", metavar="N", rich_help_panel=_REMOVAL, help="Number of blocks to remove.")
]
RuleOpt = Annotated[
    str,
    typer.Option(
        "--rule", rich_help_panel=_REMOVAL,
        help="lowest scores; cumulative share of the score, sorted; published (the bug: not sorted); contiguous run.",
    ),
]  # fmt: skip
ProtectOpt = Annotated[
    str,
    typer.Option("--protect", metavar="BLOCKS", rich_help_panel=_REMOVAL, help="Never remove these: first:4,last:2."),
]
SearchOpt = Annotated[
    str,
    typer.Option("--search", rich_help_panel=_REMOVAL,
                 help="greedy: remove the block that does least harm, measure all again, and so on."),
]  # fmt: skip
RemoveOpt = Annotated[
    str | None,
    typer.Option("--remove", metavar="BLOCKS", rich_help_panel=_REMOVAL,
                 help="Remove these blocks, whatever any criterion says: 3,7 or 3-5."),
]  # fmt: skip
KeepFirstOpt = Annotated[
    int | None,
    typer.Option("--keep-first", metavar="K", rich_help_panel=_REMOVAL,
                 help="Keep the first K blocks: the model that exits early at K."),
]  # fmt: skip
ExportCriterionOpt = Annotated[
    str | None,
    typer.Option("--export-criterion", metavar="NAME", rich_help_panel=_REMOVAL, show_default="the only one",
                 help="Whose removal --export writes, where there are several."),
]  # fmt: skip
ExportOpt = Annotated[
    Path | None,
    typer.Option("--export", metavar="DIR", rich_help_panel=_REMOVAL,
                 help="Write the pruned model as a checkpoint that `from_pretrained` loads."),
]  # fmt: skip

MetricsOpt = Annotated[
    str | None,
    typer.Option(
        "--metrics", metavar="NAMES", rich_help_panel=_QUALITY, show_default="those that fit the model",
        help="With commas: perplexity, token-accuracy, answer-accuracy, mc1, mc2, mc3, sentiment, accuracy@50, "
        "coverage@50, ece, brier, auroc, hallucination-rate, creativity, parameters, tokens-per-second, or NAME:SET; "
        "none measures nothing.",
    ),
]  # fmt: skip
SweepOpt = Annotated[
    str | None,
    typer.Option("--sweep", metavar="COUNTS", rich_help_panel=_QUALITY,
                 help="Also measure the quality with these numbers of blocks removed: 1-5 or 2,4,8."),
]  # fmt: skip
RetainedTableOpt = Annotated[
    Path | None,
    typer.Option("--retained-table", metavar="FILE", rich_help_panel=_QUALITY,
                 help="Write the share of quality kept: .md, .csv or .tex."),
]  # fmt: skip
ActivationsFigureOpt = Annotated[
    Path | None,
    typer.Option("--activations-figure", metavar="FILE", rich_help_panel=_SCORES,
                 help="Draw variance, norms and sparsity per block: .png, .svg or .pdf."),
]  # fmt: skip
QualityFigureOpt = Annotated[
    Path | None,
    typer.Option("--quality-figure", metavar="FILE", rich_help_panel=_QUALITY,
                 help="Draw the quality over the number of removed blocks (--sweep): .png, .svg or .pdf."),
]  # fmt: skip


def parse_criteria(text: str | None, scored: bool) -> tuple[str, ...]:
    """The criteria that `--criterion` names, in our order; None and `all` depend on whether answers are scored.

    Raises:
        BadOption: an unknown criterion, one named twice, or one that needs scored answers.
    """
    if text is None:
        return (*DEFAULT_CRITERIA, *(OF_ANSWERS[:1] if scored else ()))
    if text.strip() == "all":
        return CRITERIA if scored else IMPORTANCE
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in CRITERIA:
            raise BadOption(f"--criterion {text}: {name!r} is none; expected all or some of {', '.join(CRITERIA)}")
        if names.count(name) > 1:
            raise BadOption(f"--criterion {text}: {name} is there twice; name each once")
        if name in OF_ANSWERS and not scored:
            raise BadOption(
                f"--criterion {name}: compares hallucinated with factual answers; pipe scored ones in: "
                f"hcl sample | hcl score | hcl prune --criterion {name}"
            )
    return tuple(name for name in CRITERIA if name in names)


def parse_bound(text: str) -> "Epsilon":
    """The bound of the sparsity that `--epsilon` names.

    Raises:
        BadOption
    """
    from hcl_cli.measures.activations import parse_epsilon

    try:
        return parse_epsilon(text)
    except ValueError as error:
        raise BadOption(str(error)) from error


def parse_activations(text: str) -> tuple[str, ...]:
    """The activations that `--activations` names, in our order.

    Raises:
        BadOption
    """
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in ACTIVATIONS or names.count(name) > 1:
            raise BadOption(f"--activations {text}: expected some of {', '.join(ACTIVATIONS)}, each once")
    return tuple(name for name in ACTIVATIONS if name in names)


def parse_removed(remove: str | None, keep_first: int | None, n_blocks: int, model: str) -> tuple[int, ...] | None:
    """The blocks that the user removes by hand, rising; None if no option says so.

    Raises:
        BadOption: no such blocks, or all of them.
    """
    if remove is not None and keep_first is not None:
        raise BadOption(f"--remove {remove} and --keep-first {keep_first}: say once which blocks go")
    if remove is not None:
        blocks = parse_exit_layers(remove, n_blocks, model, option="--remove", what="blocks")
        if len(blocks) == n_blocks:
            raise BadOption(f"--remove {remove}: nothing of {model}'s {n_blocks} blocks would be left; keep one")
        return blocks
    if keep_first is None:
        return None
    if not 1 <= keep_first < n_blocks:
        raise BadOption(f"--keep-first {keep_first}: {model} has {n_blocks} blocks; expected 1 to {n_blocks - 1}")
    return tuple(range(keep_first + 1, n_blocks + 1))


_COUNTS = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?")


def parse_sweep(text: str | None, n_blocks: int, n_protected: int) -> tuple[int, ...]:
    """Numbers of removed blocks, rising.

    Args:
        n_blocks: that the model has.
        n_protected: of these, blocks that stay.
    Raises:
        BadOption: not numbers, or more than can go.
    """
    if text is None:
        return ()
    counts: set[int] = set()
    for part in text.split(","):
        match = _COUNTS.fullmatch(part.strip())
        if match is None or (match[2] and int(match[2]) < int(match[1])):
            raise BadOption(f"--sweep {text}: {part.strip()!r} is no number or range; try --sweep 1-{n_blocks // 2}")
        counts.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    most = min(n_blocks - n_protected, n_blocks - 1)
    if min(counts) < 1 or max(counts) > most:
        raise BadOption(f"--sweep {text}: 1 to {most} blocks can be removed; try --sweep 1-{max(1, most // 2)}")
    return tuple(sorted(counts))
