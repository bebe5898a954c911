"""Metrics of the library `evaluate`: a stand-in shows what is asked and read, the long tests run the library."""

import importlib.util
import math
import subprocess
import sys
import types
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from hcl_cli.errors import BadInput, BadOption, EnvironmentRefused
from hcl_cli.metrics import MODULES, module_folder
from hcl_cli.schemas import COMPARED
from hcl_cli.stages import evaluate_metrics as stage
from hcl_cli.stages.evaluate_metrics import evaluate_compared, evaluate_metric, metric_identity

ANSWERS = ["the cat sat on the mat", "a dog"]
SINGLE = ["the cat sat on the mat today", "a dog barks"]


@pytest.fixture(autouse=True)
def _forget_loaded_metrics() -> Iterator[None]:
    stage._loaded.cache_clear()
    yield
    stage._loaded.cache_clear()


class StandIn:
    """A metric module that says what it was given."""

    def __init__(self, nested: bool = True) -> None:
        self.asked: list[dict[str, Any]] = []
        self.nested = nested

    def compute(self, **given: Any) -> dict[str, Any]:
        self.asked.append(given)
        print("loading ...")
        if "" in given["predictions"]:
            raise ValueError("an empty text\nand more")
        if "zero" in given["predictions"]:
            raise ZeroDivisionError("float division by zero")
        if "device" in given["predictions"]:
            raise RuntimeError("no device")
        if "nothing" in given["predictions"]:
            return {"name": "none", "undefined": math.nan}
        length = float(np.mean([len(text) for text in given["predictions"]]))
        return {"length": length, "each": [len(text) for text in given["predictions"]], "by": "me", "yes": True}


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    metric = StandIn()
    monkeypatch.setattr(stage, "_loaded", lambda name: metric)
    monkeypatch.setattr(stage, "_takes_lists", lambda metric: metric.nested)
    return metric


def test_numbers_of_a_metric(stand_in: StandIn) -> None:
    """A number stays, a list with one per answer becomes its mean, text and flags are no numbers."""
    assert evaluate_metric("mine", ["ab", "abcd"], ["x", "y"]) == {"length": 3, "each": 3}
    assert stand_in.asked == [{"predictions": ["ab", "abcd"], "references": [["x"], ["y"]]}]
    stand_in.nested = False
    evaluate_metric("mine", ["ab"], [["x"]])
    assert stand_in.asked[-1]["references"] == ["x"]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([], "--metrics evaluate:mine: no answers to score; expected at least one"),
        ([""], "--metrics evaluate:mine: the metric failed on 1 answers .ValueError: an empty text.; expected one for"),
        (["zero"], "the metric failed on 1 answers .ZeroDivisionError: float division by zero.; expected"),
        (["device"], "the metric failed on 1 answers .RuntimeError: no device.; expected"),
        (["nothing"], "--metrics evaluate:mine: it gave no number"),
    ],
)
def test_refusals_are_one_line(stand_in: StandIn, answers: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message) as error:
        evaluate_metric("mine", answers, ["x"] * len(answers))
    assert "\n" not in str(error.value)


def test_a_metric_that_prints_does_not_write_to_stdout(stand_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate_metric("mine", ["ab"], ["x"])
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "loading ...\n")


def test_a_metrics_identity_is_its_scripts_and_the_librarys_version(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "mine.py").write_text("one")
    (folder / "README.md").write_text("words")
    first = metric_identity(str(folder))
    assert first is not None and first.startswith("sha256:") and f"evaluate {version('evaluate')}" in first
    assert metric_identity(str(folder / "mine.py")) == first
    (folder / "README.md").write_text("other words")
    assert metric_identity(str(folder)) == first
    (folder / "helper.py").write_text("two")  # which the script may import
    second = metric_identity(str(folder))
    (folder / "mine.py").write_text("three")
    assert len({first, second, metric_identity(str(folder))}) == 3
    assert metric_identity("hcl_bleu") is not None and metric_identity("bleu") is None
    assert metric_identity(str(tmp_path / "nowhere")) is None


def frame() -> pl.DataFrame:
    rows = [
        {"question_id": question, "method": method, "sample_index": 0, "response": text, "model": "m", "dataset": "d"}
        for method, texts in (("vanilla", ("ab", "abcd")), ("dola", ("a", "ab")))
        for question, text in zip(("p", "q"), texts, strict=True)
    ]
    return pl.DataFrame(rows).with_columns(best_answer=pl.lit("x"), correct_answers=pl.lit(["x", "y"]))


def test_methods_under_a_metric(stand_in: StandIn) -> None:
    table = evaluate_compared(frame(), "mine")
    assert table.schema == COMPARED.polars_schema()
    rows = table.filter(metric="evaluate:mine/length").select("method", "against", "value", "baseline", "difference")
    assert rows.rows() == [
        ("vanilla", "best", 3.0, None, None),
        ("vanilla", "correct", 3.0, None, None),
        ("dola", "best", 1.5, "vanilla", -1.5),
        ("dola", "correct", 1.5, "vanilla", -1.5),
    ]
    assert set(table["value_low"]) == {None}
    assert stand_in.asked[-1] == {"predictions": ["a", "ab"], "references": [["x", "y"], ["x", "y"]]}


def test_a_metric_of_one_reference_is_asked_for_the_best(stand_in: StandIn) -> None:
    stand_in.nested = False
    assert set(evaluate_compared(frame(), "mine")["against"]) == {"best"}
    with pytest.raises(BadInput, match="evaluate:mine: it takes one reference, and there is no best_answer"):
        evaluate_compared(frame().drop("best_answer"), "mine")
    with pytest.raises(BadInput, match="references are missing"):
        evaluate_compared(frame().drop("best_answer", "correct_answers"), "mine")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "evaluate" else real(name))
    with pytest.raises(
        EnvironmentRefused, match=r"evaluate, which is not installed; pip install 'hcl-cli\[evaluate\]'"
    ):
        evaluate_metric("hcl_bleu", ANSWERS, SINGLE)


def test_what_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A name that needs the network, a folder without its script, a script whose libraries are not there."""

    def load(path: str, **_: Any) -> None:
        raise (ImportError("install the following\nall") if path.endswith("needy") else FileNotFoundError(path))

    monkeypatch.setitem(sys.modules, "evaluate", types.SimpleNamespace(load=load, __spec__="there"))
    (tmp_path / "needy").mkdir()
    for name, kind, message in (
        ("bleu", EnvironmentRefused, "not a folder here, and not had from the Hub .FileNotFoundError.; go online once"),
        (str(tmp_path), BadOption, "cannot be loaded .FileNotFoundError"),
        (str(tmp_path / "needy"), EnvironmentRefused, "install the following; install what it names"),
    ):
        with pytest.raises(kind, match=message) as error:
            evaluate_metric(name, ANSWERS, SINGLE)
        assert "\n" not in str(error.value)


def test_no_library_is_imported_before_it_is_asked_for() -> None:
    code = (
        "import sys, hcl_cli.metrics, hcl_cli.stages.evaluate_metrics, hcl_cli.stages.text_comparison\n"
        "import hcl_cli.models.bertscore\n"
        "heavy = 'evaluate datasets sacrebleu rouge_score bert_score torch transformers polars'.split()\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


MINE = """
import datasets
import evaluate

class Mine(evaluate.Metric):
    def _info(self):
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": text})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        return {"shorter": sum(len(a) < len(b) for a, b in zip(predictions, references))}
"""


@pytest.mark.long
def test_the_library_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our modules (8 tokens of 10, all there: exp(-1/4)), a user's script, and a name that needs the network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    lists = [[one, "x"] for one in SINGLE]
    found = {name: evaluate_metric(name, ANSWERS, SINGLE) for name in MODULES}
    assert found["hcl_bleu"] == {"bleu": pytest.approx(math.exp(-1 / 4))}
    assert evaluate_metric("hcl_bleu", ANSWERS, lists)["bleu"] == 1  # the shortest reference is 'x'
    assert found["hcl_rouge"]["rouge1"] == pytest.approx((12 / 13 + 4 / 5) / 2)
    assert found["hcl_token_f1"] == {"f1": pytest.approx((8 / 9 + 2 / 3) / 2)}
    assert found["hcl_exact_match"] == {"exact_match": 0}
    assert evaluate_metric("hcl_exact_match", ANSWERS, [[ANSWERS[0], "x"], ["y"]]) == {"exact_match": 0.5}
    assert found["hcl_bertscore"]["f1"] == pytest.approx(0.79256, abs=1e-4)

    script = tmp_path / "mine" / "mine.py"
    script.parent.mkdir()
    script.write_text(MINE)
    assert evaluate_metric(str(script.parent), ["ab", "abc"], ["abc", "ab"]) == {"shorter": 1}
    assert evaluate_compared(frame(), str(script))["against"].unique().to_list() == ["best"]
    with pytest.raises(EnvironmentRefused, match="evaluate:bleu: not a folder here, and not had from the Hub"):
        evaluate_metric("bleu", ANSWERS, SINGLE)
    with pytest.raises(BadOption, match="cannot be loaded"):
        evaluate_metric(str(tmp_path), ANSWERS, SINGLE)


def test_scripts_lie_where_the_library_looks() -> None:
    for name in MODULES:
        text = (module_folder(name) / f"{name}.py").read_text("utf-8")
        # `import a, b` on one line is read by the library as one name.
        assert not [line for line in text.splitlines() if line.startswith("import ") and "," in line]
