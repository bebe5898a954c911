"""The parts of a decoder, found by structure and never by the name of a family.

    tokens -> embedding -> block 1 .. block L -> final norm -> unembedding -> scaling -> logits

`hcl_cli.models.load` checks at the door that `head(last block)` equals the model's own logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hcl_cli.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Anatomy:
    """Where a causal language model keeps its parts.

    Attributes:
        decoder: the module that owns the blocks and the final norm.
        config: the decoder's own (text) configuration.
        blocks_name: the decoder's attribute that holds the blocks.
        blocks: all L blocks, also while a shorter list stands in their place.
        final_norm: the norm after the last block.
        unembedding: hidden width -> vocabulary.
        logit_scale: factor on the logits (Cohere multiplies, Granite divides), 1 for most.
        softcap: logits become softcap * tanh(logits / softcap); None for most.
    """

    decoder: nn.Module
    config: Any
    blocks_name: str
    blocks: nn.ModuleList
    final_norm: nn.Module
    unembedding: nn.Module
    logit_scale: float
    softcap: float | None

    @property
    def n_layers(self) -> int:
        """The number of blocks, L."""
        return len(self.blocks)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits of the raw hidden state after any block: final norm, unembedding, scaling.

        Args:
            hidden: [..., hidden], not yet normed.
        Returns:
            [..., vocab], in the dtype of the weights.
        Source: LayerSkip (arXiv 2404.16710), which reads every exit through the final norm.
        """
        logits: Tensor = self.unembedding(self.final_norm(hidden))
        if self.logit_scale != 1.0:
            logits = logits * self.logit_scale
        if self.softcap is not None:
            logits = self.softcap * (logits / self.softcap).tanh()
        return logits


def find_anatomy(model: Any) -> Anatomy:
    """The parts of `model`.

    Raises:
        BadInput: if there is not exactly one list of `num_hidden_layers` blocks, one final norm and one unembedding.
    """
    from torch import nn

    kind = type(model).__name__
    decoder = model.get_decoder()
    config: Any = getattr(decoder, "config", None)
    if getattr(config, "num_hidden_layers", None) is None:
        raise BadInput(
            f"--model: cannot tell the parts of a {kind}: its decoder is said to be a {type(decoder).__name__}, which "
            "has no blocks; use another model"
        )
    lists = [
        (name, child)
        for name, child in decoder.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == config.num_hidden_layers
    ]
    norms = [child for _, child in decoder.named_children() if "norm" in type(child).__name__.lower()]
    unembedding = model.get_output_embeddings()
    if len(lists) != 1 or len(norms) != 1 or unembedding is None:
        raise BadInput(
            f"--model: cannot tell the parts of a {kind}: found {len(lists)} lists of {config.num_hidden_layers} "
            f"blocks and {len(norms)} final norms, expected one of each; use another model"
        )
    name, blocks = lists[0]
    return Anatomy(
        decoder=decoder,
        config=config,
        blocks_name=name,
        blocks=blocks,
        final_norm=norms[0],
        unembedding=unembedding,
        logit_scale=float(getattr(config, "logit_scale", None) or 1.0)
        / float(getattr(config, "logits_scaling", None) or 1.0),
        softcap=getattr(config, "final_logit_softcapping", None),
    )


def relative_costs(anatomy: Anatomy) -> list[float]:
    """FLOPs per token of each exit 1..L as a share of the full model's: blocks plus head, attention scores left out.

    A matrix product costs two FLOPs per weight and token, so the share is one of parameter counts. The head is
    counted once for every exit; mixture-of-experts blocks are counted whole.
    """
    blocks = [sum(weight.numel() for weight in block.parameters()) for block in anatomy.blocks]
    head = sum(weight.numel() for weight in anatomy.unembedding.parameters())
    full = sum(blocks) + head
    return [(sum(blocks[:layer]) + head) / full for layer in range(1, len(blocks) + 1)]


def head_share(anatomy: Anatomy) -> float:
    """FLOPs of the head as a share of the full model's, counted as in `relative_costs`."""
    head = sum(weight.numel() for weight in anatomy.unembedding.parameters())
    return head / (head + sum(weight.numel() for block in anatomy.blocks for weight in block.parameters()))
