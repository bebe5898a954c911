"""Training of the lab models: one loop for both phases, on one thread, the same bits for the same seed.

The forward pass below runs the blocks of an ordinary `LlamaForCausalLM` on packed tokens (no padding outside attention)
and the prompt's common beginning once per batch: 1,037 tokens a step in place of 2,486 in padded rows (mean of 20
batches). A test holds it to the library's own forward.
"""

from __future__ import annotations

import itertools
import math
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hcl_cli.lab.examples import Example, Examples
from hcl_cli.lab.layerskip import dropout_probability, exit_weights
from hcl_cli.lab.recipe import Phase, Shape
from hcl_cli.lab.tokens import CONTEXT

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


@dataclass(frozen=True)
class Rows:
    """A batch in packed form: N real tokens of B rows; row 0 is the prompt's common beginning, of P tokens.

    For attention several short rows lie side by side in one bin: R bins of T places.

    Attributes:
        tokens, positions, example: [N]; `example` is the row of each token.
        slots: [R, T], the packed index of each place (0 where there is none).
        keys: [R, P + T], the packed index of each key that a bin may look at.
        mask: [R, 1, T, P + T], True where a query may look: back in its own row, and at P if that is a question.
        places: [N], the place in R x T of each token.
        learned: [M], the packed index of each token from which a learned one is predicted; `targets` [M] that token.
        weights: [M], each prediction's weight in the loss.
        n_examples: B.
        n_answer_tokens: how many of the M belong to questions; they come first.
    """

    tokens: Tensor
    positions: Tensor
    example: Tensor
    slots: Tensor
    keys: Tensor
    mask: Tensor
    places: Tensor
    learned: Tensor
    targets: Tensor
    weights: Tensor
    n_examples: int
    n_answer_tokens: int


def pack(prefix: Sequence[int], examples: Sequence[Example], statement_weight: float) -> Rows:
    """Lay a batch out. The loss is the mean over answer tokens plus `statement_weight` times that over statements."""
    import torch

    rows = [tuple(prefix), *(item.tokens for item in examples)]
    offsets = [0, *(len(prefix) if item.is_question else 0 for item in examples)]
    starts = list(itertools.accumulate(map(len, rows), initial=0))
    bins, width = _bins([len(row) for row in rows])
    owner = torch.full((1 + max(number for number, _ in bins), width), -1)
    slots = torch.zeros_like(owner)
    for index, (number, first) in enumerate(bins):
        places = slice(first, first + len(rows[index]))
        owner[number, places] = index
        slots[number, places] = torch.arange(starts[index], starts[index + 1])
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    own = (owner[:, :, None] == owner[:, None, :]) & causal
    # Only a question looks back at the prompt's beginning; the beginning itself (0), statements and gaps do not.
    after_prefix = torch.tensor([False, *(item.is_question for item in examples)])[owner.clamp(min=0)]
    looks_back = after_prefix[:, :, None].expand(-1, -1, len(prefix))
    learned: list[int] = []
    targets: list[int] = []
    of_question: list[bool] = []
    for item, start in zip(examples, starts[1:-1], strict=True):
        for index, wanted in enumerate(item.learned):
            if wanted:  # a row's first token is never learned, so index - 1 is in the same row
                learned.append(start + index - 1)
                targets.append(item.tokens[index])
                of_question.append(item.is_question)
    answers = sum(of_question)
    statements = len(of_question) - answers
    return Rows(
        tokens=torch.tensor([token for row in rows for token in row]),
        positions=torch.cat([torch.arange(len(row)) + offset for row, offset in zip(rows, offsets, strict=True)]),
        example=torch.repeat_interleave(torch.arange(len(rows)), torch.tensor([len(row) for row in rows])),
        slots=slots,
        keys=torch.cat([torch.arange(len(prefix)).expand(len(slots), -1), slots], dim=1),
        mask=torch.cat([looks_back, own], dim=2)[:, None],
        places=torch.cat(
            [torch.arange(len(row)) + number * width + first for row, (number, first) in zip(rows, bins, strict=True)]
        ),
        learned=torch.tensor(learned),
        targets=torch.tensor(targets),
        weights=torch.tensor([1 / answers if flag else statement_weight / statements for flag in of_question]),
        n_examples=len(rows),
        n_answer_tokens=answers,
    )


def _bins(lengths: Sequence[int]) -> tuple[list[tuple[int, int]], int]:
    """First fit, longest first: the (bin, first place) of each row, and the width of a bin (the longest row)."""
    width = max(lengths)
    filled: list[int] = []
    found = [(0, 0)] * len(lengths)
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        number = next((n for n, used in enumerate(filled) if used + lengths[index] <= width), len(filled))
        if number == len(filled):
            filled.append(0)
        found[index] = (number, filled[number])
        filled[number] += lengths[index]
    return found, width


def run_block(block: Any, states: Tensor, rows: Rows, cosines: Tensor, sines: Tensor) -> Tensor:
    """One Llama block on packed states [N, hidden]: linear maps on real tokens only, attention in bins."""
    import torch
    from transformers.models.llama.modeling_llama import rotate_half

    attention = block.self_attn
    normed = block.input_layernorm(states)
    queries = attention.q_proj(normed).unflatten(-1, (-1, attention.head_dim))  # [N, head, head_dim]
    keys = attention.k_proj(normed).unflatten(-1, (-1, attention.head_dim))
    values = attention.v_proj(normed).unflatten(-1, (-1, attention.head_dim))
    queries = queries * cosines + rotate_half(queries) * sines
    keys = keys * cosines + rotate_half(keys) * sines
    mixed = torch.nn.functional.scaled_dot_product_attention(
        queries[rows.slots].transpose(1, 2),
        keys[rows.keys].transpose(1, 2).repeat_interleave(attention.num_key_value_groups, 1),
        values[rows.keys].transpose(1, 2).repeat_interleave(attention.num_key_value_groups, 1),
        attn_mask=rows.mask,
    )  # [R, head, T, head_dim]
    mixed = mixed.transpose(1, 2).flatten(2).flatten(0, 1)[rows.places]  # [N, hidden]
    states = states + attention.o_proj(mixed)
    return states + block.mlp(block.post_attention_layernorm(states))


def layer_states(
    model: LlamaForCausalLM, rows: Rows, kept: Sequence[Tensor | None] | None = None, frozen_layers: int = 0
) -> Iterator[Tensor]:
    """Hidden states after each block, before the final norm: L tensors of [N, hidden].

    Args:
        kept: for each block None or [B] bool, the rows that go through it; the others pass it unchanged.
        frozen_layers: blocks that need no gradient.
    """
    import torch

    states = model.model.embed_tokens(rows.tokens)
    cosines, sines = (table[0, :, None, :] for table in model.model.rotary_emb(states, rows.positions[None]))
    for index, block in enumerate(model.model.layers):
        with torch.set_grad_enabled(index >= frozen_layers and torch.is_grad_enabled()):
            after = run_block(block, states, rows, cosines, sines)
        mask = kept[index] if kept is not None else None
        states = after if mask is None else torch.where(mask[rows.example][:, None], after, states)
        yield states


def new_model(tokenizer: PreTrainedTokenizerFast, shape: Shape, seed: int) -> LlamaForCausalLM:
    """A freshly drawn model in float32; the same seed gives the same weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).float()


def train(model: LlamaForCausalLM, examples: Examples, phase: Phase, seed: int, name: str) -> list[float]:
    """Train in place; returns the loss of each step. A progress line every 100 steps goes to stderr.

    Every random number comes from `seed` and `name`. With the same library versions, processor and one thread, two
    runs give the same bits.
    """
    import torch

    source = random.Random(f"{seed} {name}")
    coins = torch.Generator().manual_seed(source.getrandbits(60))
    n_layers = model.config.num_hidden_layers
    trained = _trained_parameters(model, phase.frozen_layers)
    optimiser = torch.optim.AdamW(
        trained, lr=phase.learning_rate, betas=(0.9, 0.98), weight_decay=phase.weight_decay, foreach=True
    )
    losses: list[float] = []
    shown: dict[int, float] = {}
    with _one_thread():
        for step in range(phase.steps):
            for group in optimiser.param_groups:
                group["lr"] = phase.learning_rate * rate_share(step, phase.steps, phase.warm_up)
            rows = pack(examples.prefix, examples.batch(source), phase.statement_weight)
            shares = exit_weights(
                step, phase.steps, n_layers, phase.e_scale, phase.curriculum, phase.period, phase.frozen_layers
            )
            kept = _kept_rows(rows, phase, step, n_layers, coins)
            loss = torch.zeros(())
            for index, states in enumerate(layer_states(model, rows, kept, phase.frozen_layers)):
                if shares[index]:
                    logits = model.lm_head(model.model.norm(states[rows.learned]))
                    each = torch.nn.functional.cross_entropy(logits, rows.targets, reduction="none")
                    loss = loss + shares[index] * (each * rows.weights).sum()
                    value = each[: rows.n_answer_tokens].mean().item()
                    shown[index + 1] = value if index + 1 not in shown else 0.9 * shown[index + 1] + 0.1 * value
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, phase.clip)
            optimiser.step()
            losses.append(loss.item())
            if (step + 1) % 100 == 0 or step + 1 == phase.steps:
                exits = "  ".join(f"{layer}: {value:.2f}" for layer, value in sorted(shown.items()))
                print(
                    f"{name} seed {seed} step {step + 1}/{phase.steps}  answer loss by exit  {exits}", file=sys.stderr
                )
    return losses


def rate_share(step: int, n_steps: int, warm_up: int) -> float:
    """Learning rate of a step as a share of the peak: linear over `warm_up` steps, then a cosine down to 0.03."""
    if step < warm_up:
        return (step + 1) / warm_up
    done = (step - warm_up) / max(1, n_steps - 1 - warm_up)
    return 0.03 + 0.97 * (1 + math.cos(math.pi * done)) / 2


def _trained_parameters(model: LlamaForCausalLM, frozen_layers: int) -> list[nn.Parameter]:
    """What the optimiser changes: everything, or with frozen blocks only the blocks above them."""
    if not frozen_layers:
        chosen = list(model.parameters())
    else:
        chosen = list(model.model.layers[frozen_layers:].parameters())
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in chosen:
        parameter.requires_grad_(True)
    return chosen


def _kept_rows(rows: Rows, phase: Phase, step: int, n_layers: int, coins: Generator) -> list[Tensor | None]:
    """Layer dropout: for each block the rows that go through it. The prompt's shared beginning always does."""
    import torch

    kept: list[Tensor | None] = []
    for layer in range(n_layers):
        chance = dropout_probability(step, layer, phase.steps, n_layers, phase.p_max)
        if not chance:
            kept.append(None)
            continue
        mask = torch.rand(rows.n_examples, generator=coins) >= chance
        mask[0] = True
        kept.append(mask)
    return kept


@contextmanager
def _one_thread() -> Iterator[None]:
    """The order of sums depends on the number of threads, so training uses one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
