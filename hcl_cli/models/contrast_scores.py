"""Scores of given continuations under contrasted layers, for multiple choice: teacher-forced, token by token."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hcl_cli.errors import BadInput, EnvironmentRefused
from hcl_cli.measures.contrast import contrasted, plausible
from hcl_cli.models import batch as plain
from hcl_cli.models.contrast_heads import Heads, Ints, contrast
from hcl_cli.models.contrast_methods import Method
from hcl_cli.models.memory import is_out_of_memory

if TYPE_CHECKING:
    from hcl_cli.models.anatomy import Anatomy
    from hcl_cli.models.load import LoadedModel

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]
Ids = Sequence[int]
KeysAndValues = list[tuple[Tensor, Tensor]]

OUTSIDE = -1000.0  # what the published code gives a token outside the plausible set
VARIANTS = tuple((constrained, normalised) for constrained in (False, True) for normalised in (False, True))


@dataclass(frozen=True)
class ContrastScores:
    """What one method says of the continuations of one prompt, one array per continuation, one entry per token.

    Attributes:
        scores: for each (constrained, normalised) the score of each token, nats. Constrained: a token outside the
            plausible set scores `outside`. Normalised: less ln sum exp of the contrasted scores of all tokens that
            count, so that the scores are log-probabilities. Neither: ln q_N - ln q_M. `vanilla` has the last layer's
            log-probabilities in all four; with an alpha of its own they are constrained and normalised likewise.
        mature_logprobs: under the last layer alone, nats.
        premature_layers: the layer contrasted at each token; None under `vanilla`.
        divergences: of that layer from the last, nats; None likewise.
    """

    scores: Mapping[tuple[bool, bool], list[Floats]]
    mature_logprobs: list[Floats]
    premature_layers: list[NDArray[np.int16]] | None
    divergences: list[Floats] | None


def contrast_logprobs(
    loaded: LoadedModel,
    prompts: Sequence[Ids],
    continuations: Sequence[Sequence[Ids]],
    methods: Sequence[Method],
    *,
    outside: float = OUTSIDE,
    normalise_over: str = "plausible",
    progress: Callable[[int, int], None] | None = None,
) -> list[list[ContrastScores]]:
    """Score the continuations of every prompt under every method, with and without constraint and normalisation.

    What all prompts begin with is computed once, the rest of a prompt once per prompt, and its continuations together;
    all methods read the same forward. Penalties are not applied (the published scoring uses none), and the layer is
    chosen for every token by itself, whatever `average_over_batch`. What a continuation scores does not depend on the
    others.

    Args:
        prompts: token ids, at least one each.
        continuations: for each prompt its continuations, at least one token each.
        outside: score of a token outside the plausible set; -math.inf excludes it for good.
        normalise_over: what a constrained score is normalised over: "plausible", the paper's softmax over V_head; or
            "vocabulary", all tokens and the constraint after it, as the published code does under `post_softmax`.
        progress: told (prompts done, prompts).
    Returns:
        [prompt][method].
    Raises:
        BadInput: a prompt or continuation without tokens, one that does not fit the model's positions, or logits that
            are not finite.
        EnvironmentRefused: a single continuation does not fit the memory.
        ValueError: a candidate layer outside 0..L-1, or an unknown `normalise_over`.
    Source: arXiv 2309.03883; its scoring code for `outside` and "vocabulary".
    """
    if normalise_over not in ("plausible", "vocabulary"):
        raise ValueError(f"normalise_over {normalise_over!r}: expected plausible or vocabulary")
    for method in methods:
        if any(not 0 <= layer < loaded.n_layers for layer in method.candidates):
            raise ValueError(f"method {method.name}: candidates {method.candidates} outside 0..{loaded.n_layers - 1}")
    _check(loaded, prompts, continuations)
    heads, found = Heads(loaded.anatomy, methods), []
    with torch.inference_mode():
        begun = _common_beginning(prompts)
        beginning = _extended(loaded, prompts[0][:begun], [], 0) if begun else []
        for prompt, asked in zip(prompts, continuations, strict=True):
            past = _extended(loaded, prompt[begun:-1], beginning, begun)
            rows = [row for part in _forwards(loaded, prompt, asked, past, heads) for row in part]
            found.append(_scored(rows, asked, methods, heads, outside, normalise_over == "plausible"))
            if progress is not None:
                progress(len(found), len(prompts))
    return found


def _check(loaded: LoadedModel, prompts: Sequence[Ids], continuations: Sequence[Sequence[Ids]]) -> None:
    if len(prompts) != len(continuations):
        raise ValueError(f"{len(prompts)} prompts, but continuations of {len(continuations)}")
    for number, (prompt, asked) in enumerate(zip(prompts, continuations, strict=True)):
        if not len(prompt):
            raise BadInput(f"prompt {number}: it has no tokens; expected at least one")
        if not asked or not all(len(ids) for ids in asked):
            raise BadInput(f"prompt {number}: an answer without tokens, or no answer; expected at least one token each")
        longest = len(prompt) + max(map(len, asked))
        if loaded.max_positions is not None and longest > loaded.max_positions:
            raise BadInput(
                f"prompt {number}: {longest} tokens with its longest answer exceed the {loaded.max_positions} "
                f"positions of {loaded.name}; use a shorter prompt"
            )


def _common_beginning(prompts: Sequence[Ids]) -> int:
    """How many tokens all prompts begin with, each keeping its last for its continuations."""
    if len(prompts) < 2:
        return 0
    first, last = min(map(tuple, prompts)), max(map(tuple, prompts))  # any two differ no earlier than these do
    n = min(map(len, prompts)) - 1
    return next((at for at in range(n) if first[at] != last[at]), n)


def _cache(past: KeysAndValues, n_rows: int) -> Any:
    from transformers.cache_utils import DynamicCache

    # Without a configuration every block keeps all positions; the model's own masks hide what a window leaves out.
    return DynamicCache([tuple(kept.expand(n_rows, -1, -1, -1) for kept in pair) for pair in past] if past else None)


def _extended(loaded: LoadedModel, ids: Ids, past: KeysAndValues, n_past: int) -> KeysAndValues:
    """Keys and values of one text after `past`, per block [1, head, position, head_dim] each."""
    if not len(ids):
        return past
    cache = _cache(past, 1)
    loaded.anatomy.decoder(
        input_ids=torch.tensor([list(ids)], device=loaded.device),
        position_ids=torch.arange(n_past, n_past + len(ids), device=loaded.device)[None],
        past_key_values=cache,
        use_cache=True,
    )
    return [(layer.keys, layer.values) for layer in cache.layers]


def _forwards(
    loaded: LoadedModel, prompt: Ids, asked: Sequence[Ids], past: KeysAndValues, heads: Heads
) -> Iterator[list[dict[int, Tensor]]]:
    """The states that each continuation's tokens follow: per continuation, layer -> [token, hidden], in order."""
    queue = [list(asked)]
    while queue:
        batch = queue.pop()
        ids = torch.zeros(len(batch), max(map(len, batch)), dtype=torch.long)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = torch.tensor([prompt[-1], *tokens[:-1]])  # padding right: nothing sees it
        n_past = len(prompt) - 1
        try:
            with _tapped(loaded.anatomy, heads.layers) as states:
                loaded.anatomy.decoder(
                    input_ids=ids.to(loaded.device),
                    position_ids=torch.arange(n_past, n_past + ids.shape[1], device=loaded.device).expand_as(ids),
                    past_key_values=_cache(past, len(batch)) if past else None,
                    use_cache=bool(past),
                )
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(batch) == 1:
                raise EnvironmentRefused(
                    f"not enough memory on {loaded.device} for an answer of {len(batch[0])} tokens after a prompt of "
                    f"{len(prompt)}; use a shorter prompt or a smaller --dtype"
                ) from error
            log.warning("a batch of %d answers was halved", len(batch))
            queue += [batch[len(batch) // 2 :], batch[: len(batch) // 2]]
            continue
        yield [
            {layer: hidden[row, : len(tokens)] for layer, hidden in states.items()} for row, tokens in enumerate(batch)
        ]


@contextmanager
def _tapped(anatomy: Anatomy, layers: Ints) -> Iterator[dict[int, Tensor]]:
    """The raw states after these layers; 0 is what goes into block 1."""
    states: dict[int, Tensor] = {}

    def before(_block: Any, args: Any, kwargs: Any) -> None:
        states[0] = args[0] if args else kwargs["hidden_states"]

    def after(layer: int) -> Callable[[Any, Any, Any], None]:
        def keep(_block: Any, _args: Any, output: Any) -> None:
            states[layer] = output[0] if isinstance(output, tuple) else output

        return keep

    wanted = sorted({int(layer) for layer in layers})
    handles = [anatomy.blocks[layer - 1].register_forward_hook(after(layer)) for layer in wanted if layer]
    if 0 in wanted:
        handles.append(anatomy.blocks[0].register_forward_pre_hook(before, with_kwargs=True))
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def _scored(
    rows: Sequence[dict[int, Tensor]],
    asked: Sequence[Ids],
    methods: Sequence[Method],
    heads: Heads,
    outside: float,
    over_plausible: bool,
) -> list[ContrastScores]:
    hidden = {layer: torch.cat([row[layer] for row in rows]) for layer in rows[0]}
    state = hidden[int(heads.layers[0])]
    tokens = torch.tensor([token for ids in asked for token in ids], device=state.device)
    n_readings, width = len(heads.layers), heads.width
    size = max(1, plain.HEAD_BYTES // (n_readings * width * 8))
    parts: list[list[Tensor]] = [[] for _ in methods]
    for start in range(0, len(tokens), size):
        part = slice(start, start + size)
        states = torch.cat([hidden[int(layer)][part] for layer in heads.layers])
        n = len(tokens[part])
        logits = heads.logits(states, np.repeat(np.arange(n_readings), n)).view(n_readings, n, -1)
        if not bool(logits.isfinite().any(-1).all()) or bool(logits.isnan().any()):
            raise BadInput("--model: logits that are not finite; use --dtype float32 (or bfloat16), or another model")
        for index, method in enumerate(methods):
            parts[index].append(
                _columns(logits[0], logits[heads.of[index]], method, tokens[part], outside, over_plausible)
            )
    edges = np.cumsum([len(ids) for ids in asked])[:-1]
    found = []
    for method, columns in zip(methods, parts, strict=True):
        values = torch.cat(columns, 1).double().cpu().numpy()
        split = [np.split(row, edges) for row in values]
        layers = None
        if method.candidates:
            candidates = np.array(method.candidates, dtype=np.int16)
            layers = [candidates[choice.astype(np.int64)] for choice in split[5]]
        found.append(
            ContrastScores(dict(zip(VARIANTS, split, strict=False)), split[4], layers, split[6] if layers else None)
        )
    return found


def _columns(
    mature: Tensor, premature: Tensor, method: Method, tokens: Tensor, outside: float, over_plausible: bool
) -> Tensor:
    """[column, token]: the four VARIANTS, the mature log-probability, the choice and its divergence."""

    def at(scores: Tensor) -> Tensor:
        return scores.gather(1, tokens[:, None])[:, 0]

    plain = mature.log_softmax(-1)
    every, choice, apart = plain, torch.zeros_like(plain[:, 0]), torch.zeros_like(plain[:, 0])
    if method.candidates:
        chosen = contrast(mature, premature, method)
        assert chosen.choice is not None and chosen.divergence is not None
        base = premature[chosen.choice, torch.arange(len(tokens), device=tokens.device)].log_softmax(-1)
        every, choice, apart = contrasted(plain, base), chosen.choice.to(plain.dtype), chosen.divergence
    elif not method.alpha:
        return torch.stack([at(plain)] * 5 + [choice, apart])
    mask = plausible(plain, method.alpha)
    normalised = at(every) - every.logsumexp(-1)
    inside = at(mask)
    constrained = at(every).masked_fill(~inside, outside)
    over = at(every) - every.masked_fill(~mask, -math.inf).logsumexp(-1) if over_plausible else normalised
    return torch.stack(
        [
            at(every),
            normalised,
            constrained,
            over.masked_fill(~inside, outside),
            at(plain),
            choice,
            apart,
        ]
    )
