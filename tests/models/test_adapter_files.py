"""An export loads with the libraries' own calls, says the same as the model in memory, and names no path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hcl_cli.errors import BadOption
from hcl_cli.models.adapter_files import export_adapter
from hcl_cli.models.adapters import Adapter, Lora, adapted, merged

IDS = torch.tensor([[5, 9, 30, 41, 17, 60, 8]])


def drawn(loaded: Any, blocks: tuple[int, ...]) -> Adapter:
    generator = torch.Generator().manual_seed(0)
    with adapted(loaded, blocks, Lora(rank=3, alpha=6)) as adapting:
        with torch.no_grad():
            for one in adapting.parameters:
                one.add_(torch.randn(one.shape, generator=generator) * 0.1)
        return adapting.taken()


def logits(model: Any) -> Any:
    with torch.inference_mode():
        return model(input_ids=IDS, use_cache=False).logits


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # the library's own
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_both_parts_load_and_say_what_the_model_in_memory_says(
    tiny_model: Callable[..., Any], tmp_path: Path, family: str
) -> None:
    """The merged model with plain `from_pretrained` to the last bit, the adapter beside the base model up to rounding;
    weights are safetensors, the base model stands there by name, and no file names a folder of this machine."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = tiny_model(family)
    adapter, own = drawn(loaded, (1, 3)), logits(loaded.model)
    folder = tmp_path / "new" / "export"
    export_adapter(loaded, adapter, folder, provenance={"answers": "a|b"}, record={"hcl.json": "{}\n"})
    assert torch.equal(logits(loaded.model), own)
    with merged(loaded, adapter):
        inside = logits(loaded.model)
    assert not torch.equal(inside, own)
    attention = loaded.attention
    plain = AutoModelForCausalLM.from_pretrained(
        folder / "merged", local_files_only=True, attn_implementation=attention
    )
    assert torch.equal(logits(plain.eval()), inside)
    tokens = AutoTokenizer.from_pretrained(folder / "merged", local_files_only=True)("Question")["input_ids"]
    assert tokens == loaded.tokenizer("Question")["input_ids"]
    loaded.model.save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", local_files_only=True, attn_implementation=attention)
    beside = PeftModel.from_pretrained(base, folder / "adapter").eval()
    torch.testing.assert_close(logits(beside), inside, rtol=1e-4, atol=1e-4)

    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"adapter/adapter_model.safetensors", "adapter/README.md", "merged/README.md", "hcl.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth"))]
    texts = {name: (folder / name).read_text() for name in names if not name.endswith(".safetensors")}
    assert f'"base_model_name_or_path": "{family}"' in texts["adapter/adapter_config.json"]
    assert not [name for name, text in texts.items() if str(tmp_path) in text or str(Path.cwd()) in text]
    for card in ("adapter/README.md", "merged/README.md"):
        assert "| blocks trained, of 1..4 | 1, 3 |" in texts[card] and r"| answers | a\|b |" in texts[card]


def test_what_is_there_is_not_written_over_and_a_failure_leaves_nothing(
    tiny_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hcl_cli.models import adapter_files

    loaded = tiny_model("llama")
    adapter, before = drawn(loaded, (2,)), logits(loaded.model)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    with pytest.raises(BadOption, match="--export .*not empty"):
        export_adapter(loaded, adapter, tmp_path / "mine", provenance={})

    def broken(*_: Any) -> None:
        raise KeyError("broke off")

    monkeypatch.setattr(adapter_files, "save_model", broken)
    with pytest.raises(KeyError):
        export_adapter(loaded, adapter, tmp_path / "half", provenance={})
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert torch.equal(logits(loaded.model), before)
