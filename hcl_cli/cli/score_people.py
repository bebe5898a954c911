"""`hcl score` on answers that people have judged: how good each judge is."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from hcl_cli.artifacts.recipe import Input, Recipe
from hcl_cli.cli.session import Session
from hcl_cli.errors import BadInput, BadOption
from hcl_cli.schemas import JUDGE_CALIBRATION
from hcl_cli.stages.versions import VERSIONS

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.artifacts.artifact import Artifact
    from hcl_cli.data.questions import QuestionSet

HUMAN = "human"
_BOOTSTRAP, _SEED = 2000, 0
_PANEL = "Judges against people"

PeopleOpt = Annotated[
    str | None,
    typer.Option(
        "--people", metavar="SET", show_default=False, rich_help_panel=_PANEL,
        help="In place of responses: answers that people judged, efficientqa. A FILE with a column human does too.",
    ),
]  # fmt: skip
PeopleTableOpt = Annotated[
    Path | None,
    typer.Option(
        "--people-table", metavar="FILE", rich_help_panel=_PANEL,
        help="Precision, recall and kappa of each judge: .md, .csv or .tex.",
    ),
]  # fmt: skip


class Answers(Protocol):
    """What is scored: a file of responses, or judged answers of a set."""

    @property
    def path(self) -> Path: ...

    def frame(self) -> "pl.LazyFrame": ...


@dataclass(frozen=True)
class People:
    """Judged answers as an input of `hcl score`."""

    questions: "QuestionSet"

    @property
    def path(self) -> Path:
        """For messages."""
        return Path(self.questions.name)

    @cached_property
    def _frame(self) -> "pl.DataFrame":
        import polars as pl

        from hcl_cli.data.people import people_rows

        return people_rows(self.questions.load(extra=True)).with_columns(dataset=pl.lit(self.questions.name))

    def frame(self) -> "pl.LazyFrame":
        """RESPONSES, with the column human."""
        return self._frame.lazy()

    @property
    def identities(self) -> dict[str, str]:
        """What is read, for the recipe."""
        return {"people": self.questions.identity, "people_name": self.questions.name}


def open_input(session: Session, people: str, responses: str | None, memo: Path | None) -> People:
    """The judged answers that `--people` names.

    Raises:
        BadOption: a file is named as well, or the set is unknown.
    """
    from hcl_cli.data.people import open_people

    if responses is not None:
        raise BadOption(f"--people {people}: stands in the place of responses, but {responses} is named; drop one")
    return People(open_people(people, memo=memo, warn=session.terminal.warn))


def checked(rows: "pl.DataFrame", source: Answers) -> "pl.DataFrame":
    """The rows, what people said of them in order, if there is a column for it.

    Raises:
        BadInput: before anything is judged.
    """
    if HUMAN not in rows.columns:
        return rows
    from hcl_cli.stages.judge_calibration import with_people

    try:
        return with_people(rows)
    except BadInput as error:
        raise BadInput(f"{source.path}: {error}") from error


def calibrated(session: Session, scored: "Artifact") -> "tuple[list[dict[str, Any]], list[Artifact]]":
    """The rows of JUDGE_CALIBRATION, and its artifact, if it is kept."""

    def compute() -> "pl.DataFrame":
        from hcl_cli.stages.judge_calibration import judge_calibration

        return judge_calibration(scored.frame().collect(), n_bootstrap=_BOOTSTRAP, seed=_SEED)

    if session.no_cache:
        from hcl_cli.artifacts.parquet import conform

        return conform(compute(), JUDGE_CALIBRATION).to_dicts(), []
    recipe = Recipe(
        table=JUDGE_CALIBRATION.name,
        stage="score",
        version=VERSIONS["score"],
        options={"bootstrap": _BOOTSTRAP, "seed": _SEED},
        inputs=(Input(scored.sha256, scored.key),),
    )
    made = session.produce(recipe, JUDGE_CALIBRATION, compute)
    return made.rows_as_dicts(), [made]


def show(session: Session, rows: list[dict[str, Any]], table: Path | None) -> None:
    """The table on stderr, and in the file that was asked for."""
    if not session.quiet:
        from hcl_cli.report.people_tables import people_report

        for renderable in people_report(rows):
            session.terminal.show(renderable)
    if table is not None:
        from hcl_cli.report.people_tables import write_people_table

        write_people_table(rows, table)
        session.terminal.say(f"score: judges against people in {table}")
