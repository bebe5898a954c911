"""Encoders and vision models: refused in one clear line at the door, or their text decoder is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hcl_cli.errors import BadInput
from hcl_cli.models.block_statistics import block_statistics
from hcl_cli.models.load import load_model

TEXT = {
    "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "head_dim": 12,
    "num_key_value_heads": 2, "vocab_size": 352, "max_position_embeddings": 128,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
          "image_size": 32, "patch_size": 16}  # fmt: skip


def distilbert() -> Any:
    from transformers import DistilBertConfig, DistilBertForMaskedLM

    config = DistilBertConfig(vocab_size=352, dim=32, n_layers=2, n_heads=2, hidden_dim=64)
    return DistilBertForMaskedLM(config)


def albert() -> Any:
    """All of its layers are one: shared blocks as a family has them."""
    from transformers import AlbertConfig, AlbertForMaskedLM

    return AlbertForMaskedLM(
        AlbertConfig(vocab_size=352, embedding_size=16, hidden_size=32, num_attention_heads=2, intermediate_size=64)
    )


def llava() -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    return LlavaForConditionalGeneration(
        LlavaConfig(vision_config=CLIPVisionConfig(**VISION), text_config=LlamaConfig(**TEXT), image_token_index=5)
    )


def gemma3() -> Any:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    vision = {**VISION, "model_type": "siglip_vision_model"}
    return Gemma3ForConditionalGeneration(Gemma3Config(text_config=TEXT, vision_config=vision, mm_tokens_per_image=4))


def saved(model: Any, tokenizer: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("make", "kind"),
    [(distilbert, "DistilBertForMaskedLM"), (albert, "AlbertForMaskedLM"), (llava, "LlavaForConditionalGeneration")],
)
def test_a_model_that_is_no_causal_one_is_refused(tiny_tokenizer: Any, tmp_path: Path, make: Any, kind: str) -> None:
    folder = saved(make(), tiny_tokenizer, tmp_path / "model")
    with pytest.raises(BadInput, match=f"a {kind} is not a causal language model; expected one") as caught:
        load_model(folder, dtype="float32", device="cpu")
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_the_text_decoder_of_a_vision_model_is_measured(tiny_tokenizer: Any, tmp_path: Path) -> None:
    """Transformers counts Gemma 3 with vision among the causal models: its three text blocks are read, not the two of
    its vision tower."""
    loaded = load_model(saved(gemma3(), tiny_tokenizer, tmp_path / "model"), dtype="float32", device="cpu")
    texts = [(0, 9, 30, 200), (0, 8)]
    found = block_statistics(loaded, texts, activations=("attention", "mlp"))
    assert found.n_blocks == 3
    with torch.inference_mode():
        states = loaded.model(input_ids=torch.tensor(texts[:1]), output_hidden_states=True).hidden_states
    expected = [state[0].numpy().var(axis=1).mean() for state in states[1:3]]  # the last is normed
    np.testing.assert_allclose(found.activations["residual"].variance[0, :2], expected, rtol=1e-4)
