"""What a model is worth: metrics by name, each a table of units that stay the same when the model is changed.

| name | on | unit | better | what |
| --- | --- | --- | --- | --- |
| `perplexity` | texts | texts | lower | exp of the mean loss over tokens |
| `token-accuracy` | texts | texts | higher | share of tokens that were the likeliest |
| `answer-accuracy` | questions | questions | higher | greedy answers judged right |
| `accuracy@50`, `coverage@50`, `auroc` | questions | questions | higher | how well confidence tells right answers |
| `ece`, `brier` | questions | questions | lower | how far confidence is from being right |
| `mc1`, `mc2`, `mc3` | given answers | questions | higher | TruthfulQA's multiple choice |
| `sentiment`, `sentiment-mean`, `sentiment-calibrated` | labelled texts | texts | higher | labels by likelihood |
| `classification:SET`, likewise `-mean`, `-calibrated` | labelled texts | texts | higher | the same on any set |
| `hallucination-rate` | questions | questions | lower | share of sampled answers that are wrong |
| `creativity` | questions | questions | higher | clusters of right sampled answers |
| `tokens-per-second` | questions | runs | higher | generation on this machine, now |
| `parameters` | | | | their number |

`NAME:SET` takes a metric on another set: `perplexity:book.txt`, `answer-accuracy:triviaqa`, `ece:hub:OWNER/NAME`.
Metrics on the same set share one pass of the model. `cli.quality.open_metrics` opens the sets. This module is light:
what needs torch is imported when it runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from hcl_cli.errors import BadOption, shown

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.models.load import LoadedModel

Floats = npt.NDArray[np.float64]

LAB_MODELS = ("lab", "lab-base")
LAB_TEXTS = "lab-statements"


class Source(Protocol):
    """A set that can be named without being read, of `hcl_cli.data` or at hand (`QuestionRows`)."""

    @property
    def name(self) -> str:
        """The `dataset` of the rows."""

    @property
    def identity(self) -> str:
        """What tells its content, for a recipe."""

    def load(self) -> pl.DataFrame:
        """The rows, validated."""


class LabelledSource(Source, Protocol):
    """A set of labelled texts."""

    @property
    def words(self) -> tuple[str, ...]:
        """Every label's word."""


class Template(Protocol):
    """A way to ask, of `hcl_cli.data.prompts`."""

    @property
    def identity(self) -> str:
        """For a recipe."""

    @property
    def is_chat(self) -> bool:
        """Whether the text holds the special tokens already."""

    def render(self, question: str, tokenizer: Any = None) -> str:
        """The whole prompt for one question."""


class Work(Protocol):
    """One pass of a model over one set, which one or more metrics read."""

    @property
    def unit(self) -> str | None:
        """texts | questions | runs; None for a number of the model alone."""

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the values beside the model, as JSON: a part of the recipe."""

    def __call__(self, loaded: LoadedModel) -> Mapping[str, Floats]:
        """Key -> [unit, column]: the same units in the same order for every model with the same tokenizer."""


@dataclass(frozen=True)
class Kind:
    """A kind of metric.

    Attributes:
        data: what it is taken on: texts | questions | sampled | choices | labelled | speed, or None.
        higher_is_better: None where neither way is better.
        statistic: what becomes of the units, a key of `stages.retained.STATISTICS`.
        key: of its values among those of the work; by default its name.
    """

    data: str | None
    higher_is_better: bool | None
    statistic: str
    key: str | None = None

    @property
    def set_kind(self) -> str:
        """The kind of set: texts | questions | choices | labelled."""
        return "questions" if self.data in ("sampled", "speed") else self.data or ""


KINDS: dict[str, Kind] = {
    "perplexity": Kind("texts", False, "perplexity"),
    "token-accuracy": Kind("texts", True, "share"),
    "answer-accuracy": Kind("questions", True, "mean"),
    "accuracy@50": Kind("questions", True, "accuracy@50"),
    "coverage@50": Kind("questions", True, "coverage@50"),
    "ece": Kind("questions", False, "ece"),
    "brier": Kind("questions", False, "brier"),
    "auroc": Kind("questions", True, "auroc"),
    "mc1": Kind("choices", True, "mean"),
    "mc2": Kind("choices", True, "mean"),
    "mc3": Kind("choices", True, "mean"),
    **{
        f"{name}{end}": Kind("labelled", True, "mean", score)
        for name in ("sentiment", "classification")
        for end, score in (("", "sum"), ("-mean", "mean"), ("-calibrated", "calibrated"))
    },
    "hallucination-rate": Kind("sampled", False, "mean"),
    "creativity": Kind("sampled", True, "count"),
    "tokens-per-second": Kind("speed", True, "median"),
    "parameters": Kind(None, None, "mean"),
}
_SHORT = ("answer-accuracy", "accuracy@50", "coverage@50", "ece", "brier", "auroc", "parameters")
DEFAULT_METRICS = ("perplexity", "token-accuracy", "mc1", "mc2", "mc3", "sentiment", *_SHORT)
# Encyclopedia, misconceptions and reviews are no part of the lab models' world.
LAB_METRICS = (f"perplexity:{LAB_TEXTS}", f"token-accuracy:{LAB_TEXTS}", *_SHORT)


@dataclass(frozen=True)
class Metric:
    """One number of a model, and the units that it is made of.

    Attributes:
        name: as the table has it.
        dataset: that it is taken on, "" for none.
        higher_is_better, statistic: see `Kind`.
        work: gives its values.
        key: under which.
    """

    name: str
    dataset: str
    higher_is_better: bool | None = field(compare=False)
    statistic: str = field(compare=False)
    work: Work = field(compare=False, repr=False)
    key: str = field(compare=False, repr=False)

    @property
    def unit(self) -> str | None:
        """What is resampled: texts | questions | runs; None for a number of the model alone."""
        return self.work.unit

    @property
    def identity(self) -> dict[str, Any]:
        """What determines its values beside the model, for a recipe."""
        return {"metric": self.name, "dataset": self.dataset, **self.work.identity}

    def __call__(self, loaded: LoadedModel) -> Floats:
        """[unit, column]; for several metrics use `quality_values.measured`, which runs the model once."""
        return self.work(loaded)[self.key]


@dataclass(frozen=True)
class QuestionRows:
    """Questions that are at hand, in the place of a set that can be named.

    Attributes:
        name: the `dataset` of the rows.
        identity: what tells their content, for a recipe.
        frame: QUESTIONS rows.
    """

    name: str
    identity: str
    frame: pl.DataFrame = field(repr=False, compare=False)

    def load(self) -> pl.DataFrame:
        """The rows."""
        return self.frame


def default_metrics(model: str) -> tuple[str, ...]:
    """The metrics that are taken unless others are named; of the lab models those that belong to their world."""
    return LAB_METRICS if model in LAB_MODELS else DEFAULT_METRICS


def parse_metrics(text: str) -> tuple[str, ...]:
    """`perplexity,ece:triviaqa` as names; `cli.quality.open_metrics` refuses those that it does not know.

    Raises:
        BadOption: an empty name, or one that is there twice.
    """
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise BadOption(f"--metrics {shown(text)}: an empty name; expected names with a comma between, like brier,ece")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BadOption(f"--metrics {shown(text)}: {shown(twice)} is named twice; name each once")
    return names
