"""Answers and references -> text scores, one row per answer, metric and kind of reference; and methods compared."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hcl_cli.errors import BadInput, BadOption, EnvironmentRefused, shown
from hcl_cli.measures.text import exact_match, token_f1
from hcl_cli.measures.text_metrics import (
    N_COUNTS,
    ROUGE,
    bleu_counts,
    harness_references,
    max_diff_acc,
    rouge_f1,
    sentence_bleu,
)
from hcl_cli.schemas.contrast import TEXT_SCORES

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Pair = tuple[str, str]
BertScore = Callable[[Sequence[Pair]], Floats]
Progress = Callable[[int, int], None]

# Name on the command line -> metrics in the table. `bleu` is of a corpus: its rows hold counts, not a value.
METRICS = {
    "bleu": ("bleu", "bleu-sentence"),
    "rouge": tuple(ROUGE),
    "bertscore": ("bertscore",),
    "f1": ("token-f1",),
    "exact": ("exact",),
}
EVALUATE = "evaluate:"
_LIBRARY = {"bleu": ("sacrebleu", "sacrebleu"), "rouge": ("rouge_score", "rouge-score")}
# Kind of reference -> the column that holds it, and whether that is a list.
REFERENCES = {"best": "best_answer", "correct": "correct_answers", "incorrect": "incorrect_answers"}
_MISSING = (
    f"references are missing: nothing in {', '.join(REFERENCES.values())} or answers; text metrics need one of them, "
    "as --dataset truthfulqa has, or --metrics none"
)
_HARNESS = ("bleu", "rouge")  # what lm-evaluation-harness takes itself
_BLOCK = 2048  # answers whose pairs are held at once


@dataclass(frozen=True)
class MetricChoice:
    """What `--metrics` asks for.

    Attributes:
        own: names out of METRICS.
        foreign: names or paths for the library `evaluate`.
    """

    own: tuple[str, ...]
    foreign: tuple[str, ...]


def parse_metrics(text: str) -> MetricChoice:
    """`bleu,rouge,bertscore,f1,exact`, `all` for these, and any number of `evaluate:NAME_OR_PATH`.

    Raises:
        BadOption: an unknown name, or none.
        EnvironmentRefused: the library of a metric is not installed.
    """
    own: dict[str, None] = {}
    foreign: dict[str, None] = {}
    for part in (part.strip() for part in text.split(",")):
        if part.startswith(EVALUATE) and part != EVALUATE:
            foreign[part.removeprefix(EVALUATE)] = None
        elif part == "all":
            own.update(dict.fromkeys(METRICS))
        elif part in METRICS:
            own[part] = None
        else:
            raise BadOption(
                f"--metrics {shown(text, 60)}: {shown(part, 40)!r} is no metric; expected all, {', '.join(METRICS)} or "
                f"{EVALUATE}NAME_OR_PATH, with commas between them"
            )
    require_libraries(tuple(own))
    return MetricChoice(tuple(own), tuple(foreign))


def require_libraries(metrics: Sequence[str]) -> None:
    """Refuse what cannot be computed here, before anything is decoded.

    Raises:
        EnvironmentRefused: names the missing library and the extra that brings it.
    """
    for metric in metrics:
        module, library = {**_LIBRARY, "bertscore": ("bert_score", "bert-score")}.get(metric, ("", ""))
        if module and importlib.util.find_spec(module) is None:
            raise EnvironmentRefused(
                f"--metrics {metric} needs {library}, which is not installed; pip install 'hcl-cli[metrics]'"
            )


def with_references(answers: pl.DataFrame) -> dict[str, list[list[str]]]:
    """The references of every row, by kind; kinds that the table does not hold are left out.

    `correct` is read from `correct_answers`, or from `answers` where that column is not there. A row may have none of
    a kind; how many do is logged.

    Raises:
        BadInput: no reference at all.
    """
    found: dict[str, list[list[str]]] = {}
    for kind, column in REFERENCES.items():
        column = "answers" if kind == "correct" and column not in answers.columns else column
        if column not in answers.columns:
            continue
        given = ([value] if isinstance(value, str) else value or [] for value in answers[column].to_list())
        lists = [[text for text in one if text is not None and text.strip()] for one in given]
        if without := lists.count([]):
            log.warning("%d of %d answers have no reference in %s: left out there", without, len(lists), column)
        if without < len(lists):
            found[kind] = lists
    if not found:
        raise BadInput(_MISSING)
    return found


def check_references(questions: pl.DataFrame) -> None:
    """Refuse questions none of which has a reference. Raises BadInput."""
    names = [name for name in (*REFERENCES.values(), "answers") if name in questions.columns]
    if not any(questions[name].list.len().sum() for name in names):
        raise BadInput(_MISSING)


def text_scores(
    answers: pl.DataFrame,
    metrics: Sequence[str] = ("bleu", "rouge", "f1", "exact"),
    *,
    bertscore: BertScore | None = None,
    encoder: str | None = None,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Every answer under every metric, against each kind of reference.

    Against `best`, `correct` and `incorrect`: the largest value over these references, as they stand in the table; an
    answer has no row against a kind of which it has none. Where there are correct and incorrect ones, also
    lm-evaluation-harness's variants `max`, `diff` and `acc` (`max_diff_acc`), with "I have no comment." among the
    correct ones. It defines them for sentence BLEU and ROUGE, over references that all end in a full stop; for the
    other metrics, which it does not take, references stay as they stand (an encoder would have to read every one
    twice).

    Corpus BLEU has no value of one answer: a `bleu` row holds the answer's `counts`, from which `compared` takes it.

    Args:
        answers: question_id, method, sample_index, response, and at least one column of references
            (`with_references`). model and dataset are carried along, null if not there.
        metrics: names out of METRICS.
        bertscore: (answer, reference) pairs to [pair, 3] (precision, recall, F1); needed by `bertscore`, of which F1
            is kept. A block of answers at a time, each distinct pair once.
        encoder: what the table calls the encoder.
        progress: called with (answers scored, answers to score).
    Returns:
        TEXT_SCORES, rows in the order of the answers; values in [0, 1], except `bertscore` (a cosine) and `diff`, in
        [-1, 1].
    Raises:
        BadInput: no answers, a column missing, a null response, an answer twice, or references missing.
    """
    import polars as pl

    unknown = [name for name in metrics if name not in METRICS]
    if unknown or ("bertscore" in metrics and bertscore is None):
        raise ValueError(f"unknown metric {unknown}" if unknown else "bertscore needs an encoder")
    require_libraries([name for name in metrics if name in _LIBRARY])
    frame = _keyed(answers)
    references = with_references(frame)
    blocks = []
    # A question's answers stand together, so that its references are encoded in one block.
    order = frame.with_row_index("row").sort("question_id", "row")["row"].to_numpy()
    for start in range(0, len(order), _BLOCK):
        rows = order[start : start + _BLOCK]
        part = frame[rows.tolist()]
        lists = {kind: [given[row] for row in rows] for kind, given in references.items()}
        blocks.append(_block_scores(part.with_columns(row=pl.Series(rows)), lists, metrics, bertscore, encoder))
        if progress is not None:
            progress(min(start + _BLOCK, len(order)), len(order))
    table = pl.concat(blocks).sort("row", "order").select(*TEXT_SCORES.columns)
    return table.cast({name: kind for name, kind in TEXT_SCORES.polars_schema().items()})


def _keyed(answers: pl.DataFrame) -> pl.DataFrame:
    """The answers with whole, unique keys."""
    import polars as pl

    if not answers.height:
        raise BadInput("no answers to score: the table has no row; expected one per question, method and sample")
    for name in ("question_id", "method", "sample_index", "response"):
        if name not in answers.columns:
            raise BadInput(f"column {name} is missing; text metrics need question_id, method, sample_index, response")
        if answers[name].has_nulls():
            row = int(answers[name].is_null().arg_true()[0]) + 1
            raise BadInput(f"row {row}, column {name}: null; expected a value, an answer without words is ''")
    for name in ("model", "dataset"):
        if name not in answers.columns:
            answers = answers.with_columns(pl.lit(None, dtype=pl.String).alias(name))
    repeated = answers.select("model", "dataset", "question_id", "method", "sample_index").is_duplicated()
    if repeated.any():
        row = int(repeated.arg_true()[1]) + 1
        met = ", ".join(str(answers[name][row - 1]) for name in ("question_id", "method", "sample_index"))
        raise BadInput(f"row {row}: question, method and sample ({shown(met, 80)}) stand in another row too")
    return answers


def _block_scores(
    part: pl.DataFrame,
    lists: dict[str, list[list[str]]],
    metrics: Sequence[str],
    bertscore: BertScore | None,
    encoder: str | None,
) -> pl.DataFrame:
    """TEXT_SCORES of some answers, with `row` and `order` to sort by."""
    import polars as pl

    responses: list[str] = part["response"].to_list()
    ids = part.select("row", "model", "dataset", "question_id", "method", "sample_index")
    rows: list[pl.DataFrame] = []

    def add(
        metric: str, against: str, where: Ints, value: Floats | None, counts: list[list[int]] | None = None
    ) -> None:
        rows.append(
            ids[where.tolist()].with_columns(
                order=pl.lit(len(rows), dtype=pl.Int32),
                metric=pl.lit(metric),
                against=pl.lit(against),
                value=pl.lit(None, dtype=pl.Float64) if value is None else pl.Series(value, dtype=pl.Float64),
                encoder=pl.lit(encoder if metric == "bertscore" else None, dtype=pl.String),
                counts=pl.lit(None, dtype=pl.List(pl.Float32))
                if counts is None
                else pl.Series(counts, dtype=pl.List(pl.Float32)),
            )
        )

    # The answers that have references of a kind.
    having = {kind: np.flatnonzero([bool(one) for one in given]) for kind, given in lists.items()}
    if "correct" in lists and "incorrect" in lists:
        having["harness"] = np.intersect1d(having["correct"], having["incorrect"])
    if "bleu" in metrics:
        for kind, given in lists.items():
            add("bleu", kind, having[kind], None, [bleu_counts(responses[i], given[i]) for i in having[kind]])
    best: dict[str, dict[str, Floats]] = {}
    for full_stop in (True, False):
        asked = {kind: [(responses[i], given[i]) for i in having[kind]] for kind, given in lists.items()}
        for kind in ("correct", "incorrect") if "harness" in having else ():
            asked[f"harness-{kind}"] = [
                (responses[i], harness_references(lists[kind][i], kind == "correct", full_stop))
                for i in having["harness"]
            ]
        names = [name for name in metrics if (name in _HARNESS) == full_stop]
        best.update(_best_values(asked, names, bertscore))
    for metric, values in best.items():
        for kind in lists:
            add(metric, kind, having[kind], values[kind])
        if "harness" in having:
            variants = max_diff_acc(values["harness-correct"], values["harness-incorrect"])
            for name, value in zip(("max", "diff", "acc"), variants, strict=True):
                add(metric, name, having["harness"], value)
    return pl.concat(rows)


def _best_values(
    asked: dict[str, list[tuple[str, list[str]]]], metrics: Sequence[str], bertscore: BertScore | None
) -> Iterator[tuple[str, dict[str, Floats]]]:
    """Each metric's largest value over the references of each kind, [answer]; each distinct pair is scored once."""
    number: dict[Pair, int] = {}
    members: dict[str, Ints] = {}
    starts: dict[str, Ints] = {}
    for kind, given in asked.items():
        pairs = [(text, one) for text, texts in given for one in texts]
        members[kind] = np.array([number.setdefault(pair, len(number)) for pair in pairs], dtype=np.int64)
        starts[kind] = np.cumsum([0, *(len(texts) for _, texts in given)])[:-1]
    distinct = list(number)
    for name in metrics:
        if name == "bertscore" and bertscore is not None:
            columns = bertscore(distinct)[:, 2:]
        else:
            columns = np.array([_PAIR_SCORES[name](*pair) for pair in distinct], dtype=np.float64)
        table = METRICS[name][1:] if name == "bleu" else METRICS[name]
        for column, metric in enumerate(table):
            values = columns.reshape(len(distinct), -1)[:, column] if distinct else np.empty(0)
            yield (
                metric,
                {
                    kind: np.maximum.reduceat(values[members[kind]], starts[kind]) if len(starts[kind]) else np.empty(0)
                    for kind in asked
                },
            )


_PAIR_SCORES: dict[str, Callable[[str, str], tuple[float, ...]]] = {
    "bleu": lambda answer, reference: (sentence_bleu(answer, reference),),
    "rouge": rouge_f1,
    "f1": lambda answer, reference: (token_f1(answer, [reference]),),
    "exact": lambda answer, reference: (float(exact_match(answer, [reference])),),
}


def counts_of(scores: pl.DataFrame) -> Floats:
    """[row, 10], the counts of `bleu` rows."""
    flat = scores["counts"].explode().to_numpy()
    return np.asarray(flat, dtype=np.float64).reshape(-1, N_COUNTS)
