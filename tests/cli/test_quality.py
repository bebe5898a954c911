"""Metrics by name; those of answers are those of `hcl sample -n 1 --temperature 0 | hcl score`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from calling import Hcl
from pytest import approx

from hcl_cli.cli.quality import Settings, open_metrics
from hcl_cli.errors import BadOption, HclError
from hcl_cli.models.load import load_model
from hcl_cli.resources import data_file
from hcl_cli.stages.quality import DEFAULT_METRICS, KINDS, LAB_METRICS, default_metrics, parse_metrics
from hcl_cli.stages.quality_values import measured


def test_accuracy_and_confidence_are_those_of_sample_and_score(hcl: Hcl) -> None:
    sampled = hcl("sample", "--limit", 24, "-n", 1, "--temperature", 0, "--exit-layers", 10).path
    scored = pl.read_parquet(hcl("score", sampled, "--cluster", "exact").path)
    loaded = load_model(data_file("models", "lab"), dtype="float32", device="cpu")
    accuracy, brier = measured(open_metrics(["answer-accuracy", "brier"], Settings(n_questions=24)), loaded).values()
    assert scored["correct"].n_unique() == 2
    assert accuracy[:, 0].tolist() == scored["correct"].cast(pl.Float64).to_list()
    assert brier[:, 1].tolist() == accuracy[:, 0].tolist()
    assert brier[:, 0] == approx(np.exp(scored["mean_logprob"].to_numpy()), abs=1e-6)


def test_the_defaults_are_known_and_the_lab_models_have_their_own() -> None:
    assert set(DEFAULT_METRICS) <= set(KINDS) and "tokens-per-second" not in {*DEFAULT_METRICS, *LAB_METRICS}
    metrics = open_metrics(default_metrics("gpt2"))
    assert [metric.name for metric in metrics] == list(DEFAULT_METRICS)
    assert {metric.dataset for metric in metrics} == {"wikitext2", "truthfulqa", "sentiment", "lab", ""}
    assert {metric.dataset for metric in open_metrics(default_metrics("lab-base"))} == {"lab-statements", "lab", ""}
    assert all(metric.unit in ("texts", "questions", None) for metric in metrics)


def test_every_setting_that_changes_a_value_changes_the_identity(tmp_path: Path) -> None:
    """What a metric does not read does not change it, so that a recipe is no richer than its rows."""
    changes: dict[str, tuple[Any, str]] = {
        "n_texts": (5, "perplexity"), "max_tokens": (9, "perplexity"), "n_questions": (5, "ece creativity"),
        "prompt": ("raw", "ece creativity tokens-per-second"), "max_new_tokens": (9, "ece creativity"),
        "judge": ("exact", "ece creativity"), "seed": (1, "ece creativity"), "n_samples": (3, "creativity"),
        "temperature": (1.0, "creativity"), "n_choices": (3, "mc1"), "choice_prompt": ("plain", "mc1"),
        "n_labelled": (3, "sentiment"), "template": ("{text}", "sentiment"), "n_speed": (3, "tokens-per-second"),
    }  # fmt: skip
    names = ["perplexity", "ece", "creativity", "mc1", "sentiment", "tokens-per-second", "parameters"]

    def identities(settings: Settings) -> dict[str, str]:
        return {metric.name: json.dumps(metric.identity) for metric in open_metrics(names, settings)}

    plain = identities(Settings())
    for option, (value, changed) in changes.items():
        other = identities(Settings(**{option: value}))
        assert {name for name in names if other[name] != plain[name]} == set(changed.split()), option


def test_metrics_are_named_without_torch_or_polars() -> None:
    code = (
        "import sys; from hcl_cli.stages.quality import DEFAULT_METRICS; from hcl_cli.cli.quality import open_metrics\n"
        "[metric.identity for metric in open_metrics([*DEFAULT_METRICS, 'creativity', 'tokens-per-second'])]\n"
        "assert not {'torch', 'polars', 'transformers', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("perplexety", "there is no metric 'perplexety'; did you mean perplexity?"),
        ("xyz", "there is no metric 'xyz'; expected one of perplexity, token-accuracy"),
        ("answer-accuracy:wikitext2", "the set holds texts, not questions; `hcl datasets` shows which sets do"),
        ("perplexity:lab", "the set holds questions, not texts"),
        ("ece:trivia", "no such data set or file; did you mean triviaqa?"),
        ("mc1:wikitext2", "the set holds texts, not questions"),
        ("classification", "on which set? Write classification:FILE"),
        ("classification-mean:lab", "the set holds questions, not labelled"),
        ("sentiment:a.csv", "sentiment has its own set; write classification:a.csv"),
        ("parameters:lab", "parameters is a number of the model alone"),
        ("brier:", "no set behind the colon"),
        ("perplexity:nowhere.txt", "nowhere.txt: no such file"),
    ],
)
def test_names_that_mean_nothing_are_one_line(name: str, said: str) -> None:
    with pytest.raises(HclError) as caught:
        open_metrics([name])
    assert str(caught.value).startswith(f"--metrics {name}: ") and said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lists_of_names() -> None:
    assert parse_metrics("brier, ece:triviaqa") == ("brier", "ece:triviaqa")
    for text, said in (("brier,,ece", "an empty name"), ("ece,ece", "ece is named twice")):
        with pytest.raises(BadOption, match=f"^--metrics {text}: {said}"):
            parse_metrics(text)
    with pytest.raises(BadOption, match="^--metrics ece:lab: ece on lab is named twice"):
        open_metrics(["ece", "ece:lab"])
    for options, said in (({"n_texts": 0}, "--n-texts 0: expected"), ({"max_tokens": 1}, "at least 2"),
                          ({"judge": "nli"}, "--judge nli: .*alias"), ({"cluster": "x"}, "--cluster x: .*cosine"),
                          ({"cluster": "cosine"}, "no sentence encoder is at hand"),
                          ({"temperature": -1.0}, "--temperature -1: expected a number of at least 0"),
                          ({"template": "x"}, "--template x: no {text} in it")):  # fmt: skip
        with pytest.raises(BadOption, match=said):
            Settings(**options)
