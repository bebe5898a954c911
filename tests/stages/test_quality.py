"""Metrics of a model: by hand on a model with a known law, against plain re-statements, and before and after a cut."""

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from pytest import approx

from hcl_cli.cli.quality import Settings, open_metrics
from hcl_cli.data.questions import open_questions
from hcl_cli.data.statements import open_statements
from hcl_cli.errors import BadInput
from hcl_cli.models.exits import exit_at
from hcl_cli.models.load import load_model, loaded_from
from hcl_cli.resources import data_file
from hcl_cli.stages.quality import (
    LAB_METRICS,
    QuestionRows,
)
from hcl_cli.stages.quality_answers import Speed
from hcl_cli.stages.quality_values import measured, measured_variants

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
import planted

Tiny = Callable[..., Any]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The planted model: a bigram model whose law is known."""
    folder = tmp_path_factory.mktemp("quality") / "planted"
    planted.write_planted_model(folder)
    return load_model(folder, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def lab() -> Any:
    return load_model(data_file("models", "lab"), dtype="float32", device="cpu")


def law(token: str, layer: int = 4) -> dict[str, float]:
    """Next-token log-probabilities of the planted model, from its definition in plain Python."""
    logits = planted.scores(layer, token)
    total = math.log(sum(math.exp(value) for value in logits))
    return {word: value - total for word, value in zip(planted.WORDS, logits, strict=True)}


def written(folder: Path, name: str, *rows: object) -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / name)


def values(loaded: Any, *names: str, **options: Any) -> dict[str, np.ndarray]:
    """Metric name -> [unit, column]."""
    return {metric.name: found for metric, found in measured(open_metrics(names, Settings(**options)), loaded).items()}


@contextmanager
def without_the_last(loaded: Any, layer: int) -> Iterator[Any]:
    """The model as if it had `layer` blocks, loaded anew: what a cut model looks like to a metric."""
    with exit_at(loaded.model, layer):
        yield loaded_from(loaded.model, loaded.tokenizer, "cut")


# ------------------------------------------------------------------------------------------------------- the texts


def test_losses_and_hits_by_hand(small: Any, tmp_path: Path) -> None:
    """After 4 blocks the likeliest word after ask-one is paris, after paris </s>, after ask-many red or blue."""
    texts = ["ask-one paris", "ask-many red lyon", "ask-hard rome paris"]
    path = written(tmp_path, "t.jsonl", *({"text": one} for one in texts))
    found = values(small, f"perplexity:{path}", f"token-accuracy:{path}")
    pairs = [list(zip(one.split()[:-1], one.split()[1:], strict=True)) for one in texts]
    lost = [-sum(law(a)[b] for a, b in one) for one in pairs]
    hits = [sum(max(law(a), key=law(a).__getitem__) == b for a, b in one) for one in pairs]
    assert hits == [1, 1, 0] and max(law("ask-many"), key=law("ask-many").__getitem__) == "red"
    assert found["perplexity"][:, 0] == approx(lost, abs=2e-4)
    assert found["token-accuracy"].tolist() == [[1, 1], [1, 2], [0, 2]] and found["perplexity"][:, 1].tolist() == [
        1,
        2,
        2,
    ]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_perplexity_is_the_librarys_loss_of_the_first_tokens(tiny_model: Tiny, tmp_path: Path, family: str) -> None:
    loaded = tiny_model(family)
    texts = ["Who wrote the play about a prince of Denmark?", "the blue whale " * 9, "Paris"]
    path = written(tmp_path, "t.jsonl", *({"text": one} for one in texts))
    found = values(loaded, f"perplexity:{path}", max_tokens=20)["perplexity"]
    for text, (lost, n_tokens) in zip(texts, found, strict=True):
        ids = torch.tensor([loaded.tokenizer(text)["input_ids"][:20]])
        with torch.inference_mode():
            mean = float(loaded.model(input_ids=ids, labels=ids).loss)
        assert n_tokens == ids.shape[1] - 1 and lost / n_tokens == approx(mean, abs=2e-4)
    assert found[1, 1] == 19
    assert values(loaded, f"perplexity:{path}", n_texts=2)["perplexity"].shape == (2, 2)


def test_of_statements_the_true_ones_are_the_texts(lab: Any) -> None:
    frame = open_statements("lab-statements").load().filter("label").head(6)
    n_tokens = [len(lab.tokenizer(one)["input_ids"]) - 1 for one in frame["statement"]]
    found = values(lab, "perplexity:lab-statements", n_texts=6)["perplexity"]
    assert found[:, 1].tolist() == n_tokens and math.exp(found[:, 0].sum() / sum(n_tokens)) < 10


# ------------------------------------------------------------------------------------------------ labels by likelihood


def test_labels_by_likelihood_by_hand(small: Any, tmp_path: Path) -> None:
    """`sum` prefers the short word, `mean` does not mind length, `calibrated` takes off what comes after anything.

    After "ask-hard", paris is likelier than rome; "red </s>" has two tokens, the second almost certain.
    """
    rows = [
        {"text": "ask-one", "label": "paris"},
        {"text": "ask-hard", "label": "rome"},
        {"text": "ask-many", "label": "red </s>"},
        {"text": " ask-many ", "label": "paris"},
    ]
    path = written(tmp_path, "l.jsonl", *rows)
    words = sorted({row["label"] for row in rows})
    names = [f"classification{end}:{path}" for end in ("", "-mean", "-calibrated")]
    found = values(small, *names, template="blue {text}")

    def score(text: str, word: str) -> list[float]:
        tokens = [text, *word.split()]
        return [law(a)[b] for a, b in zip(tokens[:-1], tokens[1:], strict=True)]

    readings: dict[str, Callable[[str, str], float]] = {
        "classification": lambda text, word: sum(score(text, word)),
        "classification-mean": lambda text, word: float(np.mean(score(text, word))),
        "classification-calibrated": lambda text, word: sum(score(text, word)) - sum(score("<unk>", word)),
    }
    for name, reading in readings.items():
        best = [max(words, key=lambda word: reading(row["text"].strip(), word)) for row in rows]
        expected = [[float(word == row["label"])] for word, row in zip(best, rows, strict=True)]
        assert found[name].tolist() == expected, name
    assert found["classification"].tolist() == [[1], [0], [1], [0]]


def test_a_word_of_many_tokens_has_no_disadvantage_by_the_mean(small: Any, tmp_path: Path) -> None:
    """After ask-one "lyon" has -10.0, and "rome </s>" -11.1 + -0.0: -11.1 in all and -5.6 per token."""
    rows = [{"text": "ask-one", "label": "lyon"}, {"text": "ask-one", "label": "rome </s>"}]
    path = written(tmp_path, "l.jsonl", *rows)
    found = values(small, *(f"classification{end}:{path}" for end in ("", "-mean")), template="{text}")
    assert law("ask-one")["lyon"] == approx(-10.0, abs=0.1) and law("rome")["</s>"] == approx(0.0, abs=0.1)
    assert law("ask-one")["rome"] == approx(-11.1, abs=0.1)
    assert found["classification"].tolist() == [[1], [0]] and found["classification-mean"].tolist() == [[0], [1]]


def test_what_calibration_changes(small: Any, tmp_path: Path) -> None:
    """By sum "rome" wins after "ask-hard", for "red rome" is two improbable tokens.

    Less what each has after "N/A" it is the other way round: "red" gained more from "ask-hard" than "rome" did.
    """
    path = written(tmp_path, "l.jsonl", {"text": "ask-hard", "label": "red rome"}, {"text": "paris", "label": "rome"})
    found = values(small, *(f"classification{end}:{path}" for end in ("", "-calibrated")), template="{text}")
    plain, free = (
        {"rome": law(before)["rome"], "red rome": law(before)["red"] + law("red")["rome"]}
        for before in ("ask-hard", "<unk>")
    )
    assert plain["rome"] > plain["red rome"] and plain["rome"] - free["rome"] < plain["red rome"] - free["red rome"]
    assert found["classification"][0] == 0.0 and found["classification-calibrated"][0] == 1.0


def test_sst2_is_read_and_a_tie_is_wrong(tiny_model: Tiny, small: Any, tmp_path: Path) -> None:
    """SST-2's shape: sentence, label 0 or 1, idx. A plain loop over the labels gives the same."""
    rows = [
        {"idx": n, "sentence": text, "label": n % 2} for n, text in enumerate(("the blue sea ", "a whale", "Paris"))
    ]
    path = written(tmp_path, "sst2.jsonl", *rows)
    options = {
        "columns": {"labelled": {"text": "sentence", "text_id": "idx"}},
        "labels": {"0": "the animal", "1": "William"},
    }
    loaded = tiny_model("llama")
    found = values(loaded, f"classification:{path}", **options)["classification"]
    for row, value in zip(rows, found[:, 0], strict=True):
        scores = []
        prompt = f"Sentence: {str(row['sentence']).strip()}\nSentiment:"
        for word in options["labels"].values():
            before, ids = (loaded.tokenizer(text)["input_ids"] for text in (prompt, f"{prompt} {word}"))
            with torch.inference_mode():
                logprobs = loaded.model(torch.tensor([ids])).logits[0].log_softmax(-1)
            scores.append(sum(float(logprobs[at - 1, ids[at]]) for at in range(len(before), len(ids))))
        assert value == float(np.argmax(scores) == row["label"])
    tie = written(tmp_path, "tie.jsonl", {"text": "paris", "label": "ask-one"}, {"text": "lyon", "label": "ask-many"})
    assert values(small, f"classification:{tie}", template="{text}")["classification"].tolist() == [[0], [0]]


# ---------------------------------------------------------------------------------------------------- the questions


def test_answers_on_the_planted_model(small: Any, tmp_path: Path) -> None:
    """Greedy: paris after ask-one, red after ask-many, and wrong after ask-hard; sure by the mean of word and end."""
    planted.write_questions(tmp_path / "q.jsonl")
    (tmp_path / "p.txt").write_text("{question}")
    path = f"{tmp_path / 'q.jsonl'}"
    found = values(
        small, *(f"{name}:{path}" for name in ("answer-accuracy", "ece", "auroc")), prompt=str(tmp_path / "p.txt")
    )
    assert found["answer-accuracy"].tolist() == [[1], [1], [0]]
    for name in ("ece", "auroc"):
        for (confidence, right), (ask, word, is_right) in zip(
            found[name], (("ask-one", "paris", 1), ("ask-many", "red", 1), ("ask-hard", "paris", 0)), strict=True
        ):
            likeliest = max(law(ask), key=law(ask).__getitem__)
            assert likeliest == word
            assert confidence == approx(math.exp((law(ask)[likeliest] + law(likeliest)["</s>"]) / 2), abs=1e-4)
            assert right == is_right


def test_sampled_answers_counted_in_plain_python(lab: Any) -> None:
    from hcl_cli.data.prompts import open_prompt
    from hcl_cli.models.decode import DEFAULT_BATCH_TOKENS, Sampling
    from hcl_cli.stages.sample import Protocol, sampled
    from hcl_cli.stages.score import scored

    found = values(lab, "hallucination-rate", "creativity", n_questions=16, n_samples=6, temperature=1.0, seed=3)
    questions = open_questions("lab").load().head(16)
    prompt = open_prompt("plain")
    frame = scored(
        sampled(
            lab, questions, {(name, 10): (0, 6) for name in questions["question_id"]},
            Sampling(temperature=1.0, seed=3),
            Protocol(lambda question: prompt.render(question), True, "plain", False, DEFAULT_BATCH_TOKENS),
            model="lab", dataset="lab",
        ),
    )  # fmt: skip
    for question, wrong, clusters in zip(
        questions["question_id"], found["hallucination-rate"][:, 0], found["creativity"][:, 0], strict=True
    ):
        rows = frame.filter(question_id=question)
        assert wrong == approx(1 - rows["correct"].mean()) and len(rows) == 6
        assert clusters == len(set(rows.filter("correct")["response"].str.to_lowercase().str.strip_chars()))
    assert len(set(found["creativity"][:, 0])) > 2 and len(set(found["hallucination-rate"][:, 0])) > 2


def test_cosine_clusters_read_the_encoder_once(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder to which all answers are alike finds one meaning wherever there is a right answer."""
    from hcl_cli.models import encoders

    class Alike:
        def encode(self, texts: list[str]) -> np.ndarray:
            return np.ones((len(texts), 1), dtype=np.float32)

    loads: list[str] = []
    monkeypatch.setattr(encoders, "load_encoder", lambda ref: (loads.append(ref.name), Alike())[1])
    reference = encoders.EncoderRef("alike", Path("."), "sha256:1")
    options: dict[str, Any] = {"n_questions": 16, "n_samples": 6, "temperature": 1.0, "seed": 3}
    (metric,) = open_metrics(["creativity"], Settings(cluster="cosine", encoder=reference, **options))
    one, two = metric(lab), metric(lab)
    assert loads == ["alike"] and metric.identity["embedder"] == "sha256:1" and np.array_equal(one, two)
    assert np.array_equal(one, np.minimum(values(lab, "creativity", **options)["creativity"], 1.0))


def test_questions_that_nothing_can_grade_have_no_value(lab: Any, tmp_path: Path) -> None:
    rows = open_questions("lab").load().head(3).to_dicts()
    rows[1]["answers"] = []
    path = written(tmp_path, "q.jsonl", *rows)
    found = values(lab, *(f"{name}:{path}" for name in ("answer-accuracy", "brier", "hallucination-rate")))
    for name, columns in (("answer-accuracy", 1), ("brier", 2), ("hallucination-rate", 1)):
        assert np.isnan(found[name]).tolist() == [[False] * columns, [True] * columns, [False] * columns]
    rows[0]["answers"] = []
    with pytest.raises(BadInput, match="q.jsonl: none of its first 2 questions has an accepted answer"):
        values(lab, f"answer-accuracy:{written(tmp_path, 'q.jsonl', *rows)}", n_questions=2)


def test_questions_at_hand(lab: Any) -> None:
    """Held-out questions of a training run are no file."""
    frame = open_questions("lab").load()
    rows = QuestionRows("held-out", "sha256:1", frame.filter(pl.col("question_id").hash(0) % 50 == 0).head(7))
    (metric,) = open_metrics(["answer-accuracy"], Settings(questions=rows))
    assert (metric.dataset, metric.identity["data"], metric(lab).shape) == ("held-out", "sha256:1", (7, 1))


def test_multiple_choice_is_that_of_hcl_dola(tiny_model: Tiny, tmp_path: Path) -> None:
    from hcl_cli.data.completions import open_choices
    from hcl_cli.data.prompts import open_prompt
    from hcl_cli.models.contrast_methods import VANILLA
    from hcl_cli.stages.choices import choice_rows, question_choices

    rows = [
        {
            "question": one,
            "best_answer": "Paris",
            "correct_answers": ["Paris", "the sea"],
            "incorrect_answers": ["a whale"],
        }
        for one in ("What is the capital?", "Name an animal", "Who wrote?")
    ]
    path, loaded = written(tmp_path, "c.jsonl", *rows), tiny_model("qwen2")
    found = values(loaded, *(f"{name}:{path}" for name in ("mc1", "mc2", "mc3")), choice_prompt="plain", n_choices=2)
    choices = question_choices(open_choices(path).load().head(2), open_prompt("plain").render)
    expected = choice_rows(loaded, choices, [VANILLA], kind="mc", model="m", dataset="d")
    for name in ("mc1", "mc2", "mc3"):
        assert found[name][:, 0].tolist() == expected.filter(metric=name)["value"].to_list()
    assert 0 < found["mc2"].min() and found["mc2"].max() < 1


# ------------------------------------------------------------------------------------------- the model, the machine


def test_generation_is_timed_by_turns_and_every_model_makes_as_many_tokens(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that goes on by 0.5 s at each look, after a slow first turn: 6 prompts x 8 tokens / 0.5 s in a run."""
    now = iter([0.0, 9.0, 10.0, 19.0, *np.arange(20.0, 100.0, 0.5).tolist()])
    monkeypatch.setattr("hcl_cli.stages.quality_answers.time.perf_counter", lambda: next(now))
    (metric,) = open_metrics(["tokens-per-second"], Settings(n_speed=6))
    assert isinstance(metric.work, Speed) and metric.unit == "runs"
    metric.work.n_tokens, metric.work.n_runs = 8, 3
    opened: list[str] = []

    def opening(name: str, layer: int) -> Callable[[], Any]:
        def open_one() -> Any:
            opened.append(name)
            return without_the_last(lab, layer) if layer < 10 else nullcontext(lab)

        return open_one

    found = measured_variants([metric], {"whole": opening("whole", 10), "cut": opening("cut", 1)})
    assert opened == ["whole", "cut"] * 4  # the first turn warms up
    assert {name: speeds[metric].tolist() for name, speeds in found.items()} == dict.fromkeys(found, [[96.0]] * 3)


def test_parameters_of_a_cut_model(lab: Any) -> None:
    (metric,) = open_metrics(["parameters"])
    whole = float(metric(lab)[0, 0])
    block = sum(weight.numel() for weight in lab.anatomy.blocks[9].parameters())
    with without_the_last(lab, 8) as cut:
        assert metric(cut).tolist() == [[whole - 2 * block]]
    assert (metric.unit, metric.dataset, metric.higher_is_better) == (None, "", None)


# ------------------------------------------------------------------------------------------------ measuring and names


def test_the_same_units_for_every_model_and_each_set_read_once(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from hcl_cli.models import text_losses

    calls: list[int] = []
    plain = text_losses.token_losses

    def counted(loaded: Any, *rest: Any, **options: Any) -> Any:
        calls.append(loaded.n_layers)
        return plain(loaded, *rest, **options)

    monkeypatch.setattr(text_losses, "token_losses", counted)
    metrics = open_metrics(LAB_METRICS, Settings(n_texts=20, n_questions=20))
    told: list[tuple[int, int]] = []
    variants: dict[str, Any] = {"whole": lambda: nullcontext(lab), "cut": lambda: without_the_last(lab, 5)}
    found = measured_variants(metrics, variants, progress=lambda n, of: told.append((n, of)))
    assert calls == [10, 5] and told == [(n, 6) for n in range(1, 7)]
    for metric in metrics:
        whole, cut = found["whole"][metric], found["cut"][metric]
        assert whole.shape == cut.shape
        assert not np.array_equal(whole, cut), metric.name
        assert np.array_equal(measured([metric], lab)[metric], whole, equal_nan=True), metric.name


def test_multiple_choice_of_questions_without_wrong_answers() -> None:
    (metric,) = open_metrics(["mc1:lab"])
    with pytest.raises(BadInput, match="no column best_answer"):
        metric.work(None)  # type: ignore[arg-type]


def test_a_text_that_is_too_long_to_label(small: Any, tmp_path: Path) -> None:
    rows = [{"text": "red " * 70, "label": "a"}, {"text": "red", "label": "b"}]
    path = written(tmp_path, "l.jsonl", *rows)
    with pytest.raises(BadInput, match=r"l.jsonl, text 't-.*', label 'a': 7\d tokens, but the model has 64 positions"):
        values(small, f"classification:{path}")
