"""How much memory is free: a ceiling for batches, never what plans them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hcl_cli.errors import EnvironmentRefused

if TYPE_CHECKING:
    import torch

Job = TypeVar("Job")
Result = TypeVar("Result")
log = logging.getLogger(__name__)

SHARE = 0.6  # of the free memory may be used for keys and values


def usable_bytes(device: torch.device) -> int | None:
    """Bytes that keys and values may take on `device`; None where the system does not say."""
    import torch

    if device.type == "cuda":
        return int(SHARE * torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    free = [value for value in (_available(), _cgroup()) if value is not None]
    return int(SHARE * min(free)) if free else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out: CUDA has a class for it, MPS and the CPU's allocator only words."""
    import torch

    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in words)
    )


def _available(path: Path = Path("/proc/meminfo")) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None  # not Linux
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _cgroup(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    try:
        limit, used = (folder / "memory.max").read_text().strip(), (folder / "memory.current").read_text()
    except OSError:
        return None  # no control group of version 2
    return None if limit == "max" else max(0, int(limit) - int(used))


def run_or_halve(
    batch: list[Job],
    queue: list[list[Job]],
    run: Callable[[list[Job]], Result],
    device: torch.device,
    described: Callable[[Job], str],
    noun: str = "text",
) -> Result | None:
    """run(batch); None if memory ran out and its halves went back to the queue.

    Args:
        described: a job that does not fit by itself, for the message: "a text of 12 tokens".
        noun: what a job is called, in the singular.
    Raises:
        EnvironmentRefused: a single job does not fit.
    """
    import torch

    try:
        return run(batch)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        if len(batch) == 1:
            raise EnvironmentRefused(
                f"not enough memory on {device} for {described(batch[0])} ({first}); use a shorter one, "
                "--dtype bfloat16 or --device cpu"
            ) from error
        log.warning("a batch of %d %ss was halved: %s", len(batch), noun, first)
        half = len(batch) // 2
        queue.extend([batch[half:], batch[:half]])
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return None
