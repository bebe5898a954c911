"""What a model thinks of the tokens of given texts: the log-probability of each, and whether it was the likeliest.

Only the measured positions reach the head. Texts of like lengths run together, padded right, where nothing sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hcl_cli.errors import BadInput
from hcl_cli.models.encoders import batches
from hcl_cli.models.memory import run_or_halve
from hcl_cli.models.readout import BATCH_TOKENS, Readout

if TYPE_CHECKING:
    from hcl_cli.models.load import LoadedModel

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ids = Sequence[int]


@dataclass(frozen=True)
class TokenLosses:
    """The measured tokens of one text.

    Attributes:
        logprob: [token], under the tokens before it, nats.
        is_top: [token], whether it is the likeliest token there (of equals the one with the lowest id).
    """

    logprob: Floats
    is_top: Bools


def token_losses(
    loaded: LoadedModel,
    sequences: Sequence[Ids],
    firsts: Sequence[int] | None = None,
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> list[TokenLosses]:
    """Read texts token by token, each predicted from those before it.

    Args:
        loaded: the model.
        sequences: token ids, each at least two long and no longer than the model's positions.
        firsts: for each the position of the first measured token, at least 1; by default 1, since nothing predicts
            the token at 0.
        batch_tokens: budget of one forward: texts times the longest of them.
        progress: told (texts done, texts).
    Returns:
        one entry per text, in order.
    Raises:
        BadInput: logits that are not finite.
        EnvironmentRefused: a single text does not fit the memory.
        ValueError: a text without a measured token.
    """
    starts = [1] * len(sequences) if firsts is None else list(firsts)
    for ids, first in zip(sequences, starts, strict=True):
        if not 1 <= first < len(ids):
            raise ValueError(f"the first measured token is at {first} of a text of {len(ids)} tokens")
    found: dict[int, TokenLosses] = {}
    queue = batches(list(map(len, sequences)), batch_tokens)  # the longest, which may not fit, first
    while queue:
        rows = queue.pop()
        read = run_or_halve(
            rows, queue,
            lambda rows: _read(loaded, [sequences[row] for row in rows], [starts[row] for row in rows]),
            loaded.device, lambda row: f"a text of {len(sequences[row])} tokens",
        )  # fmt: skip
        if read is None:
            continue
        found.update(zip(rows, read, strict=True))
        if progress is not None:
            progress(len(found), len(sequences))
    return [found[row] for row in range(len(sequences))]


def _read(loaded: LoadedModel, batch: Sequence[Ids], firsts: Sequence[int]) -> list[TokenLosses]:
    width = max(map(len, batch))
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    measured = torch.zeros(len(batch), width, dtype=torch.bool)
    for row, (sequence, first) in enumerate(zip(batch, firsts, strict=True)):
        ids[row, : len(sequence)] = torch.tensor(list(sequence))
        measured[row, first : len(sequence)] = True
    ids, measured = ids.to(loaded.device), measured.to(loaded.device)
    states: list[Tensor] = []

    def keep(_block: Any, _args: Any, output: Any) -> None:
        # The library's own last state is normed, and the head norms again.
        states.append(output[0] if isinstance(output, tuple) else output)

    handle = loaded.anatomy.blocks[-1].register_forward_hook(keep)
    try:
        with torch.inference_mode():
            loaded.anatomy.decoder(input_ids=ids, use_cache=False)
            hidden, wanted = states.pop()[:, :-1][measured[:, 1:]], ids[measured]
            parts = [
                (logprobs.gather(1, wanted[rows, None])[:, 0], logprobs.argmax(-1) == wanted[rows])
                for rows, logprobs in Readout(loaded.anatomy, "norm").logprobs(loaded.n_layers, hidden)
            ]
    finally:
        handle.remove()
    logprob = torch.cat([part[0] for part in parts]).double().cpu().numpy()
    is_top = torch.cat([part[1] for part in parts]).cpu().numpy()
    if np.isnan(logprob).any():
        raise BadInput("--model: logits that are not finite; use --dtype float32 (or bfloat16), or another model")
    edges = np.cumsum([len(sequence) - first for sequence, first in zip(batch, firsts, strict=True)])[:-1]
    return [TokenLosses(*pair) for pair in zip(np.split(logprob, edges), np.split(is_top, edges), strict=True)]
