"""The door: a model whose exits the engine cannot explain is refused before anything is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hcl_cli.errors import BadInput
from hcl_cli.models.cache import RaggedCache
from hcl_cli.models.exits import exit_logits
from hcl_cli.models.ragged import ragged
from hcl_cli.models.shared_prompt import prompt_rows

if TYPE_CHECKING:
    from hcl_cli.models.load import LoadedModel

# Largest difference allowed, as a share of the spread of the logits. The last exit repeats the model's own
# operations, the others are the same sums in another order.
_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.05}


def check_model(loaded: LoadedModel) -> None:
    """Compare the engine with the model itself on a few tokens.

    Raises:
        BadInput: if head(last block) is not the model's own logits, if a token sees what comes after it, or if a
            ragged step with its cache and padding gives other logits than the plain model.
    """
    vocab = int(loaded.model.get_input_embeddings().weight.shape[0])
    token_ids = (torch.arange(7, device=loaded.device) * 7919 + 11).remainder(vocab)[None]
    with torch.inference_mode():
        own = loaded.model(input_ids=token_ids, use_cache=False).logits
    exits = exit_logits(loaded.model, token_ids)
    _compare(loaded, exits[-1], own, "the head applied to the last block does not give the model's own logits")
    shorter = exit_logits(loaded.model, token_ids[:, :4])
    _compare(loaded, shorter, exits[:, :, :4], "a token sees what comes after it, so it is no causal language model")
    _compare(loaded, _ragged_logits(loaded, token_ids), exits[:, 0, 6], "a ragged step differs from the plain model")


def _ragged_logits(loaded: LoadedModel, token_ids: Tensor) -> Tensor:
    """Logits of every exit after the last of seven tokens: six as a padded prompt, one as a ragged step."""
    n_layers, device = loaded.n_layers, token_ids.device
    prompts = torch.cat([token_ids[:, :6], token_ids[:, :6]])
    prompts[0, :2] = token_ids[0, 4:6]  # row 0 is another, longer prompt, and the deepest
    mask = torch.ones_like(prompts)
    prompts[1, 2:], mask[1, :2] = token_ids[0, :4], 0
    prompts = torch.cat([prompts, prompts[1:]])
    mask = torch.cat([mask, mask[1:]])
    cache = RaggedCache(n_layers, loaded.shared_prompt)
    shallow = max(1, n_layers - 1)
    rows_at = [3] * shallow + [2] * (n_layers - shallow)
    last = torch.tensor([1], device=device)
    with torch.inference_mode(), ragged(loaded.anatomy, loaded.shared_prompt) as step:
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        cache.begin_prompts(0, rows_at)
        step.run(prompts, positions, mask, cache, rows_at, [last] * n_layers)
        cache.end_prompts(6)
        groups = np.array([1, 0, 2])
        cache.fork(torch.tensor([1, 0, 2], device=device), rows_at, prompt_rows(groups, rows_at, device))
        hidden = torch.empty(0)
        mask = mask[[1, 0, 2]]
        for position in (4, 5, 6):
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
            tokens = token_ids[:, position].expand(3)[:, None]
            positions = (mask.sum(1) - 1)[:, None]
            if position == 5:
                groups = groups[[0, 1, 0]]
                cache.fork(torch.tensor([0, 1, 0], device=device), rows_at, prompt_rows(groups, rows_at, device))
            hidden = step.run(tokens, positions, mask, cache, rows_at, [last - 1] * n_layers)
        return loaded.anatomy.head(hidden)


def _compare(loaded: LoadedModel, found: Tensor, expected: Tensor, what: str) -> None:
    found, expected = found.cpu().double(), expected.cpu().double()  # MPS has no float64
    spread = float(expected.std())
    worst = float((found - expected).abs().max())
    if not worst <= _TOLERANCE[loaded.dtype] * spread:
        raise BadInput(
            f"--model {loaded.name}: {what} (largest difference {worst:.2g}, spread of the logits {spread:.2g}); "
            "its exits cannot be sampled, use another model"
        )
