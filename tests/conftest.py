"""Small random models of many families and a tokenizer, built in memory: no network, a fraction of a second each.

`python tests/conftest.py FOLDER` saves the small model with Llama 3.2's config features, for smoke runs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))
from planted_nli import write_planted_nli

# A busy machine is not a fault: examples have no deadline.
settings.register_profile("hcl", deadline=None)
settings.load_profile("hcl")

SENTENCES = (
    "Answer the following question with no other comment.",
    "Question: What is the capital of France?\nAnswer: Paris",
    "Question: Name an animal that lives in the sea.\nAnswer: the blue whale",
    "Question: Who wrote the play about a prince of Denmark?\nAnswer: William Shakespeare",
)

_SIZES = {
    "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip

# What each family adds: the features that a careless engine gets wrong.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}},
    "mistral": {"sliding_window": 8},
    "qwen2": {},
    "qwen3": {"head_dim": 12},
    "gemma2": {"head_dim": 12, "sliding_window": 8, "final_logit_softcapping": 25.0, "attn_logit_softcapping": 20.0,
               "tie_word_embeddings": False, "spread": 3.6, "attention": "eager"},  # sdpa does not cap scores
    "gemma3_text": {"head_dim": 12, "sliding_window": 8, "tie_word_embeddings": False,
                    "layer_types": ["sliding_attention", "full_attention"] * 2},
    "phi": {"partial_rotary_factor": 0.5, "num_key_value_heads": 4},
    "phi3": {"sliding_window": 8},
    "gpt2": {"n_embd": 48, "n_layer": 4, "n_head": 4, "n_positions": 128},
    "gpt_neox": {"rotary_pct": 0.5},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 48},
    "cohere": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 3.0, "residual_multiplier": 0.7, "embedding_multiplier": 2.0,
                "attention_multiplier": 0.4},
    "olmo2": {},
    "mixtral": {"sliding_window": 8, "num_local_experts": 4},
    "falcon": {"attention": "eager", "alibi": True, "spread": 4.0},  # no rotary positions
}  # fmt: skip

# Further families, which only `make test-long` runs.
WIDE: dict[str, dict[str, Any]] = {
    "stablelm": {"partial_rotary_factor": 0.5},
    "starcoder2": {"sliding_window": 8},
    "qwen2_moe": {"num_experts": 4, "moe_intermediate_size": 32},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 12},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "glm": {"head_dim": 12},
    "cohere2": {"sliding_window": 8},
    "olmo3": {"sliding_window": 8},
    "nemotron": {},
    "smollm3": {},
    "exaone4": {"sliding_window": 8},
    "granitemoe": {"num_local_experts": 4},
    "biogpt": {},
    "gptj": {"n_embd": 48, "n_layer": 4, "n_head": 4, "rotary_dim": 12, "attention": "eager"},
    "mpt": {"d_model": 48, "n_layers": 4, "n_heads": 4, "attention": "eager"},
}

# The config features of Llama 3.2: scaled rotary positions, grouped heads, tied embeddings.
LLAMA32 = {
    **_SIZES, "num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 64, "intermediate_size": 160,
    "head_dim": 8, "max_position_embeddings": 1024, "tie_word_embeddings": True, "rms_norm_eps": 1e-5,
    "rope_parameters": {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "high_freq_factor": 4.0,
        "low_freq_factor": 1.0, "original_max_position_embeddings": 64,
    },
}  # fmt: skip


def build_tokenizer() -> Any:
    """A byte-level BPE of about 350 tokens that puts <s> in front; <s> 0, </s> 1, <pad> 2."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=352,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def build_model(
    model_type: str, seed: int = 0, spread: float = 3.0, attention: str | None = None, **options: Any
) -> Any:
    """A random causal model whose positions matter, whose exits disagree and whose certainty varies.

    Weights as the library draws them (0.02) make all logits alike: such a model hardly sees positions and would
    agree with a wrong engine. Here every matrix keeps the size of its input, and the final norm is scaled until the
    logits of the last exit have the standard deviation `spread`.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from hcl_cli.models.anatomy import find_anatomy

    vocab = len(build_tokenizer())
    config = AutoConfig.for_model(model_type, vocab_size=vocab, **{**_SIZES, **options})
    config.pad_token_id = 2
    generator = torch.Generator().manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    anatomy = find_anatomy(model)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0.0, 1.3 / weight.shape[-1] ** 0.5, generator=generator)
        tokens = torch.randint(3, vocab, (4, 12), generator=generator)
        norm: Any = anatomy.final_norm
        offset = 1.0 if not norm.weight.any() else 0.0  # Gemma's norm multiplies by 1 + weight
        for _ in range(4):
            scale = spread / float(model(input_ids=tokens).logits.std())
            norm.weight.copy_((norm.weight + offset) * scale - offset)
    return model


def load_family(family: str, dtype: str = "float32", seed: int = 0, **options: Any) -> Any:
    """A LoadedModel of one family of FAMILIES or WIDE, or of "llama32"."""
    import torch

    from hcl_cli.models.load import loaded_from

    model_type, extra = ("llama", LLAMA32) if family == "llama32" else (family, (FAMILIES | WIDE)[family])
    model = build_model(model_type, seed, **{**extra, **options}).to(getattr(torch, dtype))
    return loaded_from(model, build_tokenizer(), family)


def save_llama32_like(folder: Path, seed: int = 0) -> Path:
    """Save a small random model with Llama 3.2's config features and its tokenizer; returns the folder."""
    build_model("llama", seed, **LLAMA32).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """The tokenizer of all tiny models."""
    return build_tokenizer()


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., Any]:
    """tiny_model(family, dtype="float32", seed=0, **config) -> LoadedModel; equal calls return the same model."""
    made: dict[str, Any] = {}

    def make(family: str, dtype: str = "float32", seed: int = 0, **options: Any) -> Any:
        name = repr((family, dtype, seed, sorted(options.items())))
        if name not in made:
            made[name] = load_family(family, dtype, seed, **options)
        return made[name]

    return make


@pytest.fixture(scope="session")
def families() -> tuple[str, ...]:
    """Every family that `tiny_model` knows."""
    return (*FAMILIES, "llama32")


@pytest.fixture(scope="session")
def llama32_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small random model that has Llama 3.2's config features."""
    return save_llama32_like(tmp_path_factory.mktemp("llama32-like"))


if __name__ == "__main__":
    print(save_llama32_like(Path(sys.argv[1])))


@pytest.fixture(scope="session")
def planted_nli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small entailment model whose verdicts are known (`planted_nli.relation`)."""
    return write_planted_nli(tmp_path_factory.mktemp("nli") / "planted-nli")
