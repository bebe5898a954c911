"""Models worth naming: the lab's, the published LayerSkip checkpoints, and those of the reproduced papers.

Names and layer counts come from the papers, their published code and the models' own pages; what none of them says
is None. Any other causal language model of the Hub, or in a folder, can be named as well.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass, replace
from pathlib import Path

from hcl_cli.models.identity import read_config
from hcl_cli.resources import data_file

_LLAMA2 = "Llama 2 Community License"
_LLAMA32 = "Llama 3.2 Community License"
_BASE = "what the LayerSkip checkpoint of this size was trained on from"
_LLAMA1 = "LLaMA licence (research only)"
_HCL = "Shakespearean Sparks (arXiv 2503.02851)"
_DOLA = "DoLa (arXiv 2309.03883)"
_SAPLMA = "SAPLMA (arXiv 2304.13734)"
_EARLY_EXIT = "LLM Early Exit (indirected/LLM-EarlyExit)"
_ENTROPY = "attention-entropy project (keell0renz/llm-entropy-patterns)"
_EAVSS = "EAVSS (arXiv 2411.10069)"
_LAYERSKIP = "LayerSkip (arXiv 2404.16710)"


@dataclass(frozen=True)
class Model:
    """One entry of `hcl models`.

    Attributes:
        name: what `--model` takes.
        parameters: as the name or page gives it, e.g. "7B"; None if unknown.
        n_layers: transformer blocks, or None.
        licence: in words, or None.
        gated: the Hub asks for an accepted licence and a token; None if unknown.
        used_by: the works that used it.
        source: where name and numbers come from.
        is_layerskip: trained with the LayerSkip recipe, so that early exits speak.
        note: what else one has to know, or None.
    """

    name: str
    parameters: str | None
    n_layers: int | None
    licence: str | None
    gated: bool | None
    used_by: tuple[str, ...]
    source: str
    is_layerskip: bool = False
    note: str | None = None


def _lab(name: str, note: str) -> Model:
    return Model(name, None, None, "MIT", False, (), "bundled, with a card in its folder", is_layerskip=True, note=note)


def _layerskip(name: str, parameters: str, n_layers: int, *works: str) -> Model:
    source = "README of facebookresearch/LayerSkip; model page"
    licence = "Meta LayerSkip licence"
    return Model(f"facebook/layerskip-{name}", parameters, n_layers, licence, True, (_LAYERSKIP, *works), source, True)


def _dola(size: str, n_layers: int) -> Model:
    return Model(f"huggyllama/llama-{size.lower()}", size, n_layers, _LLAMA1, False, (_DOLA,), "README of voidism/DoLa")


MODELS: tuple[Model, ...] = (
    _lab("lab", "the default; its best balance of creativity and hallucination is planted"),
    _lab("lab-base", "the last exit is best"),
    _layerskip("llama3.2-1B", "1B", 16, _HCL),
    _layerskip("llama3-8B", "8B", 32, _HCL),
    _layerskip("llama2-7B", "7B", 32, _HCL),
    _layerskip("llama2-13B", "13B", 40, _HCL),
    _layerskip("llama2-70B", "70B", 80),
    _layerskip("codellama-7B", "7B", 32),
    _layerskip("codellama-34B", "34B", 48),
    Model("meta-llama/Llama-3.2-1B", "1B", 16, _LLAMA32, True, (_ENTROPY,), "model page"),
    Model("meta-llama/Llama-3.2-3B", "3B", 28, _LLAMA32, True, (_ENTROPY,), "model page"),
    Model("meta-llama/Meta-Llama-3-8B", "8B", 32, "Llama 3 Community License", True, (), "model page", note=_BASE),
    Model("meta-llama/Llama-2-7b-hf", "7B", 32, _LLAMA2, True, (_SAPLMA,), "model page"),
    Model("meta-llama/Llama-2-13b-hf", "13B", 40, _LLAMA2, True, (), "model page", note=_BASE),
    Model("meta-llama/Llama-2-7b-chat-hf", "7B", 32, _LLAMA2, True, (_EARLY_EXIT,), "its notebooks; model page"),
    _dola("7B", 32),
    _dola("13B", 40),
    _dola("30B", 60),
    _dola("65B", 80),
    Model("facebook/opt-6.7b", "6.7B", 32, "OPT licence (research only)", False, (_SAPLMA,), "model page",
          note="safetensors only under @refs/pr/31 when last seen; the main branch has pickles, which are refused"),
    Model("openai-community/gpt2-medium", "355M", 24, "MIT", False, (_EAVSS,), "model page",
          note="inferred: the work says GPT-2 with 24 layers"),
)  # fmt: skip


def models() -> tuple[Model, ...]:
    """MODELS, with the numbers of the bundled ones read from their files. What `hcl models` prints."""
    return tuple(_measured(model) if model.source.startswith("bundled") else model for model in MODELS)


def _measured(model: Model) -> Model:
    folder = data_file("models", model.name)
    if not (folder / "config.json").is_file():
        return model
    layers = read_config(folder / "config.json", model.name)["num_hidden_layers"]
    return replace(model, n_layers=layers, parameters=f"{count_parameters(folder / 'model.safetensors') / 1e6:.2g}M")


def count_parameters(weights: Path) -> int:
    """Numbers stored in a safetensors file, from its header; tied weights, stored once, count once."""
    with open(weights, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
