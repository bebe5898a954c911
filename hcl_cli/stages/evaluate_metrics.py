"""Any metric of the library `evaluate`, by name or path; the library is imported only here, when one is asked for."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hcl_cli.errors import BadInput, BadOption, EnvironmentRefused, HclError, shown
from hcl_cli.metrics import MODULES, module_folder
from hcl_cli.schemas.contrast import COMPARED
from hcl_cli.stages.text_scores import with_references

if TYPE_CHECKING:
    import polars as pl

References = Sequence[str] | Sequence[Sequence[str]]


def evaluate_metric(name: str, predictions: Sequence[str], references: References) -> dict[str, float]:
    """The numbers that a metric of the library `evaluate` gives.

    Args:
        name: a metric's folder or script, one of our own modules (`hcl_cli.metrics.MODULES`), or a name on the Hub.
        predictions: at least one.
        references: for each prediction one text or a list of texts.
    Returns:
        key -> number. A list with one number per prediction becomes its mean; what is no number is left out.
    Raises:
        EnvironmentRefused: `evaluate`, or what the metric needs, is not installed, or the Hub is needed and not there.
        BadOption: no such metric.
        BadInput: the metric refused these texts, or gave no number.
    """
    if not predictions:
        raise BadInput(f"--metrics evaluate:{shown(name, 60)}: no answers to score; expected at least one")
    metric = _loaded(name)
    try:
        with redirect_stdout(sys.stderr):  # stdout is for the path of the artifact
            given = metric.compute(predictions=list(predictions), references=_for_metric(metric, references))
    except (HclError, MemoryError):
        raise
    except Exception as error:  # foreign code may raise anything
        raise BadInput(
            f"--metrics evaluate:{shown(name, 60)}: the metric failed on {len(predictions)} answers "
            f"({type(error).__name__}: {_first_line(error)}); expected one for texts with references"
        ) from error
    numbers = {key: number for key, value in (given or {}).items() if (number := _number(value, len(predictions)))}
    found = {key: number[0] for key, number in numbers.items()}
    if not found:
        raise BadInput(f"--metrics evaluate:{shown(name, 60)}: it gave no number; expected a metric of texts")
    return found


def metric_identity(name: str) -> str | None:
    """What decides a metric's numbers: the digest of its scripts and the version of the library.

    All Python files of its folder are in it, since a script may import those beside it. Imports neither the script nor
    the library.

    Args:
        name: as for `evaluate_metric`.
    Returns:
        "sha256:<hex> evaluate <version>"; None for a metric of the Hub, whose script is not known before it is loaded.
    """
    from importlib.metadata import PackageNotFoundError, version

    place, is_path = _place(name)
    if not is_path or not place.exists():
        return None
    digest = hashlib.sha256()
    for script in sorted((place if place.is_dir() else place.parent).glob("*.py")):
        digest.update(f"{script.name}\0{hashlib.sha256(script.read_bytes()).hexdigest()}\n".encode())
    try:
        return f"sha256:{digest.hexdigest()} evaluate {version('evaluate')}"
    except PackageNotFoundError:
        return None


def check_metric(name: str) -> None:
    """Load a metric, so that one that is not there is refused early. Raises as `evaluate_metric`."""
    _loaded(name)


def _place(name: str) -> tuple[Path, bool]:
    """Where a metric lies, and whether it is named by a path."""
    local = module_folder(name) if name in MODULES else Path(name).expanduser()
    is_path = local.exists() or name.endswith(".py") or name.startswith((".", "/", "~")) or name.count("/") > 1
    return local, is_path


def evaluate_compared(answers: pl.DataFrame, name: str, *, baseline: str = "vanilla") -> pl.DataFrame:
    """A metric of the library `evaluate` for every method, beside the rows of `text_comparison.compared`.

    Such a metric is of a whole corpus, so there is no interval. Against `best`, and, if the metric takes lists of
    references, against `correct` and `incorrect` (against these alone where there is no best one).

    Args:
        answers: as for `text_scores.text_scores`.
        name: as for `evaluate_metric`.
        baseline: a method; if it is not there, differences are null.
    Returns:
        COMPARED, metric `evaluate:NAME/KEY`.
    Raises:
        as `evaluate_metric`, and BadInput where references are missing.
    """
    import polars as pl

    references = with_references(answers)
    if not _takes_lists(_loaded(name)):
        references = {kind: lists for kind, lists in references.items() if kind == "best"}
        if not references:
            raise BadInput(f"--metrics evaluate:{shown(name, 60)}: it takes one reference, and there is no best_answer")
    for column in ("model", "dataset"):
        if column not in answers.columns:
            answers = answers.with_columns(pl.lit(None, dtype=pl.String).alias(column))
    numbered = answers.with_row_index("row")
    groups = numbered.group_by("model", "dataset", "method", maintain_order=True)
    rows: list[dict[str, Any]] = []
    for (model, dataset, method), group in groups:
        for kind, lists in references.items():
            own = group.filter([bool(lists[row]) for row in group["row"]])
            if not own.height:
                continue
            values = evaluate_metric(name, own["response"].to_list(), [lists[row] for row in own["row"]])
            shared = {"model": model, "dataset": dataset, "method": method, "against": kind}
            shared |= {"n_questions": own["question_id"].n_unique()}
            rows += [{**shared, "metric": f"evaluate:{name}/{key}", "value": value} for key, value in values.items()]
    cell = ("model", "dataset", "metric", "against")
    basis = {tuple(row[key] for key in cell): row["value"] for row in rows if row["method"] == baseline}
    for row in rows:
        other = basis.get(tuple(row[key] for key in cell))
        if other is not None and row["method"] != baseline:
            row |= {"baseline": baseline, "difference": row["value"] - other}
    empty = dict.fromkeys(COMPARED.columns)
    return pl.DataFrame([{**empty, **row} for row in rows], schema=COMPARED.polars_schema(), orient="row")


@lru_cache(maxsize=8)
def _loaded(name: str) -> Any:
    if importlib.util.find_spec("evaluate") is None:
        raise EnvironmentRefused(
            f"--metrics evaluate:{shown(name, 60)} needs evaluate, which is not installed; "
            "pip install 'hcl-cli[evaluate]'"
        )
    import evaluate

    local, is_path = _place(name)
    said = f"--metrics evaluate:{shown(name, 60)}"
    try:
        with redirect_stdout(sys.stderr):
            return evaluate.load(str(local.resolve()) if is_path else name, keep_in_memory=True)
    except ImportError as error:
        raise EnvironmentRefused(f"{said}: {_first_line(error)}; install what it names") from error
    except Exception as error:  # foreign code may raise anything
        if is_path:
            raise BadOption(
                f"{said}: cannot be loaded ({type(error).__name__}: {_first_line(error)}); expected a metric's script, "
                "or a folder that holds a script of its own name"
            ) from error
        raise EnvironmentRefused(
            f"{said}: not a folder here, and not had from the Hub ({type(error).__name__}); go online once, name a "
            f"metric's folder, or take one of {', '.join(MODULES)}"
        ) from error


def _takes_lists(metric: Any) -> bool:
    """Whether one of its forms of input has a list of references."""
    from datasets import Value

    features = metric.info.features
    forms = features if isinstance(features, list) else [features]
    return any("references" in form and not isinstance(form["references"], Value) for form in forms)


def _for_metric(metric: Any, references: References) -> list[Any]:
    """The references as lists if the metric takes lists, else as single texts where there is only one each."""
    lists = [[given] if isinstance(given, str) else list(given) for given in references]
    if _takes_lists(metric):
        return lists
    return [given[0] if len(given) == 1 else given for given in lists]


def _number(value: Any, n: int) -> tuple[float] | None:
    """A number, or the mean of one per prediction, in a tuple; None for anything else and for NaN."""
    if isinstance(value, (bool, str, bytes, dict)) or value is None:
        return None
    array = np.asarray(value)
    if array.dtype.kind not in "iuf" or array.size == 0 or (array.ndim == 1 and array.size != n) or array.ndim > 1:
        return None
    number = float(array.mean())
    return None if math.isnan(number) else (number,)


def _first_line(error: BaseException) -> str:
    return shown(str(error).strip().partition("\n")[0], 160)
