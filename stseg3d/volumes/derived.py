"""Images as networks see them: along the world's axes, pictures as three colours, intensities standardised by the whole image."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stseg3d.geometry import Box, slabs
from stseg3d.volumes.volume import Array, CanonicalVolume, Volume, box_inside

COLOURS = 3

# Voxels of a slab, which is summed in float64.
SLAB_VOXELS = 1 << 22

# A standard deviation below this fraction of the mean is rounding: the channel is constant.
MIN_RELATIVE_SD = 1e-6


class ColourVolume:
    """A picture as red, green and blue: grey is repeated, transparency dropped.

    Args:
        volume: Picture of one (grey), two (grey, alpha), three (RGB) or four (RGBA) channels.

    Raises:
        ValueError: If it has more channels.
    """

    def __init__(self, volume: Volume) -> None:
        if volume.channels > COLOURS + 1:
            msg = f"{volume.name}: a picture must have at most 4 channels (RGBA), got {volume.channels}"
            raise ValueError(msg)
        self.volume = volume
        self.grid, self.dtype, self.name = volume.grid, volume.dtype, volume.name
        self.channels = COLOURS

    def read(self, box: Box | None = None) -> Array:
        """Colours in ``box``, of shape ``(3, *box.shape)``."""
        array = self.volume.read(box)
        return array[:COLOURS] if self.volume.channels >= COLOURS else np.repeat(array[:1], COLOURS, axis=0)


class StandardizedVolume:
    """An image whose channels have mean 0 and standard deviation 1 over all its voxels, as float32.

    Unlike normalising each crop, this keeps empty crops dark. A constant channel becomes zeros.

    Args:
        volume: Any image. It is read once, slab by slab, before the first voxels are returned; NaN and infinities stay as they are.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.grid, self.channels, self.name = volume.grid, volume.channels, volume.name

    @cached_property
    def moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of each channel over its finite voxels."""
        count, total, squares = np.zeros((3, self.channels))
        for slab in slabs(self.grid.shape, SLAB_VOXELS, self.channels):
            voxels = self.volume.read(slab).reshape(self.channels, -1).astype(np.float64)
            finite = np.isfinite(voxels)
            voxels[~finite] = 0
            count += finite.sum(axis=1)
            total += voxels.sum(axis=1)
            squares += np.square(voxels).sum(axis=1)
        mean = total / np.maximum(count, 1)
        return mean, np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, 0))

    def read(self, box: Box | None = None) -> Array:
        """Standardised voxels in ``box``, of shape ``(C, *box.shape)``."""
        mean, sd = (m.astype(np.float32).reshape(-1, *(1,) * len(self.grid.shape)) for m in self.moments)
        voxels = self.volume.read(box_inside(self.grid, box, self.name)).astype(np.float32)
        with np.errstate(invalid="ignore"):  # an infinite voxel of a constant channel
            return (voxels - mean) / np.where(sd > MIN_RELATIVE_SD * np.abs(mean), sd, np.float32(np.inf))


def network_view(volume: Volume, axcodes: str | None, *, colour: bool = False, standardize: bool = False) -> CanonicalVolume:
    """Image as networks and box policies see it, at inference and in training.

    Args:
        volume: The image.
        axcodes: Directions of the view's axes, such as ``"RAS"``; None keeps the file's own.
        colour: Whether it is a picture, see :class:`ColourVolume`.
        standardize: Whether to standardise intensities, see :class:`StandardizedVolume`.
    """
    seen: Volume = ColourVolume(volume) if colour else volume
    seen = StandardizedVolume(seen) if standardize else seen
    return CanonicalVolume(seen, axcodes or volume.grid.orientation)
