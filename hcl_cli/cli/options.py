"""Shared options as Annotated names, parsed and bounded once.

Every option can also be set by a variable `HCL_<NAME>` and in `hcl.toml` (see `cli/settings.py`); the order is
flag, variable, file, default. Nothing here imports a heavy library: `hcl --help` must answer at once.
"""

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from hcl_cli.errors import BadOption

STORE_PANEL = "Store and output"
RUN_PANEL = "Running"


def bounded(option: str, low: float, high: float, *, low_open: bool = False, hint: str) -> Callable[[float], float]:
    def check(value: float | None) -> float | None:
        if value is None:
            return value
        inside = (low < value if low_open else low <= value) and value <= high and math.isfinite(value)
        if not inside:
            raise BadOption(f"{option} {value:g}: {hint}")
        return value

    return check  # type: ignore[return-value]


def natural(option: str, least: int, most: int, hint: str) -> Callable[[int], int]:
    def check(value: int | None) -> int | None:
        if value is not None and not least <= value <= most:
            raise BadOption(f"{option} {value}: {hint}")
        return value

    return check  # type: ignore[return-value]


def one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise BadOption unless the value is one of those allowed."""
    if value not in allowed:
        raise BadOption(f"{option} {value}: expected {' or '.join(allowed)}")


def spelled(mapping: Mapping[str, str]) -> str:
    """A column mapping in one spelling: pairs that rename nothing are left out, the others sorted."""
    return ",".join(sorted(f"{ours}={theirs}" for ours, theirs in mapping.items() if ours != theirs))


# --- inputs -------------------------------------------------------------------------------------------------------

ModelOpt = Annotated[
    str,
    typer.Option("--model", "-m", metavar="MODEL", help="Folder, or Hub name\\[@revision]; see `hcl models`."),
]
DatasetOpt = Annotated[
    str | None,
    typer.Option(
        "--dataset", "-d", metavar="DATA",
        help="Built-in name (`hcl datasets`), file, or hub:NAME\\[:config\\[:split]]; default lab.",
    ),
]  # fmt: skip
ColumnsOpt = Annotated[
    str,
    typer.Option("--columns", metavar="MAP", help="Other people's column names: question=prompt,answers=gold.value"),
]
ArtifactArg = Annotated[
    str | None,
    typer.Argument(metavar="FILE", show_default=False, help="Parquet, CSV or JSONL; - or nothing reads stdin."),
]
LimitOpt = Annotated[
    int | None,
    typer.Option("--limit", metavar="N", show_default="all",
                 callback=natural("--limit", 1, 10**9, "expected 1 to 1000000000 questions, e.g. --limit 100"),
                 help="Only the first N questions."),
]  # fmt: skip

# --- sampling -----------------------------------------------------------------------------------------------------

ExitLayersOpt = Annotated[
    str, typer.Option("--exit-layers", metavar="LAYERS", help="all, or 2,4,8, or 2-16:2 (1 is after one block).")
]
SamplesOpt = Annotated[
    int,
    typer.Option("--samples", "-n", metavar="N",
                 callback=natural("--samples/-n", 1, 2**31 - 1, "expected 1 to 2147483647 samples, e.g. -n 50"),
                 help="Sampled answers per question and exit layer."),
]  # fmt: skip
TemperatureOpt = Annotated[
    float,
    typer.Option("--temperature", metavar="T",
                 callback=bounded("--temperature", 0, 100, hint="expected 0 (greedy) to 100, e.g. 0.6"),
                 help="0 is greedy."),
]  # fmt: skip
TopPOpt = Annotated[
    float,
    typer.Option("--top-p", metavar="P",
                 callback=bounded("--top-p", 0, 1, low_open=True, hint="expected 0 < P <= 1; 1 keeps every token"),
                 help="Nucleus: the likeliest tokens whose mass reaches P."),
]  # fmt: skip
TopKOpt = Annotated[
    int,
    typer.Option("--top-k", metavar="K", callback=natural("--top-k", 0, 2**31 - 1, "expected 0 (off) or more"),
                 help="Only the K likeliest tokens; 0 is off."),
]  # fmt: skip
MaxNewTokensOpt = Annotated[
    int,
    typer.Option("--max-new-tokens", metavar="N",
                 callback=natural("--max-new-tokens", 1, 2**16 - 1, "expected 1 to 65535"),
                 help="Longest answer, in tokens."),
]  # fmt: skip
SeedOpt = Annotated[
    int,
    typer.Option("--seed", metavar="SEED", callback=natural("--seed", 0, 2**32 - 1, "expected 0 to 4294967295"),
                 help="Names the random numbers.", rich_help_panel=RUN_PANEL),
]  # fmt: skip

STRATEGIES = ("early-exit", "self-speculative")
StrategyOpt = Annotated[
    str,
    typer.Option(
        "--strategy",
        help="early-exit: every token from the exit layer; self-speculative: drafts of the exit layer, verified by the "
        "full model, whose law the answers follow.",
    ),
]
DraftTokensOpt = Annotated[
    int | None,
    typer.Option("--draft-tokens", metavar="N", show_default="6",
                 callback=natural("--draft-tokens", 1, 64, "expected 1 to 64"),
                 help="Longest draft of self-speculative."),
]  # fmt: skip
PromptOpt = Annotated[
    str, typer.Option("--prompt", metavar="PROMPT", help="plain, published, chat, raw, or a file with {question}.")
]
StopOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--stop", metavar="TEXT", show_default="a newline", help="Ends an answer; may be repeated; '' is none."
    ),
]
CleanOpt = Annotated[
    str, typer.Option("--clean", help="plain: first non-empty line; published: the rules of the paper's code.")
]
LongPromptsOpt = Annotated[
    str, typer.Option("--long-prompts", help="refuse, or truncate at the left end (said on stderr).")
]
BatchTokensOpt = Annotated[
    int,
    typer.Option(
        "--batch-tokens", metavar="N", callback=natural("--batch-tokens", 1, 2**40, "expected 1 or more"),
        help="Token budget of one batch: rows times longest answer.", rich_help_panel=RUN_PANEL,
    ),
]  # fmt: skip
AttentionOpt = Annotated[
    str,
    typer.Option("--attention", help="auto, sdpa, or eager (for models without sdpa).", rich_help_panel=RUN_PANEL),
]
TrustRemoteCodeOpt = Annotated[
    str | None,
    typer.Option(
        "--trust-remote-code", metavar="MODEL", show_default=False, rich_help_panel=RUN_PANEL,
        help="Run the code that MODEL brings along; must repeat the model's name.",
    ),
]  # fmt: skip

# --- judging ------------------------------------------------------------------------------------------------------

JudgeOpt = Annotated[
    str,
    typer.Option(
        "--judge",
        metavar="JUDGES",
        help="alias, exact, contains, published, nli, llm; several with commas: the first decides.",
    ),
]
ThresholdOpt = Annotated[
    float,
    typer.Option(
        "--threshold", metavar="COSINE", rich_help_panel="Clusters",
        callback=bounded("--threshold", -1, 1, hint="expected -1 to 1"),
        help="Least cosine at which two answers mean the same.",
    ),
]  # fmt: skip
EmbedderOpt = Annotated[
    str | None,
    typer.Option(
        "--embedder",
        metavar="MODEL",
        show_default="all-MiniLM-L6-v2",
        rich_help_panel="Clusters",
        help="Sentence encoder: folder or Hub name.",
    ),
]

# --- balance ------------------------------------------------------------------------------------------------------

WeightsOpt = Annotated[
    str,
    typer.Option(
        "--weights", metavar="W", help="script .5/.5 raw; title .8/.2 and figure .9/.1, both min-max; or W for W/(1-W)."
    ),
]
ScaleHallucinationOpt = Annotated[
    str | None, typer.Option("--scale-hallucination", show_default="the preset's", help="raw or minmax.")
]
DiversityOpt = Annotated[
    str, typer.Option("--diversity", help="clusters (published), rarefied (m = 5), or entropy of cluster sizes.")
]
BootstrapOpt = Annotated[
    int,
    typer.Option(
        "--bootstrap", metavar="N", callback=natural("--bootstrap", 100, 10**6, "expected 100 to 1000000"),
        help="Resamples of questions behind each interval.",
    ),
]  # fmt: skip
FigureOpt = Annotated[
    Path | None, typer.Option("--figure", metavar="FILE", help="Curves with bands: .png, .svg or .pdf.")
]
TableOpt = Annotated[Path | None, typer.Option("--table", metavar="FILE", help="The table: .md, .csv or .tex.")]

# --- store, output, running ---------------------------------------------------------------------------------------

StoreOpt = Annotated[
    Path,
    typer.Option(
        "--store", metavar="DIR", help="Where artifacts are kept; else $HCL_STORE.", rich_help_panel=STORE_PANEL
    ),
]
ForceOpt = Annotated[
    bool,
    typer.Option("--force", help="Compute again and replace what is stored.", rich_help_panel=STORE_PANEL),
]
NoCacheOpt = Annotated[
    bool,
    typer.Option("--no-cache", help="Neither read nor write the store; needs -o.", rich_help_panel=STORE_PANEL),
]
DryRunOpt = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the key, hit or miss, and why it is a miss.", rich_help_panel=STORE_PANEL),
]
OutputOpt = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Place a copy at FILE and print that path.",
                 rich_help_panel=STORE_PANEL),
]  # fmt: skip
JsonOpt = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object instead of the path.", rich_help_panel=STORE_PANEL),
]
QuietOpt = Annotated[
    bool, typer.Option("--quiet", "-q", help="Only warnings and errors on stderr.", rich_help_panel=RUN_PANEL)
]
VerboseOpt = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say more on stderr.", rich_help_panel=RUN_PANEL)
]  # fmt: skip


def known_device(value: str) -> str:
    """The name of a device, known without asking torch; whether the machine has it is found out when it is needed."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", value):
        raise BadOption(f"--device {value}: expected auto, cpu, cuda, cuda:N or mps")
    return value


DeviceOpt = Annotated[
    str,
    typer.Option("--device", metavar="DEVICE", callback=known_device, help="auto, cpu, cuda\\[:N] or mps.",
                 rich_help_panel=RUN_PANEL),
]  # fmt: skip
DtypeOpt = Annotated[
    str,
    typer.Option(
        "--dtype", metavar="DTYPE", help="auto (config.json), float32, bfloat16, float16, float64.",
        rich_help_panel=RUN_PANEL,
    ),
]  # fmt: skip

DTYPES = ("float32", "bfloat16", "float16", "float64")


def parse_dtype(text: str, config_dtype: str) -> str:
    """`auto` is the dtype of the model's config.json, never chosen by the device."""
    name = config_dtype if text == "auto" else text
    if name not in DTYPES:
        raise BadOption(f"--dtype {text}: expected auto or one of {', '.join(DTYPES)}")
    return name


_RANGE = re.compile(r"(\d{1,6})(?:-(\d{1,6})(?::(\d{1,6}))?)?")


def parse_exit_layers(
    text: str, n_layers: int, model: str, *, option: str = "--exit-layers", least: int = 1, what: str = "layers"
) -> tuple[int, ...]:
    """`all`, `2,4,8` or `2-16:2` as sorted distinct layers in least..n_layers.

    Args:
        option: for the messages.
        least: 0 where the embedding counts as a layer.
        what: layers, or blocks, of which `all` is no choice.
    Raises:
        BadOption: not a list of layers, or a layer that the model does not have.
    """
    example = f"try {option} {'all, ' if what == 'layers' else ''}2,4 or 2-{n_layers}:2"
    if text.strip() == "all" and what == "layers":
        return tuple(range(least, n_layers + 1))
    layers: set[int] = set()
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise BadOption(f"{option} {text!r}: {part.strip()!r} is not a {what[:-1]} or a range; {example}")
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        step = int(match[3]) if match[3] else 1
        if step == 0 or last < first:
            raise BadOption(f"{option} {text!r}: the range {part.strip()} is empty; {example}")
        layers.update(range(first, last + 1, step))
    outside = sorted(layer for layer in layers if not least <= layer <= n_layers)
    if outside:
        raise BadOption(f"{option} {text}: {model} has {what} {least}..{n_layers}, asked was {outside[0]}; {example}")
    return tuple(sorted(layers))


_ESCAPES = {"\\n": "\n", "\\t": "\t", "\\r": "\r", "\\\\": "\\"}


def parse_stops(texts: list[str]) -> tuple[str, ...]:
    """Stop strings with \\n, \\t, \\r and \\\\ read as escapes; an empty string alone means none."""
    stops = [re.sub(r"\\[ntr\\]", lambda match: _ESCAPES[match[0]], text) for text in texts]
    if "" in stops and len(stops) > 1:
        raise BadOption("--stop '': an empty stop string means none, so it cannot stand beside others; drop it")
    return tuple(sorted({stop for stop in stops if stop}))
