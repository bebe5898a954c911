"""A random model with the config features of Llama 3.2, for smoke runs where the gated one cannot be had.

`python -m hcl_cli.lab.random_llama FOLDER`: llama3 rope scaling, grouped key/value heads, tied embeddings, and the lab
model's tokenizer. Its answers mean nothing; that every exit runs is what it shows.
"""

import sys
from pathlib import Path

from hcl_cli.errors import BadOption
from hcl_cli.resources import data_file


def write_random_llama(folder: Path, *, n_layers: int = 4, seed: int = 0) -> None:
    """Save the model and its tokenizer to `folder` (made if absent), about 1 MB.

    The rope parameters are those of meta-llama/Llama-3.2-1B's config; the sizes are not.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

    tokenizer = AutoTokenizer.from_pretrained(data_file("models", "lab"))
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=n_layers,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=1024,
        tie_word_embeddings=True, attention_bias=False, mlp_bias=False, initializer_range=0.2,
        rope_parameters={
            "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 512,
        },
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    generator_state = torch.get_rng_state()
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    torch.set_rng_state(generator_state)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(str(BadOption("usage: python -m hcl_cli.lab.random_llama FOLDER")))
    write_random_llama(Path(sys.argv[1]))
