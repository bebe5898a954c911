"""A trained lab model as a folder that `AutoModelForCausalLM` and `AutoTokenizer` load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


def export(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write weights (float16), config (which says float32, so `dtype="auto"` computes in it) and tokenizer.

    float16 halves what git has to keep; the rounding moves hidden states by less than 0.01, and every reported number
    is measured on the exported model. The head is tied to the embedding and not stored.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import GenerationConfig

    folder.mkdir(parents=True, exist_ok=True)
    model.config.architectures = ["LlamaForCausalLM"]
    model.config.dtype = "float32"
    model.config.save_pretrained(folder)
    GenerationConfig.from_model_config(model.config).save_pretrained(folder)
    weights = {
        name: value.detach().to(torch.float16).contiguous()
        for name, value in model.state_dict().items()
        if name != "lm_head.weight"
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # the library leaves it readable by its owner only
    tokenizer.save_pretrained(folder)


def load(folder: Path) -> tuple[Any, Any]:
    """The exported model in evaluation mode and its tokenizer, as any user would load them; no network."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True)
    return model.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)
