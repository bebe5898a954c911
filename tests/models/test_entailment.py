"""Entailment models: found by their labels, refused where they are none, asked in batches that change nothing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from planted_nli import WORDS, relation, word_tokenizer, write_random_classifier

from hcl_cli.errors import BadOption
from hcl_cli.models.entailment import CONTRADICTION, ENTAILMENT, NEUTRAL, find_entailment, load_entailment

THREE = {0: "CONTRADICTION", 1: "NEUTRAL", 2: "ENTAILMENT"}
DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
ARCHITECTURES = {"deberta-v2": DEBERTA, "bert": {}, "roberta": {}, "llama": {}}


def with_config(folder: Path, to: Path, **changes: Any) -> Path:
    """A copy of a model whose config says something else."""
    shutil.copytree(folder, to)
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**config, **changes}))
    return to


def test_the_planted_model_says_what_it_has_learnt_whatever_the_order_of_its_classes(planted_nli: Path) -> None:
    ref = find_entailment(str(planted_nli))
    assert ref.classes == (ENTAILMENT, NEUTRAL, CONTRADICTION) and ref.tells_contradiction
    pairs = [(one, other) for one in WORDS for other in WORDS]
    found = load_entailment(ref).probabilities(pairs)
    assert found.shape == (len(pairs), 3) and found.dtype == np.float32
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    assert found.argmax(1).tolist() == [relation(*pair) for pair in pairs]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equals_the_librarys_own_forward_pair_by_pair(tmp_path: Path, architecture: str) -> None:
    """In float32, batched with padding against one at a time: within 1e-5."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = write_random_classifier(tmp_path / "model", architecture, THREE, **ARCHITECTURES[architecture])
    pairs = [
        ("paris", "town"), ("what is the capital paris", "rome"), ("blue", "azure blue city"), ("", "paris"),
        ("paris", "town"), ("กรุงเทพ", "東京 🙂"), ("القاهرة", "paris"),
    ]  # fmt: skip
    found = load_entailment(find_entailment(str(folder))).probabilities(pairs)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    for pair, probabilities in zip(pairs, found, strict=True):
        with torch.no_grad():
            logits = model(**tokenizer(*pair, return_tensors="pt")).logits[0]
        np.testing.assert_allclose(probabilities, logits.softmax(-1).numpy(), atol=1e-5)
    assert np.array_equal(found[0], found[4])
    backwards = load_entailment(find_entailment(str(folder))).probabilities(pairs[::-1])
    assert np.array_equal(backwards[::-1], found)  # batches do not depend on the order


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_too_long_is_cut_and_counted(tmp_path: Path, architecture: str) -> None:
    folder = write_random_classifier(tmp_path / "model", architecture, THREE, **ARCHITECTURES[architecture])
    model = load_entailment(find_entailment(str(folder)))
    long = "paris " * 2000  # over 10,000 characters
    found = model.probabilities([(long, "rome"), ("rome", long), ("rome", "paris")])
    assert np.isfinite(found).all() and model.n_cut == 2
    assert model.probabilities([]).shape == (0, 3)


def test_two_classes_tell_entailment_alone(tmp_path: Path) -> None:
    folder = write_random_classifier(tmp_path / "model", "bert", {0: "entailment", 1: "not_entailment"})
    ref = find_entailment(str(folder))
    assert ref.classes == (ENTAILMENT, NEUTRAL) and not ref.tells_contradiction
    found = load_entailment(ref).probabilities([("paris", "rome")])
    assert found[0, CONTRADICTION] == 0 and found[0].sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}}, ["the classes LABEL_0, LABEL_1, LABEL_2"]),
        ({"id2label": {"0": "NEGATIVE", "1": "POSITIVE"}}, ["NEGATIVE, POSITIVE", "expected entailment, neutral and"]),
        ({"id2label": {"0": "entailment", "1": "entailment", "2": "neutral"}}, ["entailment, entailment, neutral"]),
        ({"id2label": None}, ["the classes none"]),
        ({"architectures": ["LlamaForCausalLM"]}, ["its architecture is LlamaForCausalLM", "sequence classifier"]),
        ({"architectures": None}, ["its architecture is none"]),
    ],
)  # fmt: skip
def test_what_is_no_classifier_of_entailment_is_refused_by_its_config(
    planted_nli: Path, tmp_path: Path, changes: dict[str, Any], words: list[str]
) -> None:
    folder = with_config(planted_nli, tmp_path / "other", **changes)
    with pytest.raises(BadOption) as caught:
        find_entailment(str(folder))
    message = str(caught.value)
    assert message.startswith("--nli-model other: ") and "\n" not in message
    assert all(word in message for word in words), message


def test_other_names_of_the_classes_are_known(planted_nli: Path, tmp_path: Path) -> None:
    labels = {"0": "contradiction", "1": "entailment", "2": "Neutral"}
    assert find_entailment(str(with_config(planted_nli, tmp_path / "a", id2label=labels))).classes == (0, 2, 1)
    two = {"0": "not entailment", "1": "ENTAILMENT"}
    assert find_entailment(str(with_config(planted_nli, tmp_path / "b", id2label=two))).classes == (1, 2)


def test_a_head_that_is_not_in_the_files_is_refused(planted_nli: Path, tmp_path: Path) -> None:
    """The library would draw it at random and go on."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(planted_nli, tmp_path / "headless")
    weights = load_file(tmp_path / "headless" / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("classifier")}
    save_file(kept, tmp_path / "headless" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadOption, match=r"^--nli-model headless: 2 weights are not in its files .*classifier.bias"):
        load_entailment(find_entailment(str(tmp_path / "headless")))


def test_weights_in_another_format_and_other_folders_are_refused(planted_nli: Path, tmp_path: Path) -> None:
    shutil.copytree(planted_nli, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").rename(tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(BadOption, match="no .safetensors file in it"):
        find_entailment(str(tmp_path / "pickled"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadOption, match=r"^--nli-model empty: its config.json cannot be read"):
        find_entailment(str(tmp_path / "empty"))
    with pytest.raises(BadOption, match="no such folder"):
        find_entailment("./nowhere")
    with pytest.raises(BadOption, match="not fetched"):
        find_entailment("someone/unknown-nli")
    with pytest.raises(BadOption, match=r"^--cluster nli-strict: needs an entailment model; .*--nli-model cross-"):
        find_entailment(None, needed_by="--cluster nli-strict")
    shutil.copytree(planted_nli, tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(BadOption, match=r"^--nli-model broken: cannot be loaded as a classifier \("):
        load_entailment(find_entailment(str(tmp_path / "broken")))


def test_identity_is_that_of_the_files(planted_nli: Path, tmp_path: Path) -> None:
    shutil.copytree(planted_nli, tmp_path / "copy")
    assert find_entailment(str(tmp_path / "copy")).identity == find_entailment(str(planted_nli)).identity
    changed = with_config(planted_nli, tmp_path / "changed", hidden_act="relu")
    assert find_entailment(str(changed)).identity != find_entailment(str(planted_nli)).identity


def test_a_tokenizer_without_padding_and_a_batch_that_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_random_classifier(tmp_path / "model", "bert", THREE)
    model: Any = load_entailment(find_entailment(str(folder)))
    pairs = [("paris", "town"), ("blue", "azure"), ("rome", "paris rome town")]
    expected = model.probabilities(pairs)
    forward, sizes = model._model.forward, []

    def small(**inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(**inputs)

    monkeypatch.setattr(model._model, "forward", small)
    np.testing.assert_allclose(model.probabilities(pairs), expected, atol=1e-6)
    assert sizes[0] == 3 and 1 in sizes
    assert word_tokenizer().pad_token_id == 0


def test_finding_imports_no_torch(planted_nli: Path) -> None:
    code = (
        "import sys; from hcl_cli.models.entailment import find_entailment; "
        f"find_entailment({str(planted_nli)!r}); print(sorted({{'torch', 'transformers'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
