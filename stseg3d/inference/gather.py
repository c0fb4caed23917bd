"""Crops on their way from a volume to a network, and what the network said on its way back.

On the CPU a crop is resampled by numpy as it is read. Any other device is given the voxels as they are stored, integers of one or two bytes
most often, and resamples them itself; a thread reads the next batch while the network runs. That has been tested on the CPU, as if it
were another device, and on no GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stseg3d.geometry import Box
from stseg3d.inference.stages import Stage
from stseg3d.ops.resample import SLAB_VOXELS, axis_operator, count_not_finite, resample_volume
from stseg3d.volumes import Volume

Item = TypeVar("Item")
Result = TypeVar("Result")

# Unsigned types that PyTorch does hardly more with than copy: the signed type of the same bits, a wider one, and the bits that count.
UNSIGNED = {torch.uint16: (torch.int16, torch.int32, 0xFFFF), torch.uint32: (torch.int32, torch.int64, 0xFFFFFFFF)}


@dataclass(frozen=True)
class Gather:
    """Network inputs from boxes of a volume.

    Args:
        stage: Input of the network.
        device: Where the network is.
        on_device: Whether crops are resampled there, and read ahead; by default on any device but the CPU.
    """

    stage: Stage
    device: torch.device
    on_device: bool | None = None
    _reading: Lock = field(default_factory=Lock, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.on_device is None:
            object.__setattr__(self, "on_device", self.device.type != "cpu")

    def read(self, volume: Volume, box: Box) -> Tensor:
        """Voxels of a box, in memory of the host.

        As stored if the device resamples them; else, or if they are too many to be read at once, as float32 at the network's size.
        Any thread may call it; a volume is read by one at a time.

        Raises:
            ValueError: If voxels are NaN or infinite.
        """
        with self._reading:
            if self.on_device and volume.channels * box.voxels <= SLAB_VOXELS:
                crop: NDArray[Any] = volume.read(box)
                bad = count_not_finite(crop)
            else:
                crop, bad = resample_volume(volume, self.stage.size, box)
        if bad:
            msg = f"{volume.name}: voxels must be finite, got {bad} NaN or infinite in {box}"
            raise ValueError(msg)
        tensor = torch.from_numpy(crop.astype(np.float32) if crop.dtype == np.uint64 else crop)
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def prepare(self, voxels: Tensor) -> Tensor:
        """Network input ``(C, *size)``, float32, on the device, of what :meth:`read` gave."""
        # A lower precision is the network's matter, not that of intensities.
        with torch.autocast(self.device.type, enabled=False):
            return self.stage.prepare(resample_tensor(voxels.to(self.device, non_blocking=voxels.is_pinned()), self.stage.size))

    def fetch(self, probabilities: Tensor) -> NDArray[Any]:
        """Probabilities in memory of the host; from another device in one copy, as float16."""
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


def resample_tensor(voxels: Tensor, shape: Sequence[int]) -> Tensor:
    """As :func:`stseg3d.ops.resample.resample`, by the same operators, on the tensor's device.

    Args:
        voxels: Image ``(C, *S)`` of any real type; one of its float32 at ``shape`` stays as it is.
        shape: Wanted space shape.

    Returns:
        Image ``(C, *shape)``, float32. Matrices are multiplied in full float32 unless the program has set PyTorch to TF32.
    """
    image = as_float32(voxels)
    changed = [a for a, n in enumerate(shape) if n != voxels.shape[a + 1]]
    # The axis that shrinks most goes first: what follows then works on less.
    for axis in sorted(changed, key=lambda a: shape[a] / voxels.shape[a + 1]):
        operator = _operator(voxels.shape[axis + 1], int(shape[axis]), image.device)
        image = (image.movedim(axis + 1, -1) @ operator.T).movedim(-1, axis + 1)
    return image.contiguous()


def as_float32(voxels: Tensor) -> Tensor:
    """The same numbers as float32, of any real type; wide unsigned integers by operations that every device has."""
    if voxels.dtype in UNSIGNED:
        signed, wider, bits = UNSIGNED[voxels.dtype]
        voxels = voxels.view(signed).to(wider) & bits
    return voxels.to(torch.float32)


@lru_cache(maxsize=256)
def _operator(size: int, to: int, device: torch.device) -> Tensor:
    return torch.from_numpy(axis_operator(size, to)).to(device)
