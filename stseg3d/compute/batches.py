"""Crops together: as many as a processor is quickest with, and as fit into the device's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

# What allocators say, and libraries that ask them: that of the CPU, of MPS and XPU, cuDNN and cuBLAS.
OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
# Voxels of a batch beyond which a processor takes longer for each: its caches are full (tests/benchmarks/bench_networks.py).
CPU_VOXELS = 1 << 19


def crops_at_once(most: int, size: Sequence[int], device: torch.device) -> int:
    """How many crops of a size go through a network together, at the most ``most``: on the CPU no more than are quick there."""
    return max(min(most, CPU_VOXELS // prod(size)), 1) if device.type == "cpu" else most


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is not enough memory, of the device or of the machine."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


@contextmanager
def fitting(stage: str, size: Sequence[int], precision: str, device: torch.device) -> Iterator[None]:
    """Run the network of a stage on one input: if memory runs out, the error says what to set.

    Raises:
        MemoryError: In place of whatever an allocator raised.
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
    """How many crops go through a network together: where memory runs out, half as many from then on.

    Args:
        size: How many at first.
    """

    size: int
    wanted: int = field(init=False)
    halved: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.wanted = self.size

    def run(self, work: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item]) -> list[Result]:
        """What ``work`` makes of the items, one result an item, given to it in batches.

        Raises:
            Exception: Whatever ``work`` raises; that memory ran out only if the batch was one item.
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
            # After the handler: the error holds the frames in which tensors still are.
            self.size = len(part) // 2
            self.halved += 1
            torch.cuda.empty_cache()  # does nothing where no GPU is in use
        return done
