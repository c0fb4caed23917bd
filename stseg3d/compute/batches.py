"""Batches of crops: as many as a processor is quickest with, and as fit into the device's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

# In the messages of the CPU's allocator, of those of MPS and XPU, and of cuDNN and cuBLAS.
OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
# Larger batches take a CPU longer for each voxel, as its caches are full (tests/benchmarks/bench_networks.py).
MAX_CPU_VOXELS = 1 << 19


def crops_at_once(most: int, size: Sequence[int], device: torch.device) -> int:
    """Number of crops in a batch, at most ``most``; on the CPU no more than are quick there."""
    return max(min(most, MAX_CPU_VOXELS // prod(size)), 1) if device.type == "cpu" else most


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device or the machine has too little memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


@contextmanager
def fitting(stage: str, size: Sequence[int], precision: str, device: torch.device) -> Iterator[None]:
    """Context for a stage's network on one input, where running out of memory is an error that says what to set.

    Raises:
        MemoryError: In place of the allocator's error.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        msg = (
            f"size of the {stage} stage must fit into the memory of {device} one input at a time, got {tuple(size)} in {precision}: "
            f"set a smaller size, precision bfloat16 or device cpu ({str(error).splitlines()[0] if str(error) else 'out of memory'})"
        )
        raise MemoryError(msg) from error


@dataclass
class Batches:
    """Work in batches of an initial size, which is halved for good each time memory runs out."""

    size: int
    wanted: int = field(init=False)
    halved: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.wanted = self.size

    def run(self, work: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item]) -> list[Result]:
        """Results of ``work`` on batches of the items, one for each item.

        Raises:
            Exception: What ``work`` raises; running out of memory only if the batch was a single item.
        """
        done: list[Result] = []
        while len(done) < len(items):
            part = items[len(done) : len(done) + self.size]
            try:
                done += work(part)
                continue
            except (RuntimeError, MemoryError) as error:
                if len(part) == 1 or not ran_out_of_memory(error):
                    raise
            # After the handler, as the error keeps frames alive that hold tensors.
            self.size = len(part) // 2
            self.halved += 1
            torch.cuda.empty_cache()  # does nothing without a GPU
        return done
