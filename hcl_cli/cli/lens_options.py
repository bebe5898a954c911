"""The options of `hcl lens` that no other command has, and what can be refused before anything is read."""

import csv
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from hcl_cli.cli.exports import check_export
from hcl_cli.cli.options import natural
from hcl_cli.errors import BadOption, shown

SCORINGS = ("full", "first-token")
_COLUMN = "column:"
_TUNED = "Tuned lens"

OptionsOpt = Annotated[
    str | None,
    typer.Option(
        "--options", metavar="WORDS", show_default="the likeliest tokens",
        help='Candidates with commas between ("Paris, France" in quotes is one), or column:NAME of --input.',
    ),
]  # fmt: skip
TopOpt = Annotated[
    int,
    typer.Option(
        "--top", metavar="K", callback=natural("--top", 1, 1000, "expected 1 to 1000 tokens"),
        help="Without --options: the K likeliest tokens of the last layer.",
    ),
]  # fmt: skip
PositionOpt = Annotated[
    str,
    typer.Option("--position", metavar="P", help="After which token: last, a number from 0, -1 from the end, or all."),
]
ScoringOpt = Annotated[
    str,
    typer.Option(
        "--scoring", help="full: probability of all tokens of an option; first-token: of its first, as published."
    ),
]
NormOpt = Annotated[
    bool,
    typer.Option(
        "--norm/--no-norm", help="Read layers through the final norm, or without it (last layer always with)."
    ),
]
InputOpt = Annotated[
    str | None,
    typer.Option("--input", metavar="QUESTIONS", show_default=False, help="A file or data set of questions instead."),
]
PromptOpt = Annotated[
    str, typer.Option("--prompt", metavar="PROMPT", help="plain, published, chat, a file, or raw: the text as it is.")
]
ShowLayersOpt = Annotated[
    str,
    typer.Option("--show-layers", metavar="LAYERS", help="all, or 0,8,16, for the views; the table holds all layers."),
]
HtmlOpt = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="A standalone page with values on hover: .html.")
]
FigureOpt = Annotated[Path | None, typer.Option("--figure", metavar="FILE", help="A heat map: .png, .svg or .pdf.")]
TunedOpt = Annotated[
    Path | None,
    typer.Option("--tuned", metavar="DIR", help="Read layers through the tuned lens in DIR.", rich_help_panel=_TUNED),
]
TrainTunedOpt = Annotated[
    str | None,
    typer.Option(
        "--train-tuned", metavar="TEXTS", show_default=False, rich_help_panel=_TUNED,
        help="Train that lens first, on a file or data set of texts; DIR must not be there yet.",
    ),
]  # fmt: skip


def parse_candidates(options: str | None, questions: str | None) -> tuple[tuple[str, ...] | None, str | None]:
    """What `--options` names: the options themselves, or a column of the questions' file that holds them.

    Raises:
        BadOption: fewer than two options, an empty one, one twice, or a column without a file.
    """
    if options is None:
        return None, None
    if options.startswith(_COLUMN):
        column = options.removeprefix(_COLUMN).strip()
        if questions is None:
            raise BadOption(f"--options {shown(options)}: is a column of a file of questions; name one with --input")
        if not column:
            raise BadOption(f"--options {options}: names no column; write one behind it, such as {_COLUMN}answers")
        return None, column
    try:
        rows = list(csv.reader([options], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise BadOption(f"--options {shown(options)}: {error}; expected words with commas between") from None
    found = tuple(option.strip() for option in (rows[0] if rows else []))
    if not found or not all(found):
        raise BadOption(f"--options {shown(options)!r}: an option is empty; expected words with commas between")
    twice = next((option for option in found if found.count(option) > 1), None)
    if twice is not None:
        raise BadOption(f"--options {shown(options)}: {shown(twice, 40)!r} is given twice; name each once")
    if len(found) < 2:
        raise BadOption(f"--options {shown(options)}: one option has nothing to be compared with; name two or more")
    return found, None


def parse_position(text: str) -> int | None:
    """`last`, `all` (None) or a whole number.

    Raises:
        BadOption: for anything else.
    """
    if text in ("last", "all"):
        return -1 if text == "last" else None
    if not re.fullmatch(r"-?\d{1,9}", text):
        raise BadOption(
            f"--position {shown(text)}: expected last, all, or a token's number: 0 is the first, -1 the last"
        )
    return int(text)


def check_views(figure: Path | None, html: Path | None, table: Path | None) -> None:
    """Refuse a file that could not be written before anything is computed.

    Raises:
        BadOption
    """
    check_export("--figure", figure, (".png", ".svg", ".pdf"))
    if figure is not None and find_spec("matplotlib") is None:
        raise BadOption(f"--figure {figure}: needs matplotlib; install it with pip install 'hcl-cli[figures]'")
    check_export("--html", html, (".html", ".htm"))
    check_export("--table", table, (".md", ".csv", ".tex"))


def check_tuned(tuned: Path | None, train_tuned: str | None, norm: bool, dry_run: bool) -> None:
    """Refuse options of the tuned lens that do not go together.

    Raises:
        BadOption
    """
    if train_tuned is not None and tuned is None:
        raise BadOption(f"--train-tuned {shown(train_tuned)}: say where the lens is to be kept with --tuned DIR")
    if tuned is None:
        return
    if not norm:
        raise BadOption(
            f"--tuned {tuned} and --no-norm: a tuned lens reads through the final norm; drop one of the two"
        )
    if train_tuned is None:
        return
    if dry_run:
        raise BadOption("--train-tuned and --dry-run: the key names the lens, which is not trained yet; train it first")
    if tuned.is_file() or (tuned.is_dir() and any(tuned.iterdir())):
        raise BadOption(
            f"--tuned {tuned}: is already there; drop --train-tuned to use it, or name a folder that is not there yet"
        )
