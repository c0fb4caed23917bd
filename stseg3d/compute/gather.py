"""Crops on their way to a network's device, and probabilities on their way back.

While the network runs on any device but the CPU, a thread reads the next batch. This was tested with the CPU in the place of another
device, not on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor

from stseg3d.compute.inputs import prepare_input, read_voxels
from stseg3d.compute.stage import Stage
from stseg3d.geometry import Box
from stseg3d.volumes import Volume

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Gather:
    """Network inputs from boxes of a volume; on any device but the CPU, or as ``on_device`` says, resampled there and read ahead."""

    stage: Stage
    device: torch.device
    on_device: bool | None = None
    _reading: Lock = field(default_factory=Lock, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.on_device is None:
            object.__setattr__(self, "on_device", self.device.type != "cpu")

    def read(self, volume: Volume, box: Box) -> Tensor:
        """Voxels of a box in host memory, see :func:`stseg3d.compute.inputs.read_voxels`.

        Any thread may call it, but only one at a time may read a volume.

        Raises:
            ValueError: If voxels are NaN or infinite.
        """
        with self._reading:
            voxels = read_voxels(volume, self.stage.size, box, as_stored=bool(self.on_device))
        return voxels.pin_memory() if self.device.type == "cuda" else voxels

    def prepare(self, voxels: Tensor) -> Tensor:
        """Network input ``(C, *size)``, float32, on the device, from voxels that :meth:`read` returned."""
        return prepare_input(voxels.to(self.device, non_blocking=voxels.is_pinned()), self.stage, self.stage.size)

    def fetch(self, probabilities: Tensor) -> NDArray[Any]:
        """Probabilities in host memory; from another device in one copy, as float16."""
        fetched: NDArray[Any] = (probabilities.to(torch.float16) if self.on_device else probabilities).cpu().numpy()
        return fetched

    def in_order(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Results of ``work``, one at a time; with ``on_device`` a thread begins the next when one is handed over."""
        return _one_ahead(work, items) if self.on_device else map(work, items)


def _one_ahead(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    with ThreadPoolExecutor(1) as thread:
        begun: Future[Result] | None = None
        for item in items:
            following = thread.submit(work, item)
            if begun is not None:
                yield begun.result()
            begun = following
        if begun is not None:
            yield begun.result()
