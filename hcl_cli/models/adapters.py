"""LoRA adapters on chosen blocks only, through the library `peft`; the model itself is lent and given back as it was.

`adapted` puts adapters in, `merged` adds trained ones to the weights; both undo what they did, to the last bit.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from hcl_cli.errors import BadInput, BadOption

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

    from hcl_cli.models.load import LoadedModel


@dataclass(frozen=True)
class Lora:
    """The size of adapters: W becomes W + (alpha / rank) B A, with A [rank, in] and B [out, rank].

    Attributes:
        rank: >= 1.
        alpha: >= 1.
    Source: Hu et al. 2021 (arXiv 2106.09685).
    """

    rank: int = 8
    alpha: int = 16


@dataclass(frozen=True)
class Adapter:
    """Trained adapters.

    Attributes:
        blocks: 1..L, rising.
        lora: their size.
        weights: name in the library's own spelling -> tensor on the host.
    """

    blocks: tuple[int, ...]
    lora: Lora
    weights: Mapping[str, Tensor]

    @property
    def n_parameters(self) -> int:
        """How many numbers were trained."""
        return sum(weight.numel() for weight in self.weights.values())


def require_peft(option: str) -> None:
    """Refuse what needs adapters where the library is missing.

    Raises:
        BadOption
    """
    if find_spec("peft") is None:
        raise BadOption(f"{option}: needs peft; install it with pip install 'hcl-cli[mitigate]'")


def linear_names(loaded: LoadedModel, blocks: Sequence[int]) -> list[str]:
    """The linear maps inside some blocks by their names in the model, in the model's order.

    Found by structure: every `nn.Linear`, and the transposed `Conv1D` of GPT-2. Experts that share one tensor are none
    of these; their router and attention are.

    Args:
        loaded: the model.
        blocks: 1..L.
    Raises:
        BadInput: a block without any.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    names = {module: name for name, module in loaded.model.named_modules()}
    found = []
    _refuse_shared(loaded, blocks)
    for block in sorted(blocks):
        own = [names[one] for one in loaded.anatomy.blocks[block - 1].modules() if isinstance(one, nn.Linear | Conv1D)]
        if not own:
            raise BadInput(
                f"--model {loaded.name}: block {block} holds no linear layer that an adapter could be put on; name "
                "other blocks with --blocks"
            )
        found += own
    return found


class Adapting:
    """Adapters that are being trained.

    Attributes:
        parameters: all that is to be trained, in the model's order.
    """

    def __init__(self, wrapped: Any, blocks: Sequence[int], lora: Lora) -> None:
        self._wrapped, self._blocks, self._lora = wrapped, tuple(sorted(blocks)), lora
        self.parameters: list[Parameter] = [one for one in wrapped.parameters() if one.requires_grad]

    def taken(self) -> Adapter:
        """What stands in them now, as a copy."""
        from peft import get_peft_model_state_dict

        weights = get_peft_model_state_dict(self._wrapped, save_embedding_layers=False)
        kept = {name: weight.detach().cpu().clone() for name, weight in sorted(weights.items())}
        return Adapter(self._blocks, self._lora, kept)


@contextmanager
def adapted(loaded: LoadedModel, blocks: Sequence[int], lora: Lora, seed: int = 0) -> Iterator[Adapting]:
    """New adapters on some blocks of `loaded.model` while the context lasts; untrained they change nothing.

    B is 0. A is uniform within 1 / sqrt(in), as the library draws it, but from a counter-based generator keyed by the
    seed and the layer's name: a layer's adapter begins alike whichever other blocks have one.

    Args:
        loaded: the model; afterwards its weights are the same, and so is what asks for gradients.
        blocks: 1..L.
        lora: size.
        seed: 0..2**32 - 1.
    """
    import torch

    with _wrapped(loaded, blocks, lora) as wrapped:
        with torch.no_grad():
            for name, weight in wrapped.named_parameters():
                if weight.requires_grad and ".lora_A." in name:
                    weight.copy_(_initial(name, weight, seed))
        yield Adapting(wrapped, blocks, lora)


@contextmanager
def switched_on(loaded: LoadedModel, adapter: Adapter) -> Iterator[Any]:
    """`loaded.model` with trained adapters beside its own weights while the context lasts.

    Yields:
        the library's model around it, which can save the adapters.
    """
    from peft import set_peft_model_state_dict

    with _wrapped(loaded, adapter.blocks, adapter.lora) as wrapped:
        set_peft_model_state_dict(wrapped, dict(adapter.weights))
        yield wrapped


@contextmanager
def merged(loaded: LoadedModel, adapter: Adapter) -> Iterator[LoadedModel]:
    """`loaded` with trained adapters added to its weights while the context lasts; other weights are not touched.

    Everything that takes a LoadedModel takes it then, at its usual speed.
    """
    import torch

    linears = [loaded.model.get_submodule(name) for name in linear_names(loaded, adapter.blocks)]
    before = [linear.weight.detach().clone() for linear in linears]
    try:
        with switched_on(loaded, adapter) as wrapped:
            wrapped.merge_and_unload(safe_merge=True)
        yield loaded
    finally:
        with torch.no_grad():
            for linear, weight in zip(linears, before, strict=True):
                linear.weight.data = weight


@contextmanager
def _wrapped(loaded: LoadedModel, blocks: Sequence[int], lora: Lora) -> Iterator[Any]:
    """The library's model around `loaded.model`, whose linear layers carry adapters inside the context."""
    import torch
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers.pytorch_utils import Conv1D

    model = loaded.model
    names = linear_names(loaded, blocks)
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    owners = list(model.parameters())
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=names,
        task_type=TaskType.CAUSAL_LM,
        fan_in_fan_out=any(isinstance(model.get_submodule(name), Conv1D) for name in names),
    )
    # The library draws A from the global generator, which is nobody else's business.
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*is_gradient_checkpointing", category=FutureWarning)
        wrapped: Any = get_peft_model(model, config)
    try:
        yield wrapped
    finally:
        wrapped.unload()
        for parameter, flag in zip(owners, wanted, strict=True):
            parameter.requires_grad_(flag)


def _initial(name: str, weight: Tensor, seed: int) -> Tensor:
    import torch

    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    generator = np.random.Generator(
        np.random.Philox(key=np.array([seed, int.from_bytes(digest, "little")], dtype=np.uint64))
    )
    bound = 1 / np.sqrt(weight.shape[1])
    return torch.from_numpy(generator.uniform(-bound, bound, tuple(weight.shape)))


def _refuse_shared(loaded: LoadedModel, blocks: Sequence[int]) -> None:
    """Raise BadInput if training some blocks would change others."""
    owner: dict[int, int] = {}
    for number, block in enumerate(loaded.anatomy.blocks, 1):
        for parameter in block.parameters():
            other = owner.setdefault(id(parameter), number)
            if other != number and (number in blocks) != (other in blocks):
                raise BadInput(
                    f"--model {loaded.name}: blocks {other} and {number} share weights, so one cannot be trained "
                    "without the other; name both or neither with --blocks"
                )
