"""What every block does to the residual stream: all activation criteria from one forward pass over the texts.

Hooks turn each block's input and output into a few numbers per token as soon as they are there. The last block is
read like the others, since the last of the library's hidden states is already normed; the head is never run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hcl_cli.errors import BadInput, shown
from hcl_cli.measures import activations as measured
from hcl_cli.measures.activations import DEFAULT_EPSILON, Epsilon, Floats
from hcl_cli.models.block_pass import INFLUENCE, OF_KIND, BlockPass, require_finite
from hcl_cli.models.hidden_items import Item, Job, batches_of

if TYPE_CHECKING:
    from hcl_cli.models.load import LoadedModel

KINDS = ("residual", "attention", "mlp")
DEFAULT_BATCH_TOKENS = 1 << 11


@dataclass(frozen=True)
class ActivationStatistics:
    """Activations of one kind at every block.

    Attributes:
        variance, sparsity: [text, block], means over the measured tokens of a text, see `token_statistics`.
        l1_norm, l2_norm: [block], means over all measured tokens.
        rms: [block], root mean square of all entries of all measured tokens.
        epsilon: [block], the bound of the sparsity, absolute; of a relative one the mean over tokens.
    """

    variance: Floats
    sparsity: Floats
    l1_norm: Floats
    l2_norm: Floats
    rms: Floats
    epsilon: Floats


@dataclass(frozen=True)
class BlockStatistics:
    """What was measured. Of each text and block four numbers are kept (two more for each further kind of activations,
    two more with `published`), so that texts can be resampled; never an activation.

    Attributes:
        n_tokens: [text], tokens that count.
        groups: [text], the labels that were given; None without.
        activations: kind -> its statistics.
        influence: [text, block], mean over tokens of 1 - cosine(input, output) of the block, in [0, 2] (ShortGPT).
            NaN where a state of the text is the zero vector, which has no direction: ShortGPT's re-implementation
            counts a cosine of 0.5 there.
        angular: [text, block], angular distance of the text's last token, in [0, 1]; NaN likewise.
        spans: [start, n], mean over texts of the angular distance between the input of block start + 1 and the output
            of the (n + 1)-th block from there; NaN where there are not so many, or no text has it.
        n_directionless: [block], texts with NaN in `influence`.
        published_variance, published_sparsity: [text, block], see `published_statistics`; None unless asked for.
    """

    n_tokens: Floats
    groups: tuple[str, ...] | None
    activations: dict[str, ActivationStatistics]
    influence: Floats
    angular: Floats
    spans: Floats
    n_directionless: Floats
    published_variance: Floats | None
    published_sparsity: Floats | None

    @property
    def n_blocks(self) -> int:
        """The number of blocks, L."""
        return int(self.influence.shape[1])

    def of_group(self, label: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """[text], which texts have this label."""
        return np.array([group == label for group in self.groups or ()], dtype=bool)


def block_statistics(
    loaded: LoadedModel,
    sequences: Sequence[tuple[int, ...]],
    *,
    measured_from: Sequence[int] | None = None,
    activations: Sequence[str] = ("residual",),
    epsilon: Epsilon = DEFAULT_EPSILON,
    groups: Sequence[str] | None = None,
    published: bool = False,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    progress: Callable[[int], None] | None = None,
) -> BlockStatistics:
    """Statistics of every block for all activation criteria at once.

    Texts of like lengths run together, padded at the right, which no token sees; neither changes a number beyond
    rounding. Sums are float64 over float32 values (float64 of a float64 model).

    Args:
        loaded: the model.
        sequences: tokens of each text, BOS included.
        measured_from: of each text, the first position that counts (of an answer: where it begins); 0 by default. The
            angular distance is of the last token anyhow.
        activations: which of KINDS get a variance, a sparsity and norms; the residual stream always does, and block
            influence and angular distance are of it alone.
        epsilon: below which size an activation counts as zero.
        groups: a label for each text.
        published: also measure as the authors' script does: texts padded (or cut, for this alone) to 128 positions,
            padding measured too. Its pads are the tokenizer's pad token, or the first end-of-text token where there
            is none, and hidden by the mask. Needs the model to run at least 128 positions.
        batch_tokens: budget of one forward: texts times the longest of them.
        progress: called with the number of texts that have just been finished.
    Raises:
        BadInput: no text, one without a measured token, longer than the model's positions or with tokens that it
            lacks; blocks without such a part, or that share weights; a state that is not finite.
        EnvironmentRefused: a single text does not fit the memory.
    """
    import torch

    from hcl_cli.models.block_parts import find_part, refuse_shared_blocks
    from hcl_cli.models.memory import run_or_halve

    if not set(activations) <= set(KINDS) or not activations:
        raise ValueError(f"activations {tuple(activations)}: expected some of {KINDS}")
    refuse_shared_blocks(loaded.anatomy)
    kinds = tuple(kind for kind in KINDS if kind == "residual" or kind in activations)
    modules = {kind: find_part(loaded.anatomy, kind) for kind in kinds if kind != "residual"}
    jobs = _jobs(loaded, sequences, measured_from, _pad_id(loaded) if published else None)
    if groups is not None and len(groups) != len(jobs):
        raise ValueError(f"{len(groups)} groups for {len(jobs)} texts")
    sums = _Sums(len(jobs), loaded.n_layers, kinds, published)

    def run(batch: list[Job]) -> BlockPass:
        forward = BlockPass(loaded, batch, modules, epsilon, published)
        forward.run()
        return forward

    def described(job: Job) -> str:
        return f"text '{shown(job.item.statement_id)}' of {len(job.item.ids)} tokens"

    queue = batches_of(jobs, batch_tokens)[::-1]
    with torch.inference_mode():
        while queue:
            batch = queue.pop()
            found = run_or_halve(batch, queue, run, loaded.device, described)
            if found is not None:
                sums.add(found)
                if progress is not None:
                    progress(len(batch))
    return sums.result(epsilon, int(loaded.anatomy.config.hidden_size), None if groups is None else tuple(groups))


def _pad_id(loaded: LoadedModel) -> int:
    if loaded.max_positions is not None and loaded.max_positions < measured.PUBLISHED_POSITIONS:
        raise BadInput(
            f"--criterion avss-published: pads texts to {measured.PUBLISHED_POSITIONS} tokens, but {loaded.name} has "
            f"{loaded.max_positions} positions; use avss"
        )
    pad = getattr(loaded.tokenizer, "pad_token_id", None)
    return int(pad) if pad is not None else min(loaded.eos_ids, default=0)


def _jobs(
    loaded: LoadedModel, sequences: Sequence[tuple[int, ...]], measured_from: Sequence[int] | None, pad: int | None
) -> list[Job]:
    """The texts with the positions that count; with a pad token, short ones filled up to the published length."""
    if not sequences:
        raise BadInput("no text to measure the blocks on; expected at least one")
    firsts = [0] * len(sequences) if measured_from is None else measured_from
    known = int(loaded.model.get_input_embeddings().weight.shape[0])
    jobs = []
    for index, (ids, first) in enumerate(zip(sequences, firsts, strict=True)):
        name, n = f"text {index + 1}", len(ids)
        if not 0 <= first < n:
            raise BadInput(f"{name}: it has no token to measure ({n} tokens, measured from {first}); leave it out")
        if loaded.max_positions is not None and n > loaded.max_positions:
            raise BadInput(
                f"{name}: {n} tokens, but the model has {loaded.max_positions} positions; cut or shorten the text"
            )
        if max(ids) >= known:
            raise BadInput(
                f"{name}: it has token {max(ids)}, but {loaded.name} knows 0..{known - 1}; its tokenizer belongs to "
                "another model"
            )
        filled = ids if pad is None else (*ids, *[pad] * (measured.PUBLISHED_POSITIONS - n))
        jobs.append(Job(index, Item(str(index + 1), filled), range(first, n)))
    return jobs


class _Sums:
    """What is kept of all passes."""

    def __init__(self, n_texts: int, n_blocks: int, kinds: Sequence[str], published: bool) -> None:
        self.kinds = kinds
        self.n_tokens = np.zeros(n_texts)
        shape = (n_texts, n_blocks)
        self.of_text = {(kind, name): np.empty(shape) for kind in kinds for name in ("variance", "sparsity")}
        self.of_text["residual", INFLUENCE] = np.empty(shape)
        self.angular = np.empty(shape)
        self.totals = {(kind, name): np.zeros(n_blocks) for kind in kinds for name in ("l1_norm", "l2_norm", "square")}
        self.spans, self.n_spans = np.zeros((n_blocks, n_blocks)), np.zeros((n_blocks, n_blocks))
        self.published = (np.empty(shape), np.empty(shape)) if published else None

    def add(self, found: BlockPass) -> None:
        import torch

        rows = [job.row for job in found.batch]
        self.n_tokens[rows] = found.n_tokens
        for kind, every in found.values.items():
            for name, columns in zip((*OF_KIND, INFLUENCE), every.unbind(1), strict=False):
                self._add(found, rows, kind, name, columns.T.cpu().double().numpy())
        self.angular[rows] = found.spans[:, :, 0]
        self.spans += np.nan_to_num(found.spans).sum(axis=0)
        self.n_spans += (~np.isnan(found.spans)).sum(axis=0)
        if self.published is not None:
            for kept, of_block in zip(self.published, zip(*found.published, strict=True), strict=True):
                kept[rows] = torch.stack(of_block, 1).cpu().double().numpy()

    def _add(self, found: BlockPass, rows: list[int], kind: str, name: str, values: Floats) -> None:
        """Values, [token, block], of one statistic."""
        if name != INFLUENCE:
            require_finite(found, name, kind, values)
        if (kind, name) in self.of_text:
            self.of_text[kind, name][rows] = measured.text_means(values, found.n_tokens)
        else:
            self.totals[kind, name] += values.sum(axis=0)
        if name == "l2_norm":
            self.totals[kind, "square"] += (values**2).sum(axis=0)

    def result(self, epsilon: Epsilon, width: int, groups: tuple[str, ...] | None) -> BlockStatistics:
        n = self.n_tokens.sum()
        influence = self.of_text["residual", INFLUENCE]

        def of_kind(kind: str) -> ActivationStatistics:
            l1_norm, l2_norm, square = (self.totals[kind, name] / n for name in ("l1_norm", "l2_norm", "square"))
            bound = epsilon.value * (l2_norm / np.sqrt(width) if epsilon.relative else np.ones_like(l2_norm))
            variance, sparsity = self.of_text[kind, "variance"], self.of_text[kind, "sparsity"]
            return ActivationStatistics(variance, sparsity, l1_norm, l2_norm, np.sqrt(square / width), bound)

        with np.errstate(invalid="ignore"):
            spans = np.where(self.n_spans > 0, self.spans / self.n_spans, np.nan)
        return BlockStatistics(
            n_tokens=self.n_tokens,
            groups=groups,
            activations={kind: of_kind(kind) for kind in self.kinds},
            influence=influence,
            angular=self.angular,
            spans=spans,
            n_directionless=np.isnan(influence).sum(axis=0).astype(np.float64),
            published_variance=None if self.published is None else self.published[0],
            published_sparsity=None if self.published is None else self.published[1],
        )
