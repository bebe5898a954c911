"""A cut model on disk: what plain `from_pretrained` reads there is the cut model in memory, and the folder is whole."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hcl_cli.errors import BadInput, BadOption, EnvironmentRefused
from hcl_cli.models import checkpoints
from hcl_cli.models.checkpoints import check_export_folder, export_checkpoint
from hcl_cli.models.cut import blocks_after, without_blocks
from hcl_cli.models.decode import Cell, Prompt, Sampling, decode
from hcl_cli.models.load import load_model
from hcl_cli.resources import data_file

FAMILIES = (
    "llama32", "mistral", "qwen3", "gemma2", "gemma3_text", "phi3", "gpt2", "gpt_neox", "opt", "cohere", "granite",
    "olmo2", "mixtral", "falcon",
)  # fmt: skip
WIDE = (
    "llama", "qwen2", "phi", "stablelm", "starcoder2", "qwen2_moe", "qwen3_moe", "olmoe", "glm", "cohere2", "olmo3",
    "nemotron", "smollm3", "exaone4", "granitemoe", "biogpt", "gptj", "mpt",
)  # fmt: skip
IDS = torch.tensor([[0, 5, 7, 20, 33, 44, 51, 60, 3, 9, 12, 77, 81, 90, 4, 8]])


def reloaded(folder: Path, attention: str) -> Any:
    """The model as any program reads it."""
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    return model.eval()


def logits_of(model: Any) -> Any:
    with torch.inference_mode():
        return model(IDS).logits


def generated(model: Any) -> list[int]:
    found: list[int] = model.generate(IDS, max_new_tokens=12, do_sample=False, eos_token_id=None)[0].tolist()
    return found


def equals_the_cut(loaded: Any, removed: tuple[int, ...], folder: Path) -> Any:
    settings = loaded.model.config.to_dict()
    export_checkpoint(loaded, folder, removed, provenance={})
    assert loaded.model.config.to_dict() == settings
    assert not list(folder.parent.glob(".*"))
    again = reloaded(folder, loaded.attention)
    assert again.config.num_hidden_layers == loaded.n_layers - len(removed)
    with without_blocks(loaded, removed) as cut:
        assert torch.equal(logits_of(again), logits_of(cut.model))
        assert generated(again) == generated(cut.model)
    return again


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_read_again_is_the_cut_model(family: str, tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    """Logits and greedy generation with its cache, bit for bit."""
    equals_the_cut(tiny_model(family), (1, 3), tmp_path / family)


@pytest.mark.long
@pytest.mark.parametrize("removed", [(2,), (1, 3), (2, 3, 4)])
@pytest.mark.parametrize("family", FAMILIES + WIDE)
def test_what_is_read_again_is_the_cut_model_everywhere(
    family: str, removed: tuple[int, ...], tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    equals_the_cut(tiny_model(family), removed, tmp_path / family)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_the_weights_keep_their_dtype(dtype: str, tmp_path: Path) -> None:
    """Nobody names a dtype when the folder is read again. The lab model, since one that is turned to bfloat16 in memory
    has its rotary frequencies rounded too, which no loaded model has."""
    loaded = load_model(data_file("models", "lab"), dtype=dtype, device="cpu")
    again = equals_the_cut(loaded, (2,), tmp_path / "out")
    assert again.dtype == getattr(torch, dtype)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}),
        ("qwen2_moe", {"decoder_sparse_step": 2}),
        ("smollm3", {"no_rope_layer_interval": 2}),
    ],
)
def test_settings_that_follow_from_the_place_of_a_block_are_written_out(
    family: str, options: dict[str, Any], tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    equals_the_cut(tiny_model(family, **options), (1,), tmp_path / "out")


def test_what_a_configuration_cannot_describe_is_refused(tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    """GPT-2 can divide the scores of block l by l: block 3 in the second place would be divided by 2. The first blocks
    keep their places, so they can be written."""
    loaded = tiny_model("gpt2", scale_attn_by_inverse_layer_idx=True)
    with pytest.raises(BadInput, match="a GPT2Config cannot describe gpt2 without these blocks") as caught:
        export_checkpoint(loaded, tmp_path / "out", [2], provenance={})
    assert "\n" not in str(caught.value) and "scaling" in str(caught.value)
    assert not list(tmp_path.iterdir())
    equals_the_cut(loaded, (3, 4), tmp_path / "first")


def test_a_window_too_wide_for_the_check_to_reach_is_compared_too(
    tiny_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check reads 16 tokens, so logits cannot tell a window of 64 from none: the blocks' own settings do."""
    loaded = tiny_model("gemma2", sliding_window=64)

    def forget_windows(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"layer_types": ["full_attention"] * 3}))

    changed_after_it_was_written(monkeypatch, forget_windows)
    with pytest.raises(BadInput, match="block 2 would have .*layer_type 'full_attention' where it has 'sliding"):
        export_checkpoint(loaded, tmp_path / "out", [1], provenance={})
    assert not list(tmp_path.iterdir())


def changed_after_it_was_written(monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]) -> None:
    save = checkpoints.save_model

    def save_and_change(cut: Any, folder: Path) -> None:
        save(cut, folder)
        change(folder)

    monkeypatch.setattr(checkpoints, "save_model", save_and_change)


def test_other_weights_are_noticed(
    tiny_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of one weight by a millionth."""
    from safetensors.torch import load_file, save_file

    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        weights["model.layers.1.mlp.up_proj.weight"][0, 0] *= 1 + 1e-6
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    changed_after_it_was_written(monkeypatch, change)
    with pytest.raises(BadInput, match=r"its weight model\.layers\.1\.mlp\.up_proj\.weight would be another"):
        export_checkpoint(tiny_model("llama"), tmp_path / "out", [1], provenance={})
    assert not list(tmp_path.iterdir())


def test_other_logits_from_the_same_weights_are_noticed(
    tiny_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rotary positions are neither weights nor settings of a block."""

    def change(folder: Path) -> None:
        file = folder / "config.json"
        rope = {"rope_type": "default", "rope_theta": 101.0}
        file.write_text(json.dumps(json.loads(file.read_text()) | {"rope_parameters": rope}))

    changed_after_it_was_written(monkeypatch, change)
    with pytest.raises(BadInput, match="its logits would differ by"):
        export_checkpoint(tiny_model("llama"), tmp_path / "out", [1], provenance={})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("family", ["llama32", "gpt2", "gemma3_text"])
def test_the_first_blocks_alone_say_what_the_exit_says(
    family: str, tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    """Greedy generation of the exported folder is greedy decoding at exit 2 of the whole model."""
    loaded = tiny_model(family)
    export_checkpoint(loaded, tmp_path / "two", blocks_after(loaded, 2), provenance={})
    prompt = Prompt("q", tuple(IDS[0].tolist()))
    greedy = Sampling(temperature=0.0, stop=(), max_new_tokens=12)
    (expected,) = decode(loaded, [prompt], [Cell(0, 2, 0, 1)], greedy).token_ids
    found = generated(reloaded(tmp_path / "two", loaded.attention))[IDS.shape[1] :]
    assert tuple(found[: len(expected)]) == expected
    assert "says at exit layer 2" in (tmp_path / "two" / "README.md").read_text()


def test_a_folder_from_disk_keeps_its_tokenizer_and_tells_no_path(tmp_path: Path) -> None:
    """The lab model, loaded from its folder: the exported one loads in `hcl` itself, too."""
    source = data_file("models", "lab")
    loaded = load_model(source, dtype="float32", device="cpu")
    export_checkpoint(loaded, tmp_path / "cut", [3, 4], provenance={"criterion": "avss", "hcl recipe": "ab12"})
    again = load_model(tmp_path / "cut", dtype="float32", device="cpu")
    text = "The capital of France is Paris."
    assert again.n_layers == 8
    assert again.tokenizer(text)["input_ids"] == loaded.tokenizer(text)["input_ids"]
    assert again.eos_ids == loaded.eos_ids
    for file in (tmp_path / "cut").iterdir():
        content = file.read_bytes()
        assert str(tmp_path).encode() not in content and str(source).encode() not in content, file.name
        assert file.stat().st_mode & 0o077 == 0o044, file.name  # as readable as any new file
    card = (tmp_path / "cut" / "README.md").read_text()
    for row in ("| base model | lab |", "| blocks removed, of 1..10 | 3, 4 |", "| blocks left | 8 |",
                "| criterion | avss |", "| hcl recipe | ab12 |"):  # fmt: skip
        assert row in card
    n = sum(weight.numel() for weight in loaded.model.parameters())
    left = sum(weight.numel() for weight in again.model.parameters())
    assert f"| parameters | {left:,} of {n:,} |" in card


def test_nothing_from_outside_marks_up_the_card(tiny_model: Callable[..., Any]) -> None:
    loaded = tiny_model("llama")
    with without_blocks(loaded, [2]) as cut:
        card = checkpoints.model_card(loaded, cut, [2], {"cri|terion": "a|b\n# <b>x</b> [y](http://z) \x1b[31m"})
    (line,) = [line for line in card.splitlines() if "terion" in line]
    assert line == r"| cri\|terion | a\|b\\n# \<b\>x\</b\> \[y\](http://z) \\x1b\[31m |"


def test_the_place_must_be_new_or_empty(tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    loaded = tiny_model("llama")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, said in (("full", "this folder is not empty"), ("file", "is not a folder")):
        with pytest.raises(BadOption, match=said) as caught:
            export_checkpoint(loaded, tmp_path / name, [1], provenance={})
        assert "\n" not in str(caught.value)
    assert (tmp_path / "full" / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    export_checkpoint(loaded, tmp_path / "empty", [1], provenance={})
    assert (tmp_path / "empty" / "config.json").is_file()
    assert check_export_folder(tmp_path / "new" / "deep") == (tmp_path / "new" / "deep").resolve()
    with pytest.raises(BadOption, match="block 9 cannot be removed"):
        export_checkpoint(loaded, tmp_path / "new", [9], provenance={})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "full"]


def safetensors_error(text: str) -> Exception:
    from safetensors import SafetensorError

    return SafetensorError(text)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (
            safetensors_error(
                'Error while serializing: I/O error: No space left on device (os error 28) at path "/x/y"'
            ),
            "No space left on device",
        ),
    ],
)
def test_a_disk_that_refuses_is_one_line(
    error: Exception, said: str, tiny_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = tiny_model("llama")
    whole = logits_of(loaded.model)

    def refuse(folder: Path, **_: Any) -> None:
        (Path(folder) / "half").write_text("half")
        raise error

    monkeypatch.setattr(loaded.model, "save_pretrained", refuse)
    with pytest.raises(EnvironmentRefused, match=re.escape(said)) as caught:
        export_checkpoint(loaded, tmp_path / "out", [1], provenance={})
    assert "\n" not in str(caught.value) and "/x/y" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    assert torch.equal(logits_of(loaded.model), whole)


def test_a_parent_that_is_a_file_is_one_line(tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(EnvironmentRefused, match="--export .*cannot be written"):
        export_checkpoint(tiny_model("llama"), tmp_path / "file" / "out", [1], provenance={})


def test_an_interrupt_leaves_nothing(
    tiny_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "_compare", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_checkpoint(tiny_model("llama"), tmp_path / "out", [1], provenance={})
    assert not list(tmp_path.iterdir())


def test_contradictory_generation_settings_are_one_line(tmp_path: Path, tiny_model: Callable[..., Any]) -> None:
    import copy

    loaded = copy.deepcopy(tiny_model("llama"))
    loaded.model.generation_config.temperature = 0.5
    loaded.model.generation_config.do_sample = False
    with pytest.raises(BadInput, match="the library cannot save its settings") as caught:
        export_checkpoint(loaded, tmp_path / "out", [1], provenance={})
    assert "\n" not in str(caught.value)
