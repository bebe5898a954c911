"""A model whose answers are known by construction, and its law in plain Python.

A Llama without attention (its output projections are zero) whose block l adds, for the current token t, a chosen
vector to the part of the residual stream that the head reads. So the next token's logits after k blocks are
`scale * sum of the first k blocks' rows for t`, divided by the norm that the final RMSNorm computes: a bigram model
with another table at every exit.
"""

import json
from pathlib import Path

import numpy as np

WORDS = ("<s>", "</s>", "<unk>", "ask-one", "ask-many", "ask-hard", "paris", "lyon", "red", "green", "blue", "rome")
N_LAYERS = 4
STRENGTH = 40.0
EPS = 1e-5
QUESTIONS = (
    {"question_id": "one", "question": "ask-one", "answers": ["paris"]},
    {"question_id": "many", "question": "ask-many", "answers": ["red", "green", "blue"]},
    {"question_id": "hard", "question": "ask-hard", "answers": ["rome"]},
)

# (block, token) -> what that block adds to the next-token scores. Every answer word is followed by </s>.
ADDED: dict[tuple[int, str], dict[str, float]] = {
    **{(0, word): {"</s>": 3.0} for word in WORDS[6:]},
    (0, "ask-one"): {"paris": 1.0, "lyon": 1.2, "rome": 1.0},
    (1, "ask-one"): {"paris": 1.0},
    (2, "ask-one"): {"paris": 1.0},
    (0, "ask-many"): {"red": 1.0, "lyon": 1.2, "paris": 1.1, "green": 0.8},
    (1, "ask-many"): {"red": 1.0, "green": 1.1, "blue": 0.9},
    (2, "ask-many"): {"red": 1.0, "green": 1.0, "blue": 1.5},
    (3, "ask-many"): {"red": 3.0},
    (0, "ask-hard"): {"lyon": 1.0, "paris": 1.0, "red": 0.9},
    (3, "ask-hard"): {"rome": 0.2},
}


def scores(layer: int, token: str) -> np.ndarray:
    """Next-token logits after `layer` blocks when the last token is `token`: [vocab], float64."""
    rows = [_added(block, token) for block in range(layer)]
    total = np.sum(rows, axis=0)
    size = len(WORDS)
    hidden = np.concatenate([np.eye(size)[WORDS.index(token)], total])
    rms = np.sqrt(np.mean(hidden**2) + EPS)
    return STRENGTH / 10 * total / rms


def _added(block: int, token: str) -> np.ndarray:
    row = np.zeros(len(WORDS))
    for word, value in ADDED.get((block, token), {}).items():
        row[WORDS.index(word)] = value
    return row


def write_planted_model(folder: Path) -> None:
    """Save the model and a word-level tokenizer to `folder`."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    size = len(WORDS)
    config = LlamaConfig(
        vocab_size=size, hidden_size=2 * size, intermediate_size=size, num_hidden_layers=N_LAYERS,
        num_attention_heads=2, num_key_value_heads=2, head_dim=4, max_position_embeddings=64, rms_norm_eps=EPS,
        tie_word_embeddings=False, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.model.norm.weight.fill_(1.0)
        model.model.embed_tokens.weight[:, :size] = torch.eye(size)
        model.lm_head.weight[:, size:] = STRENGTH / 10 * torch.eye(size)
        for block, layer in enumerate(model.model.layers):
            # After this block's RMSNorm the one-hot part is 1/rms at the current token. A large gate makes
            # silu(gate) * up = gate * up, so dividing by rms twice is undone in the down projection per token.
            layer.post_attention_layernorm.weight.fill_(1.0)
            layer.input_layernorm.weight.fill_(1.0)
            layer.mlp.gate_proj.weight[:, :size] = 100.0 * torch.eye(size)
            layer.mlp.up_proj.weight[:, :size] = torch.eye(size)
            for index, word in enumerate(WORDS):
                before = (
                    np.sum([_added(earlier, word) for earlier in range(block)], axis=0) if block else 0 * np.ones(size)
                )
                hidden = np.concatenate([np.eye(size)[index], before])
                inverse = 1.0 / np.sqrt(np.mean(hidden**2) + EPS)
                gain = 100.0 * inverse * inverse
                layer.mlp.down_proj.weight[size:, index] = torch.tensor(_added(block, word) / gain)
    model.save_pretrained(folder)
    words = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )
    tokenizer.save_pretrained(folder)


def write_questions(path: Path) -> None:
    """The three questions as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
