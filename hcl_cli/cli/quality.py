"""The metrics that `--metrics` names, each with its set: what they are taken on, and how."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcl_cli.cli.options import one_of
from hcl_cli.errors import BadInput, BadOption, shown
from hcl_cli.stages.quality import KINDS, Kind, Metric, QuestionRows, Source, Work

if TYPE_CHECKING:
    from hcl_cli.models.encoders import EncoderRef

_COUNTS = (
    "n_texts", "n_questions", "n_choices", "n_labelled", "max_tokens", "max_new_tokens", "n_samples", "n_speed",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What the metrics are taken on unless their name says another set, and how.

    Attributes:
        texts, questions, choices, labelled: names of sets; `texts` may be a set of statements, of which the true ones
            are read, and `questions` rows that are at hand (held-out ones).
        n_texts, n_questions, n_choices, n_labelled: the first so many of each, None for all.
        max_tokens: a text is cut to so many.
        prompt, max_new_tokens, judge, seed: how questions are asked and answers judged.
        n_samples, temperature: of the sampled answers; the others are greedy, one each.
        cluster, threshold, encoder: of the sampled answers, as for `hcl score`.
        choice_prompt: of multiple choice: truthfulqa, or as for `prompt`.
        template: of classification, `{text}` in it.
        n_speed: questions that decode together when generation is timed.
        columns: kind of set (texts, questions, choices, labelled) -> our column -> column of the file; not for the
            sets that are built in.
        labels: label of a labelled file -> its word, likewise.
        memo: a JSON file that remembers commits, or None.
        warn: is told which commit is used when the Hub gave no answer.
    """

    texts: str = "wikitext2"
    questions: str | QuestionRows = "lab"
    choices: str = "truthfulqa"
    labelled: str = "sentiment"
    n_texts: int | None = 200
    n_questions: int | None = 200
    n_choices: int | None = 100
    n_labelled: int | None = 200
    max_tokens: int = 256
    prompt: str = "plain"
    max_new_tokens: int = 50
    judge: str = "alias"
    seed: int = 0
    n_samples: int = 10
    temperature: float = 0.6
    cluster: str = "exact"
    threshold: float = 0.8
    encoder: EncoderRef | None = None
    choice_prompt: str = "truthfulqa"
    template: str = "Sentence: {text}\nSentiment:"
    n_speed: int = 32
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    memo: Path | None = None
    warn: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        from hcl_cli.stages.scored_columns import JUDGES

        one_of("--judge", self.judge, JUDGES)
        one_of("--cluster", self.cluster, ("cosine", "exact"))
        if self.cluster == "cosine" and self.encoder is None:
            raise BadOption("--cluster cosine: no sentence encoder is at hand; use --cluster exact")
        if not 0 <= self.temperature < math.inf:
            raise BadOption(f"--temperature {self.temperature:g}: expected a number of at least 0")
        for option in _COUNTS:
            least, value = 2 if option == "max_tokens" else 1, getattr(self, option)
            if value is not None and value < least:
                raise BadOption(f"--{option.replace('_', '-')} {value}: expected a whole number of at least {least}")
        if "{text}" not in self.template:
            raise BadOption(f"--template {shown(self.template)}: no {{text}} in it; write it where the text belongs")


def open_metrics(names: Sequence[str], settings: Settings | None = None) -> list[Metric]:
    """Metrics by name; no model is needed and no row is read.

    Args:
        names: `NAME` or `NAME:SET`, see the table in `stages.quality`.
        settings: the sets and how they are read.
    Raises:
        BadOption, BadInput: no such metric, set or file, or a set of another kind; the message begins with the
            metric.
        EnvironmentRefused: the Hub is needed and gives no answer.
    """
    settings = settings or Settings()
    works: dict[tuple[str | None, str], tuple[str, Work]] = {}
    found: dict[Metric, None] = {}
    for given in names:
        name, colon, data = given.partition(":")
        kind = _kind(given, name, data)
        if colon and not data:
            raise BadOption(f"--metrics {shown(given)}: no set behind the colon; write {name} or {name}:SET")
        if name.startswith("classification") and not data:
            raise BadOption(f"--metrics {name}: on which set? Write {name}:FILE or {name}:hub:OWNER/NAME")
        asked = data or _default_set(kind, settings)
        data = asked if isinstance(asked, str) else asked.name
        if (kind.data, data) not in works:
            try:
                works[kind.data, data] = _opened(kind, asked, settings)
            except (BadOption, BadInput) as error:
                said = str(error).removeprefix(f"--dataset {shown(data)}: ")
                raise type(error)(f"--metrics {shown(given)}: {said}") from None
        dataset, work = works[kind.data, data]
        metric = Metric(name, dataset, kind.higher_is_better, kind.statistic, work, kind.key or name)
        if metric in found:
            raise BadOption(f"--metrics {shown(given)}: {name} on {shown(dataset)} is named twice; name each once")
        found[metric] = None
    return list(found)


def _kind(given: str, name: str, data: str) -> Kind:
    if name not in KINDS:
        near = difflib.get_close_matches(name.lower(), KINDS, 3, 0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"expected one of {', '.join(KINDS)}"
        raise BadOption(f"--metrics {shown(given)}: there is no metric {shown(name)!r}; {hint}")
    kind = KINDS[name]
    if data and kind.data is None:
        raise BadOption(f"--metrics {shown(given)}: {name} is a number of the model alone; write {name}")
    if data and name.startswith("sentiment"):
        instead = name.replace("sentiment", "classification")
        raise BadOption(f"--metrics {shown(given)}: {name} has its own set; write {instead}:{shown(data)}")
    return kind


def _default_set(kind: Kind, settings: Settings) -> str | QuestionRows:
    if kind.data is None:
        return ""
    found: str | QuestionRows = getattr(settings, kind.set_kind)
    return found


def _opened(kind: Kind, data: str | QuestionRows, settings: Settings) -> tuple[str, Work]:
    """The work of a kind of metric on one set, and the set's name."""
    from hcl_cli.data.completions import open_choices
    from hcl_cli.data.labelled import open_labelled
    from hcl_cli.data.questions import open_questions
    from hcl_cli.data.sources import SOURCES
    from hcl_cli.data.truthfulqa_prompt import open_shots
    from hcl_cli.stages import quality_answers as answers
    from hcl_cli.stages import quality_texts as texts

    if kind.data is None:
        return "", answers.Size()
    if isinstance(data, QuestionRows):
        return data.name, _asking(kind, data, {}, settings)
    ours = data in SOURCES  # and has our own columns and words
    columns = {} if ours else dict(settings.columns.get(kind.set_kind, {}))
    options: dict[str, Any] = {"columns": columns or None, "memo": settings.memo, "warn": settings.warn}
    if kind.data == "texts":
        running = _texts(data, options)
        return running.name, texts.TextReading(running, settings.n_texts, settings.max_tokens, columns=columns)
    if kind.data == "labelled":
        labels = {} if ours else dict(settings.labels)
        labelled = open_labelled(data, labels=labels, **options)
        return labelled.name, texts.Labelling(
            labelled, settings.n_labelled, settings.template, columns=columns, labels=labels
        )
    if kind.data == "choices":
        given = open_choices(data, **options)
        return given.name, answers.Choosing(given, settings.n_choices, open_shots(settings.choice_prompt), columns)
    asked = open_questions(data, **options)
    return asked.name, _asking(kind, asked, columns, settings)


def _asking(kind: Kind, asked: Source, columns: dict[str, str], settings: Settings) -> Work:
    from hcl_cli.data.prompts import open_prompt
    from hcl_cli.stages import quality_answers as answers

    asking = answers.Asking(
        open_prompt(settings.prompt), max_new_tokens=settings.max_new_tokens, judge=settings.judge, seed=settings.seed
    )
    if kind.data == "speed":
        return answers.Speed(asked, settings.n_speed, asking, columns=columns)
    if kind.data == "questions":
        return answers.Answering(asked, settings.n_questions, asking, columns)
    asking = replace(
        asking, n_samples=settings.n_samples, temperature=settings.temperature, cluster=settings.cluster,
        threshold=settings.threshold, encoder=settings.encoder,
    )  # fmt: skip
    return answers.SampledAnswering(asked, settings.n_questions, asking, columns)


def _texts(data: str, options: Mapping[str, Any]) -> Source:
    from hcl_cli.data.sources import SOURCES
    from hcl_cli.data.statements import open_statements
    from hcl_cli.data.texts import open_texts

    base = data.partition(":")[0]
    if base in SOURCES and SOURCES[base].kind == "statements":
        return open_statements(data, memo=options["memo"], warn=options["warn"])
    return open_texts(data, **options)
