"""A model without some of its blocks as a folder that any program loads with plain `from_pretrained`.

The folder appears under its name whole and checked, or not at all: it is written beside it, loaded again, and compared
with the model in memory: weights, what each block holds beside them, and logits of a few tokens. A configuration that
cannot describe what is left (a setting that follows from a block's number) is noticed there and refused.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hcl_cli.errors import BadInput, BadOption, EnvironmentRefused, HclError, shown
from hcl_cli.models.cut import checked_blocks, refuse_shared, without_blocks

if TYPE_CHECKING:
    from torch import Tensor

    from hcl_cli.models.load import LoadedModel

CARD = "README.md"
_ROUNDING = 16  # units in the last place of the largest logit, for a device that adds in another order
_N_TOKENS = 16
_REFUSALS = ("No space left", "os error", "I/O error")  # how the safetensors writer words what the system said


def check_export_folder(folder: Path) -> Path:
    """Where the checkpoint will be, links followed. Ask before hours of work.

    Raises:
        BadOption: a file, or a folder with something in it.
    """
    target = folder.resolve()
    if target.exists() and not target.is_dir():
        raise BadOption(f"--export {shown(folder)}: is not a folder; name a new one")
    if target.is_dir() and any(target.iterdir()):
        raise BadOption(f"--export {shown(folder)}: this folder is not empty; name a new one, or empty it first")
    return target


def export_checkpoint(
    loaded: LoadedModel, folder: Path, removed: Collection[int], *, provenance: Mapping[str, object]
) -> None:
    """Write the model without its blocks `removed`: weights (safetensors, in the dtype of `loaded`), configuration,
    generation settings, tokenizer and model card. `blocks_after(loaded, k)` gives the early-exit model at k.

    Args:
        folder: new or empty.
        removed: block numbers, 1..L.
        provenance: what the card says of how it was made, e.g. {"criterion": "avss", "hcl recipe": key}. It is written
            as it stands, its mark-up escaped: hand in no path and no host.
    Raises:
        BadOption: a folder that is not empty; no block, every block, or one that the model lacks.
        BadInput: blocks that share weights, or a rest that the configuration cannot describe.
        EnvironmentRefused: disk or memory.
    """
    check_export_folder(folder)
    gone = sorted(checked_blocks(loaded, removed))
    refuse_shared(loaded)
    with new_folder(folder) as beside, without_blocks(loaded, gone) as cut:
        save_model(cut, beside)
        (beside / CARD).write_text(model_card(loaded, cut, gone, provenance), encoding="utf-8")
        _compare(cut, beside, folder)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder that appears under its name when the context ends well, or not at all: yields one beside it to write in.

    Raises:
        BadOption: a file, or a folder with something in it.
        EnvironmentRefused: the disk refuses.
    """
    target = check_export_folder(folder)
    beside = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with _refusing(folder):
            target.parent.mkdir(parents=True, exist_ok=True)
            beside.mkdir()
            yield beside
            _settle(beside)
            if target.exists():
                target.rmdir()
            beside.rename(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def model_card(
    loaded: LoadedModel, cut: LoadedModel, removed: Collection[int], provenance: Mapping[str, object]
) -> str:
    """The card of a cut model as Markdown."""
    n_layers, gone = loaded.n_layers, sorted(removed)
    early = gone[0] == cut.n_layers + 1
    name = markdown_cell(loaded.name)
    what = (
        f"The first {cut.n_layers} of the {n_layers} blocks of {name}, with its own final norm and head: it says what "
        f"{name} says at exit layer {cut.n_layers}."
        if early
        else f"{name} without {len(gone)} of its {n_layers} blocks."
    )
    left = sum(weight.numel() for weight in cut.model.parameters())
    whole = left + sum(weight.numel() for block in gone for weight in loaded.anatomy.blocks[block - 1].parameters())
    rows: dict[str, object] = {
        "base model": loaded.name,
        f"blocks removed, of 1..{n_layers}": ", ".join(map(str, gone)),
        "blocks left": cut.n_layers,
        "parameters": f"{left:,} of {whole:,}",
        "dtype of the weights": str(loaded.dtype).removeprefix("torch."),
        **provenance,
    }
    table = "\n".join(f"| {markdown_cell(key)} | {markdown_cell(value)} |" for key, value in rows.items())
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags:
- pruned
---

# {name}, {"early exit" if early else "pruned"}: {cut.n_layers} of {n_layers} blocks

{what} The blocks that are left are renumbered from 0; no weight was changed or trained. Written by `hcl prune`.

| | |
| --- | --- |
{table}

Load it with `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained`. What it can still do has to be
measured: this card makes no claim about it. The licence is that of the base model.
"""


def markdown_cell(value: object) -> str:
    """A value from outside in one cell of a table: no mark-up, no line break, no HTML."""
    return "".join(f"\\{char}" if char in "\\`*_[]<>|~&$" else char for char in shown(value, 400))


@contextmanager
def _refusing(folder: Path) -> Iterator[None]:
    """Turn what the disk says into one line; safetensors has an error of its own for it."""
    from safetensors import SafetensorError

    try:
        yield
    except OSError as error:
        raise _refused(folder, error.strerror or str(error)) from error
    except SafetensorError as error:
        if not any(words in str(error) for words in _REFUSALS):
            raise
        raise _refused(folder, str(error).partition(" at path ")[0]) from error


def _refused(folder: Path, reason: str) -> EnvironmentRefused:
    return EnvironmentRefused(
        f"--export {shown(folder)}: cannot be written ({shown(reason)}), nothing was left there; free some space or "
        "name another folder"
    )


def save_model(cut: LoadedModel, folder: Path) -> None:
    """Weights (safetensors), configuration, generation settings and tokenizer of a loaded model as it stands."""
    from transformers.utils import logging as library_logging

    was_shown = library_logging.is_progress_bar_enabled()
    library_logging.disable_progress_bar()
    try:
        cut.model.save_pretrained(folder)
        cut.tokenizer.save_pretrained(folder)
    except ValueError as error:
        # The library refuses generation settings that contradict each other where they were changed since they were
        # read, and configurations that its own checks do not pass.
        reason = shown(str(error).strip().splitlines()[0])
        raise BadInput(f"--model {cut.name}: the library cannot save its settings ({reason}); correct them") from error
    finally:
        if was_shown:
            library_logging.enable_progress_bar()


def _compare(cut: LoadedModel, written: Path, folder: Path) -> None:
    """Load what was written and hold it to the model in memory.

    Raises:
        BadInput: if it does not load, or is not the same model.
        EnvironmentRefused: not enough memory for a second model.
    """
    from hcl_cli.models.load import load_model

    dtype = str(cut.dtype).removeprefix("torch.")
    try:
        found = load_model(written, dtype=dtype, device=str(cut.device), attention=cut.attention)
    except EnvironmentRefused as error:
        raise EnvironmentRefused(
            f"--export {shown(folder)}: not enough memory to load it again for the check; use --dtype bfloat16 or "
            "--device cpu"
        ) from error
    except HclError as error:
        reason = shown(str(error).replace(str(written), cut.name), 300)
        raise _different(cut, folder, f"it does not load again: {reason}") from error
    if how := _difference(cut, found):
        raise _different(cut, folder, how)


def _difference(cut: LoadedModel, found: LoadedModel) -> str | None:
    """How the model that was read differs from the one in memory; None if it does not."""
    import torch

    if found.n_layers != cut.n_layers:
        return f"it would have {found.n_layers} blocks where it has {cut.n_layers}"
    for number, (ours, theirs) in enumerate(zip(cut.anatomy.blocks, found.anatomy.blocks, strict=True), 1):
        one, two = _settings(ours), _settings(theirs)
        for name in sorted(one.keys() | two.keys()):
            if one.get(name) != two.get(name):
                return f"its block {number} would have {name} {two.get(name)!r} where it has {one.get(name)!r}"
    weights, written = cut.model.state_dict(), found.model.state_dict()
    for name in sorted(weights.keys() | written.keys()):
        pair = weights.get(name), written.get(name)
        if pair[0] is None or pair[1] is None or not torch.equal(pair[0], pair[1]):
            return f"its weight {name} would be another"
    logits = _logits(cut)
    worst = float((logits - _logits(found)).abs().max())
    allowed = _ROUNDING * torch.finfo(cut.dtype).eps * float(logits.abs().max())
    return None if worst <= allowed else f"its logits would differ by {worst:.2g}"


def _settings(block: Any) -> dict[str, object]:
    """What a block and its parts hold beside weights and tensors: its number, window, scale, kind of attention."""
    return {
        f"{part}.{name}".lstrip("."): value
        for part, module in block.named_modules()
        for name, value in vars(module).items()
        if not name.startswith("_") and isinstance(value, bool | int | float | str | None)
    }


def _logits(loaded: LoadedModel) -> Tensor:
    import torch

    vocab = int(loaded.model.get_input_embeddings().weight.shape[0])
    n_tokens = min(_N_TOKENS, loaded.max_positions or _N_TOKENS)
    ids = (torch.arange(n_tokens, device=loaded.device) * 7919 + 11).remainder(vocab)[None]
    with torch.inference_mode():
        logits: Tensor = loaded.model(input_ids=ids, use_cache=False).logits
    return logits.cpu().double()


def _different(cut: LoadedModel, folder: Path, how: str) -> BadInput:
    kind = type(cut.anatomy.config).__name__
    return BadInput(
        f"--export {shown(folder)}: a {kind} cannot describe {cut.name} without these blocks ({how}); nothing was "
        "written. Remove the last blocks only (--keep-first), or other ones"
    )


def _settle(folder: Path) -> None:
    """As readable as any other new file (safetensors makes its own private), and on the disk before it has its name."""
    mask = os.umask(0)
    os.umask(mask)
    folder.chmod(0o777 & ~mask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~mask)
            with path.open("rb") as file:
                os.fsync(file.fileno())
