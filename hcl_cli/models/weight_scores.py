"""What the weights of each block say of it: their size, and what the loss would lose with them to first order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hcl_cli.errors import BadInput, EnvironmentRefused
from hcl_cli.models.block_losses import DEFAULT_BATCH_TOKENS
from hcl_cli.models.cut import refuse_shared
from hcl_cli.models.losses import Batch, Ids, batch_of, batches_of, check_sequences
from hcl_cli.models.memory import is_out_of_memory
from hcl_cli.models.readout import HEAD_BYTES

if TYPE_CHECKING:
    from hcl_cli.models.load import LoadedModel

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]


def magnitude(loaded: LoadedModel, power: float = 1.0) -> Floats:
    """Sum of |W|^power over all parameters of each block: matrices, biases and norms.

    Args:
        power: 1 or 2 in the paper; > 0.
    Returns:
        [block], summed in float64.
    Raises:
        BadInput: blocks that share weights.
        ValueError: a power that is not positive.
    Source: Shortened LLaMA (arXiv 2402.02834), criterion "Mag".
    """
    if not power > 0:
        raise ValueError(f"power {power}: expected one above 0")
    refuse_shared(loaded)
    return np.array([_sum_of_powers(block, power) for block in loaded.anatomy.blocks])


def frobenius_norm(loaded: LoadedModel) -> Floats:
    """Frobenius norm of all parameters of each block together: the root of the sum of their squares, [block]."""
    return np.array([_sum_of_powers(block, 2.0) ** 0.5 for block in loaded.anatomy.blocks])


def _sum_of_powers(block: nn.Module, power: float) -> float:
    total = 0.0
    for weight in block.parameters():
        # Of a stack of experts one expert at a time, so that the wide copy stays small. MPS has no float64.
        for part in weight.detach() if weight.dim() > 2 else [weight.detach()]:
            wide = part.cpu() if part.device.type == "mps" else part
            total += float(wide.double().abs().pow(power).sum())
    return total


def taylor(
    loaded: LoadedModel,
    sequences: Sequence[Ids],
    firsts: Sequence[int] | None = None,
    *,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> Floats:
    """First-order estimate of how much the loss changes with each weight, summed over the weights of each block.

    I_l = sum over W in block l of sum_ij |W_ij * dL/dW_ij|. L is the mean negative log-likelihood over all tokens of
    the texts together, so the signed product is summed over batches before its size is taken, and batches do not
    matter. All parameters of a block count, its norms too; embeddings, final norm and head do not.

    One product per weight of the blocks is held in float32 (float64 for a float64 model), and the gradient of one
    parameter at a time beside what the backward pass needs. Gradients and `requires_grad` are as found afterwards.

    Args:
        loaded: the model.
        sequences: token ids of each text, at least two and no more than the model's positions.
        firsts: of each text the position of the first token that counts, at least 1; by default 1.
        batch_tokens: budget of one forward and backward pass: texts times the longest of them.
        progress: told (texts done, texts); begins anew if memory ran out and smaller batches are tried.
    Returns:
        [block], nats per token.
    Raises:
        BadInput: no text, or one that cannot be measured; blocks that share weights; gradients that are not finite.
        EnvironmentRefused: a single text does not fit the memory.
    Source: Shortened LLaMA (arXiv 2402.02834), criterion "Taylor", as its code sums.
    """
    refuse_shared(loaded)
    starts = check_sequences(loaded, sequences, firsts)
    longest = max(map(len, sequences))
    while True:
        try:
            scores = _taylor(loaded, sequences, starts, batch_tokens, progress)
            break
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            # What was summed may hold half a batch: begin again.
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            if batch_tokens <= longest:
                raise EnvironmentRefused(
                    f"not enough memory on {loaded.device} for the gradients of {loaded.name} on a text of {longest} "
                    f"tokens ({reason}); use shorter texts, --dtype bfloat16 or --device cpu"
                ) from error
            batch_tokens = max(longest, batch_tokens // 2)
            log.warning("gradients are taken anew in batches of %d tokens: %s", batch_tokens, reason)
    if not np.isfinite(scores).all():
        raise BadInput(
            f"--model {loaded.name}: gradients that are not finite in {str(loaded.dtype).removeprefix('torch.')}; use "
            "--dtype float32 (or bfloat16 where float16 overflows)"
        )
    return scores


def _taylor(
    loaded: LoadedModel,
    sequences: Sequence[Ids],
    firsts: Sequence[int],
    batch_tokens: int,
    progress: Callable[[int, int], None] | None,
) -> Floats:
    n_tokens = sum(len(ids) - first for ids, first in zip(sequences, firsts, strict=True))
    done = 0
    with _products(loaded) as products:
        for rows in batches_of(sequences, batch_tokens):
            batch = batch_of(loaded, sequences, rows, firsts)
            products.share = len(batch.following) / n_tokens
            _backward(loaded, batch)
            done += len(rows)
            if progress is not None:
                progress(done, len(sequences))
        return np.array(
            [
                sum(float(products.of[weight].abs().sum()) for weight in block.parameters())
                for block in loaded.anatomy.blocks
            ]
        )


@dataclass
class _Products:
    """W * dL/dW of every parameter of the blocks, summed over batches.

    Attributes:
        share: of all predicted tokens, those of the batch at hand.
    """

    of: dict[Any, Tensor]
    share: float = 0.0

    def add(self, weight: Tensor) -> None:
        """Take in a parameter's gradient as soon as it is there, and free it."""
        product, gradient = self.of[weight], weight.grad
        assert gradient is not None
        product.addcmul_(weight.detach().to(product.dtype), gradient.to(product.dtype), value=self.share)
        weight.grad = None


@contextmanager
def _products(loaded: LoadedModel) -> Iterator[_Products]:
    found = [(weight, weight.requires_grad, weight.grad) for weight in loaded.model.parameters()]
    weights = [weight for block in loaded.anatomy.blocks for weight in block.parameters()]
    wide = torch.promote_types(loaded.dtype, torch.float32)
    handles = []
    # A caller may measure everything else in inference mode, where nothing has a gradient.
    with torch.inference_mode(False), torch.enable_grad():
        products = _Products({weight: torch.zeros_like(weight, dtype=wide, requires_grad=False) for weight in weights})
        try:
            for weight, _, _ in found:
                weight.requires_grad_(False)
                weight.grad = None
            for weight in weights:
                weight.requires_grad_(True)
                handles.append(weight.register_post_accumulate_grad_hook(products.add))
            yield products
        finally:
            for handle in handles:
                handle.remove()
            for weight, required, gradient in found:
                weight.requires_grad_(required)
                weight.grad = gradient


def _backward(loaded: LoadedModel, batch: Batch) -> None:
    """Gradients of the batch's mean negative log-likelihood; the head a few rows at a time."""
    anatomy = loaded.anatomy
    last: list[Tensor] = []

    def keep(_block: Any, _args: Any, output: Any) -> None:
        last.append(output[0] if isinstance(output, tuple) else output)

    handle = anatomy.blocks[-1].register_forward_hook(keep)
    try:
        anatomy.decoder(input_ids=batch.ids, use_cache=False)
    finally:
        handle.remove()
    states = last[0][batch.text, batch.place]
    leaf = states.detach().requires_grad_()
    wide = torch.promote_types(leaf.dtype, torch.float32)
    size = max(1, HEAD_BYTES // (loaded.vocab_size * wide.itemsize))
    for start in range(0, len(leaf), size):
        logits = anatomy.head(leaf[start : start + size]).to(wide)
        following = batch.following[start : start + size]
        (nn.functional.cross_entropy(logits, following, reduction="sum") / len(leaf)).backward()
    states.backward(leaf.grad)
