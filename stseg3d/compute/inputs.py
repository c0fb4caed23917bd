"""Network inputs from the voxels of a volume: the same path for training and inference.

Voxels are read, checked, resampled to the network's size and prepared as its stage says. On the CPU numpy resamples them while they are
read. Any other device gets them as stored, usually integers of one or two bytes, and resamples them itself with the same operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stseg3d.compute.stage import Stage
from stseg3d.geometry import Box
from stseg3d.ops.resample import SLAB_VOXELS, axis_operator, count_not_finite, resample_volume
from stseg3d.volumes import Volume

# Unsigned types that PyTorch can hardly do more with than copy: the signed type of the same bits, a wider one, and a mask of the bits.
UNSIGNED = {torch.uint16: (torch.int16, torch.int32, 0xFFFF), torch.uint32: (torch.int32, torch.int64, 0xFFFFFFFF)}


def network_input(volume: Volume, stage: Stage, box: Box | None = None) -> Tensor:
    """Input ``(C, *size)``, float32, of a stage's network for a volume, or for a box of it.

    Args:
        volume: Canonical view of the image.
        stage: What the network is given.
        box: Part of the volume, in its voxels; by default all of it, in the shape that the stage gives the volume's grid.

    Raises:
        ValueError: If voxels are NaN or infinite.
    """
    shape = stage.shape_of(volume.grid) if box is None else stage.size
    return prepare_input(read_voxels(volume, shape, box), stage, shape)


def read_voxels(volume: Volume, shape: Sequence[int], box: Box | None = None, *, as_stored: bool = False) -> Tensor:
    """Voxels of a volume, or of a box of it, in host memory.

    Args:
        volume: Volume of ``C`` channels.
        shape: Space shape of the network's input.
        box: Part of the volume, in its voxels; by default all of it.
        as_stored: Leave the resampling to :func:`prepare_input`, unless there are too many voxels to be read at once.

    Returns:
        Image ``(C, *shape)``, float32; with ``as_stored`` ``(C, *box.shape)`` in the stored type.

    Raises:
        ValueError: If voxels are NaN or infinite.
    """
    if as_stored and volume.channels * (volume.grid.box if box is None else box).voxels <= SLAB_VOXELS:
        voxels: NDArray[Any] = volume.read(box)
        bad = count_not_finite(voxels)
    else:
        voxels, bad = resample_volume(volume, shape, box)
    if bad:
        msg = f"{volume.name}: voxels must be finite, got {bad} NaN or infinite" + ("" if box is None else f" in {box}")
        raise ValueError(msg)
    return torch.from_numpy(voxels.astype(np.float32) if voxels.dtype == np.uint64 else voxels)


def prepare_input(voxels: Tensor, stage: Stage, shape: Sequence[int]) -> Tensor:
    """Network input ``(C, *shape)``, float32, from voxels that :func:`read_voxels` returned, on their device."""
    # Intensities are prepared in float32; a lower precision is for the network only.
    with torch.autocast(voxels.device.type, enabled=False):
        return stage.prepare(resample_tensor(voxels, shape))


def append_rough(image: Tensor, rough: Tensor) -> Tensor:
    """Input of a fine network with ``rough_channel``: the prepared channels, then the rough probability ``(1, *size)``."""
    return torch.cat([image, rough.to(image.device)])


def resample_tensor(voxels: Tensor, shape: Sequence[int]) -> Tensor:
    """Image resampled on its own device, with the operators of :func:`stseg3d.ops.resample.resample`.

    Args:
        voxels: Image ``(C, *S)`` of any real type; float32 of the wanted shape stays as it is.
        shape: Wanted space shape.

    Returns:
        Image ``(C, *shape)``, float32. Matrices are multiplied in full float32 unless the program has set PyTorch to TF32.
    """
    image = as_float32(voxels)
    changed = [a for a, n in enumerate(shape) if n != voxels.shape[a + 1]]
    # The axis that shrinks most goes first, so that the others work on fewer voxels.
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
