"""One forward over one batch of texts, whose blocks are measured while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from hcl_cli.errors import BadInput, shown
from hcl_cli.measures import activations as measured
from hcl_cli.measures.activations import Epsilon, Floats

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hcl_cli.models.hidden_items import Job
    from hcl_cli.models.load import LoadedModel

OF_KIND = ("variance", "sparsity", "l1_norm", "l2_norm")
INFLUENCE = "influence"


class BlockPass:
    """One forward over one batch.

    Attributes:
        values: kind -> [block, statistic, token] on the model's device; statistics in the order of OF_KIND, then
            INFLUENCE (of the residual stream alone); tokens of the batch's texts, text after text.
        spans: [text, block, n], see `span_distances`.
        published: per block, ([text], [text]).
    """

    def __init__(
        self,
        loaded: LoadedModel,
        batch: Sequence[Job],
        modules: dict[str, list[nn.Module]],
        epsilon: Epsilon,
        published: bool,
    ) -> None:
        import torch

        self.loaded, self.batch, self.modules = loaded, batch, modules
        self.epsilon, self.is_published = epsilon, published
        self.width = max(len(job.item.ids) for job in batch)
        self.n_tokens = np.array([len(job.places) for job in batch])
        self.values: dict[str, Tensor] = {}
        self.published: list[tuple[Tensor, Tensor]] = []
        self.spans: Floats = np.empty(0)
        places = [row * self.width + place for row, job in enumerate(batch) for place in job.places]
        everything = len(places) == len(batch) * self.width
        device = loaded.device
        self._places = None if everything else torch.tensor(places, device=device)
        self._n_places = len(places)
        self._rows = torch.arange(len(batch), device=device)
        self._last = torch.tensor([job.places.stop - 1 for job in batch], device=device)
        # All results are asked for before the forward: small pieces that stay between the large ones that go would
        # leave holes, and the heap would grow.
        wide = torch.promote_types(loaded.dtype, torch.float32)
        for kind in ("residual", *modules):
            size = (loaded.n_layers, len(OF_KIND) + (kind == "residual"), self._n_places)
            self.values[kind] = torch.empty(size, dtype=wide, device=device)
        width = int(loaded.anatomy.config.hidden_size)
        self._states = torch.empty(len(batch), loaded.n_layers + 1, width, dtype=wide, device=device)
        self._measured: dict[str, int] = dict.fromkeys(self.values, 0)  # blocks that are done
        # The output whose norms are known: it is the next block's input.
        self._known: tuple[Tensor, Tensor] | None = None

    def run(self) -> None:
        """Fill `values`, `spans` and `published`."""
        import torch

        ids = torch.zeros(len(self.batch), self.width, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, job in enumerate(self.batch):
            ids[row, : len(job.item.ids)] = torch.tensor(job.item.ids)
            mask[row, : job.places.stop] = 1
        options: dict[str, Any] = {"use_cache": False}
        # No mask without need, which is quicker: nothing sees padding on the right. But the published statistics are
        # of the padding too, and its states are those that the mask leaves.
        if self.is_published and not bool(mask.all()):
            options["attention_mask"] = mask.to(self.loaded.device)
        with self._hooked():
            self.loaded.anatomy.decoder(input_ids=ids.to(self.loaded.device), **options)
        for kind, n_done in self._measured.items():
            if n_done != self.loaded.n_layers:
                raise self._no_part(kind, f"ran in {n_done} of {self.loaded.n_layers} blocks")
        self.spans = measured.span_distances(self._states)
        self._known = None

    @contextmanager
    def _hooked(self) -> Iterator[None]:
        handles = [
            block.register_forward_hook(self._after_block, with_kwargs=True) for block in self.loaded.anatomy.blocks
        ]
        for kind, modules in self.modules.items():
            handles += [module.register_forward_hook(self._after_part(kind)) for module in modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _after_part(self, kind: str) -> Callable[[Any, Any, Any], None]:
        def hook(_module: Any, _args: Any, output: Any) -> None:
            found = output[0] if isinstance(output, tuple) else output
            if found.shape[:-1].numel() != len(self.batch) * self.width:
                raise self._no_part(kind, f"gives {tuple(found.shape)}, expected one vector per token")
            if self._measured[kind] == self.loaded.n_layers:
                raise self._no_part(kind, "runs more than once in a forward")
            self._measure(kind, found.reshape(-1, found.shape[-1]))

        return hook

    def _no_part(self, kind: str, why: str) -> BadInput:
        return BadInput(
            f"--activations {kind}: the module found to be the {kind} of a {type(self.loaded.model).__name__} {why}; "
            "use --activations residual"
        )

    def _after_block(self, _block: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        before = args[0] if args else kwargs["hidden_states"]
        after = output[0] if isinstance(output, tuple) else output
        done = self._measured["residual"]
        if not done:
            self._states[:, 0] = before[self._rows, self._last]
        self._states[:, done + 1] = after[self._rows, self._last]
        self._known = (after, self._measure("residual", after.flatten(0, 1), before))
        if self.is_published:
            first = after[:, : measured.PUBLISHED_POSITIONS]
            self.published.append(measured.published_statistics(first.to(_wide(first))))

    def _measure(self, kind: str, flat: Tensor, before: Tensor | None = None) -> Tensor:
        """Statistics of [batch * position, width] at the places that count; with a block's input, of its step too.

        Returns:
            [place], the L2 norms.
        """
        import torch

        found = self.values[kind][self._measured[kind]]
        self._measured[kind] += 1
        known = self._known[1] if self._known is not None and self._known[0] is before else None
        for piece in measured.pieces(self._n_places, 4 * flat.shape[-1], flat.device.type == "cpu"):
            rows = self._of_places(flat, piece)
            statistics = measured.token_statistics(rows, self.epsilon)
            for column, value in zip(found, statistics, strict=False):
                column[piece] = value
            if before is not None:
                origin = self._of_places(before.flatten(0, 1), piece)
                norms = torch.linalg.vector_norm(origin, dim=-1) if known is None else known[piece]
                found[-1, piece] = 1.0 - measured.cosines(origin, rows, norms, statistics.l2_norm)
        return found[OF_KIND.index("l2_norm")]

    def _of_places(self, flat: Tensor, piece: slice) -> Tensor:
        rows = flat[piece] if self._places is None else flat.index_select(0, self._places[piece])
        return rows.to(_wide(flat))


def _wide(activations: Tensor) -> Any:
    import torch

    return torch.promote_types(activations.dtype, torch.float32)


def require_finite(found: BlockPass, name: str, kind: str, values: Floats) -> None:
    """Refuse values, [token, block], that are not finite.

    Raises:
        BadInput: names the text and the block of the first.
    """
    if np.isfinite(values).all():
        return
    token, block = (int(index) for index in np.argwhere(~np.isfinite(values))[0])
    text = found.batch[int(np.searchsorted(np.cumsum(found.n_tokens), token, side="right"))].item.statement_id
    dtype = str(found.loaded.dtype).removeprefix("torch.")
    raise BadInput(
        f"--model {found.loaded.name}: text {shown(text)}, block {block + 1}: the {name.replace('_', ' ')} of its "
        f"{kind} activations is not a finite number, in {dtype}; use --dtype float32 (or bfloat16 where float16 "
        "overflows), and if that does not help another model"
    )
