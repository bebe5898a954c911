"""Parts of a block, found by structure: its attention, its MLP; and whether the blocks are separate at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hcl_cli.errors import BadInput

if TYPE_CHECKING:
    from torch import nn

    from hcl_cli.models.anatomy import Anatomy

PARTS = ("attention", "mlp")


def find_part(anatomy: Anatomy, part: str) -> list[nn.Module]:
    """The attention or the MLP of every block: the modules whose outputs go to the residual stream.

    The attention is the one child of a block whose class says so. The MLP is the one other child that holds matrices;
    where these are single layers (OPT), the last of them, which must give the hidden width. What the block does to an
    output behind it (a norm in Gemma 2, a factor in Granite) is not in it.

    Args:
        part: one of PARTS.
    Raises:
        BadInput: a block without exactly one.
    """
    if part not in PARTS:
        raise ValueError(f"part {part!r} is none of {PARTS}")
    return [_part(anatomy, number, block, part) for number, block in enumerate(anatomy.blocks, 1)]


def _part(anatomy: Anatomy, number: int, block: nn.Module, part: str) -> nn.Module:
    from torch import nn

    attentions, others = [], []
    for child in block.children():
        if "attention" in type(child).__name__.lower():
            attentions.append(child)
        elif any(weight.dim() > 1 for weight in child.parameters()):
            others.append(child)
    if len(others) > 1 and all(isinstance(child, nn.Linear) for child in others):
        last = others[-1]
        others = [last] if getattr(last, "out_features", None) == anatomy.config.hidden_size else []
    found = attentions if part == "attention" else others
    if len(found) != 1:
        raise BadInput(
            f"--activations {part}: block {number} of a {type(anatomy.decoder).__name__} has {len(found)} modules that "
            f"could be its {part}, expected one; use --activations residual"
        )
    return found[0]


def refuse_shared_blocks(anatomy: Anatomy) -> None:
    """Refuse a model two of whose blocks are one module, or share weights: one cannot go without the other.

    Raises:
        BadInput: names the first two.
    """
    owners: dict[int, int] = {}
    for number, block in enumerate(anatomy.blocks, 1):
        stored = {weight.untyped_storage().data_ptr() for weight in block.parameters() if weight.numel()}
        for key in {id(block), *map(id, block.parameters()), *(stored - {0})}:
            first = owners.setdefault(key, number)
            if first != number:
                raise BadInput(
                    f"--model: blocks {first} and {number} of a {type(anatomy.decoder).__name__} share weights, so "
                    "neither can be judged or removed alone; use a model whose blocks are separate"
                )
