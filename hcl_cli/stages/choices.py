"""Multiple choice under any decoding method: every given answer is scored, and what the scores say of each question.

A method's score of an answer is the sum over its tokens of ln q_N (`vanilla`) or of ln q_N - ln q_M, contrasted; the
latter is no log-probability and grows with the answer's length in either direction. Three switches, each reported
under its name: `constrained` gives tokens outside the plausible set a score of their own; `outside` is that score
(`excluded`: -inf, as in decoding, under which most answers of TruthfulQA cannot be said at all; `published`: -1000, so
that an answer with fewer such tokens wins); `normalised` makes the contrasted scores log-probabilities again. DoLa's
published TruthfulQA numbers are not constrained and not normalised, its FACTOR numbers are both, with -1000.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from hcl_cli.errors import BadInput, shown
from hcl_cli.measures.bootstrap import resampled_means
from hcl_cli.measures.choices import factor_accuracy, mc1, mc2, mc3, published_mc2
from hcl_cli.measures.intervals import mean_interval
from hcl_cli.schemas import CHOICES, CHOICES_COMPARED

if TYPE_CHECKING:
    import polars as pl

    from hcl_cli.models.contrast import ContrastScores, Method
    from hcl_cli.models.load import LoadedModel

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Kind = Literal["mc", "factor"]

METRICS: dict[Kind, tuple[str, ...]] = {"mc": ("mc1", "mc2", "mc3"), "factor": ("factor-sum", "factor-mean")}
EXCLUDED, PUBLISHED = "excluded", "published"
OUTSIDE = {EXCLUDED: -math.inf, PUBLISHED: -1000.0}
Way = tuple[bool | None, bool | None, str | None]  # constrained, normalised, outside
_LOOSE_MARK = re.compile(r"\s+([.,;:!?])$")


@dataclass(frozen=True)
class Choice:
    """One text with the answers that may follow it.

    Attributes:
        question_id: unique.
        text: what the model reads: the question in its prompt, or a prefix.
        true, false: answers, at least one each; a blank goes between the text and each.
        best: the place of the best answer in `true`.
    """

    question_id: str
    text: str
    true: tuple[str, ...]
    false: tuple[str, ...]
    best: int = 0


def closed(answer: str) -> str:
    """An answer with a period at its end, as TruthfulQA's scripts append it to every reference."""
    trimmed = answer.strip()
    return trimmed if trimmed.endswith(".") else f"{trimmed}."


def question_choices(frame: pl.DataFrame, render: Callable[[str], str]) -> list[Choice]:
    """Questions with their references, each with a period at its end, as TruthfulQA is scored.

    Args:
        frame: of `data.completions.open_choices`.
        render: from a question to its prompt.
    """
    found = []
    for row in frame.iter_rows(named=True):
        true = tuple(dict.fromkeys(map(closed, row["correct_answers"])))
        false = tuple(dict.fromkeys(map(closed, row["incorrect_answers"])))
        best = true.index(closed(row["best_answer"]))
        found.append(Choice(row["question_id"], render(row["question"]), true, false, best))
    return found


def completion_choices(frame: pl.DataFrame, *, tidy: bool = False) -> list[Choice]:
    """Prefixes with their factual and false continuations, as FACTOR is scored.

    Args:
        frame: of `data.completions.open_completions`. Blanks at a prefix's end and around a continuation are dropped;
            one blank stands between the two.
        tidy: drop a blank before the mark that ends a continuation. In factor_expert 70 % of the factual ones have it
            and 4 % of the false ones, so as they stand a model can tell them by their spelling [ours].
    """

    def one(text: str) -> str:
        return _LOOSE_MARK.sub(r"\1", text.strip()) if tidy else text.strip()

    return [
        Choice(
            row["question_id"],
            row["prefix"].rstrip(" "),
            (one(row["completion"]),),
            tuple(one(text) for text in row["contradictions"]),
        )
        for row in frame.iter_rows(named=True)
    ]


def choice_rows(
    loaded: LoadedModel,
    choices: Sequence[Choice],
    methods: Sequence[Method],
    *,
    kind: Kind,
    model: str,
    dataset: str | None,
    constrained: Collection[bool] = (False, True),
    normalised: Collection[bool] = (False, True),
    published: bool = False,
    special_tokens: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """CHOICES rows: every question, method, way to score and measure.

    What all texts begin with is computed once, each text once, and its answers together; all methods and ways read the
    same pass of the model. Under `vanilla` there is nothing to constrain or to normalise: one row, both null; with an
    alpha of its own it is scored as the constrained methods are.

    Args:
        loaded: the model.
        choices: at least one.
        methods: with distinct names.
        kind: mc: MC1, MC2, MC3. factor: whether the factual continuation wins, by sum and by mean; a text that does not
            fit the model's positions has null rows.
        model, dataset: names for the rows.
        constrained, normalised: the ways to score a contrasting method, every combination; each constrained one with
            both scores for tokens outside.
        published: as the published code: scores are normalised over the whole vocabulary before the constraint, not
            over the plausible set; and `mc2-published`, its MC2, stands beside ours.
        special_tokens: whether the tokenizer adds its own (BOS); False for a chat prompt, which writes them itself.
        progress: told (questions done, questions).
    Returns:
        the rows; `value` is null where no answer can be said at all (MC2), or is undefined for another reason.
    Raises:
        BadInput: no question, an empty answer list, a text or answer without tokens, or (mc) one that does not fit the
            model's positions.
        EnvironmentRefused: a single answer does not fit the memory.
    """
    import polars as pl

    from hcl_cli.models.contrast import contrast_logprobs

    if not choices:
        raise BadInput(f"{_named(dataset)}: no questions; expected at least one with answers to choose from")
    texts, answers = _tokenised(loaded, choices, dataset, special_tokens)
    fits = [_fits(loaded, *pair) for pair in zip(texts, answers, strict=True)]
    if kind == "mc":
        _check_fits(loaded, choices, texts, answers, dataset)
    scored = iter(
        contrast_logprobs(
            loaded,
            [text for text, fit in zip(texts, fits, strict=True) if fit],
            [given for given, fit in zip(answers, fits, strict=True) if fit],
            # One layer for all rows is a variant of decoding: a scored token has no company.
            [replace(method, average_over_batch=False) for method in methods],
            outside=-math.inf,
            normalise_over="vocabulary" if published else "plausible",
            progress=progress,
        )
        if any(fits)
        else ()
    )
    rows: list[dict[str, Any]] = []
    for choice, fit in zip(choices, fits, strict=True):
        of_methods = next(scored) if fit else [None] * len(methods)
        for method, found in zip(methods, of_methods, strict=True):
            of = {"model": model, "dataset": dataset, "question_id": choice.question_id, "method": method.name}
            for way in _ways(method, constrained, normalised):
                rows += [of | row for row in _measured(choice, found, way, kind, published)]
    return pl.DataFrame(rows, schema=CHOICES.polars_schema(), orient="row")


def check_choices(
    loaded: LoadedModel, choices: Sequence[Choice], *, kind: Kind, dataset: str | None, special_tokens: bool = True
) -> None:
    """Refuse what `choice_rows` would refuse, before anything is scored; warn of a text that ends in a blank.

    Raises:
        BadInput: as `choice_rows`.
    """
    apart: list[bool] = []
    texts, answers = _tokenised(loaded, choices, dataset, special_tokens, apart)
    if any(apart):
        log.warning(
            "the tokenizer would join the end of the prompt with %d of %d answers; these are read as they are written "
            "on their own, which the model may not expect: end the prompt without a blank",
            sum(apart),
            len(apart),
        )
    if kind == "mc":
        _check_fits(loaded, choices, texts, answers, dataset)


def _ways(method: Method, constrained: Collection[bool], normalised: Collection[bool]) -> list[Way]:
    """How a method is scored, in order."""
    if not method.candidates and not method.alpha:
        return [(None, None, None)]
    ways: list[Way] = []
    for is_constrained in sorted(set(constrained)):
        for is_normalised in sorted(set(normalised)):
            if is_constrained:
                ways += [(True, is_normalised, outside) for outside in OUTSIDE]
            elif method.candidates:  # without its constraint, vanilla with an alpha is vanilla
                ways.append((False, is_normalised, None))
    return ways


def _measured(
    choice: Choice, found: ContrastScores | None, way: Way, kind: Kind, published: bool
) -> list[dict[str, Any]]:
    """What is said of one question under one method and way; `found` is None where the text is too long."""
    constrained, normalised, outside = way
    n_true = len(choice.true)
    values: dict[str, float | None] = dict.fromkeys(METRICS[kind])
    if kind == "mc" and published:
        values["mc2-published"] = None
    excluded = None
    if found is not None:
        tokens = found.mature_logprobs
        if constrained is not None and normalised is not None:
            tokens = found.scores[constrained, normalised]
        if outside is not None:
            excluded = sum(bool(np.isneginf(answer).any()) for answer in tokens)
            tokens = [np.where(np.isneginf(answer), OUTSIDE[outside], answer) for answer in tokens]
        if kind == "mc":
            totals = [float(answer.sum()) for answer in tokens]
            true, false = totals[:n_true], totals[n_true:]
            values |= {"mc1": mc1(true[choice.best], false), "mc2": mc2(true, false), "mc3": mc3(true, false)}
            if published:
                values["mc2-published"] = published_mc2(true, false)
        else:
            lists = [answer.tolist() for answer in tokens]
            factual, others = lists[choice.best], lists[n_true:]
            values = {
                "factor-sum": factor_accuracy(factual, others, mean=False),
                "factor-mean": factor_accuracy(factual, others, mean=True),
            }
    shared = {
        "constrained": constrained, "normalised": normalised, "outside": outside, "n_excluded": excluded,
        "n_answers": n_true + len(choice.false), "too_long": found is None,
    }  # fmt: skip
    return [{**shared, "metric": metric, "value": value} for metric, value in values.items()]


def _tokenised(
    loaded: LoadedModel,
    choices: Sequence[Choice],
    dataset: str | None,
    special_tokens: bool,
    apart: list[bool] | None = None,
) -> tuple[list[list[int]], list[list[list[int]]]]:
    """The tokens of every text, and of its answers (true ones first) as they continue it.

    Args:
        apart: is told of every answer whether the tokenizer would have joined it with the text's end.
    """
    from hcl_cli.models.vocabulary import continuation_ids

    texts, answers = [], []
    for choice in choices:
        where = _where(choice, dataset)
        for name, one in (("correct", choice.true), ("incorrect", choice.false)):
            if not one:
                raise BadInput(f"{where}: no {name} answer, expected at least one; leave the question out")
        ids = list(loaded.tokenizer(choice.text, add_special_tokens=special_tokens)["input_ids"])
        if not ids:
            raise BadInput(f"{where}: no tokens to answer to; write some text before the answers")
        found = []
        for answer in (*choice.true, *choice.false):
            tokens, joined = continuation_ids(loaded.tokenizer, choice.text, answer, ids, special_tokens=special_tokens)
            if not tokens:
                raise BadInput(f"{where}: the tokenizer makes no token of the answer {shown(answer, 40)!r}")
            if apart is not None:
                apart.append(not joined)
            found.append(tokens)
        texts.append(ids)
        answers.append(found)
    return texts, answers


def _fits(loaded: LoadedModel, text: Sequence[int], answers: Sequence[Sequence[int]]) -> bool:
    return loaded.max_positions is None or len(text) + max(map(len, answers)) <= loaded.max_positions


def _check_fits(
    loaded: LoadedModel,
    choices: Sequence[Choice],
    texts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[Sequence[int]]],
    dataset: str | None,
) -> None:
    for choice, text, given in zip(choices, texts, answers, strict=True):
        if not _fits(loaded, text, given):
            raise BadInput(
                f"{_where(choice, dataset)}: takes {len(text) + max(map(len, given))} positions with its longest "
                f"answer, but the model has {loaded.max_positions}; use a shorter prompt (fewer --n-shots) or leave it "
                "out"
            )


def _where(choice: Choice, dataset: str | None) -> str:
    return f"{_named(dataset)}, question {shown(choice.question_id, 40)!r}"


def _named(dataset: str | None) -> str:
    return "the questions" if dataset is None else shown(dataset)


# ------------------------------------------------------------------------------------------------------- summary


def choice_summary(
    rows: pl.DataFrame, *, baseline: str = "vanilla", n_bootstrap: int = 2000, seed: int = 0
) -> pl.DataFrame:
    """CHOICES_COMPARED rows: the mean of each measure over questions, and its difference from the baseline.

    Questions where a measure is null are left out of its mean, and a difference is taken over the questions that have
    both; `n_questions` and `n_paired` say how many those are, `n_too_long` how many did not fit the model.

    Args:
        rows: CHOICES rows, of one or more models and data sets.
        baseline: the method that the others are compared with, if it was run.
        n_bootstrap: resamples of the questions.
        seed: of the resampling.
    Returns:
        one row per model, data set, method, way to score and measure, in the order of the rows. 95 % intervals over
        questions (`measures.intervals`); null with fewer than two questions.
    """
    import polars as pl

    group = ["model", "dataset", "method", "constrained", "normalised", "outside", "metric"]
    of_group = {key: part for key, part in rows.group_by(group, maintain_order=True)}
    columns: dict[str, list[Any]] = {name: [] for name in CHOICES_COMPARED.columns}
    for key, part in of_group.items():
        model, dataset, method, *way, metric = key
        values = _by_question(part)
        against = None
        if method != baseline:
            # Scored in the same way; vanilla without variants is scored in one way alone.
            ways = (tuple(way), (None, None, None))
            against = next(
                (of_group[at] for w in ways if (at := (model, dataset, baseline, *w, metric)) in of_group), None
            )
        others = {} if against is None else _by_question(against)
        differences = [value - others[question] for question, value in values.items() if question in others]
        found = dict(zip(group, key, strict=True))
        found |= _interval("value", list(values.values()), (0.0, 1.0), n_bootstrap, seed)
        found |= _interval("difference", differences, (-1.0, 1.0), n_bootstrap, seed)
        found |= {
            "baseline": None if against is None else baseline,
            "n_questions": len(values),
            "n_paired": len(differences) if against is not None else None,
            "n_answers": part["n_answers"].sum(),
            "n_excluded": part["n_excluded"].sum() if part["outside"].null_count() == 0 else None,
            "n_too_long": int(part["too_long"].sum()),
        }
        for name, cells in columns.items():
            cells.append(found[name])
    return pl.DataFrame(columns, schema=CHOICES_COMPARED.polars_schema())


def _by_question(rows: pl.DataFrame) -> dict[str, float]:
    known = rows.drop_nulls("value")
    return dict(zip(known["question_id"], known["value"], strict=True))


def _interval(
    name: str, values: Sequence[float], support: tuple[float, float], n_bootstrap: int, seed: int
) -> dict[str, float | None]:
    ends: tuple[float | None, ...] = (None, None)
    if len(values) > 1 and n_bootstrap:
        column = np.array(values)[:, None]
        low, high = mean_interval(column, resampled_means(column, n_bootstrap, seed), support)
        ends = _known(low), _known(high)
    mean = _known(np.mean(values, keepdims=True)) if values else None
    return {name: mean, f"{name}_low": ends[0], f"{name}_high": ends[1]}


def _known(value: Floats) -> float | None:
    """None for NaN; rounded, so that the order in which a machine adds does not show."""
    return None if np.isnan(value[0]) else round(float(value[0]), 12)
