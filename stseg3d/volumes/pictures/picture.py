"""What the readers of pictures find in a file's header, and the turn that EXIF asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from stseg3d.geometry import Grid
from stseg3d.volumes.volume import Array

# EXIF 2.32, tag 274: whether to exchange the axes of a stored picture, and then whether to flip x and y, so that it stands upright.
TURNS = {2: (0, 1, 0), 3: (0, 1, 1), 4: (0, 0, 1), 5: (1, 0, 0), 6: (1, 1, 0), 7: (1, 1, 1), 8: (1, 0, 1)}
ORIENTATION = 274


@dataclass(frozen=True)
class Picture:
    """A picture whose header has been read.

    Args:
        shape: Pixels along x, y and z, as stored.
        stored: Type of the values that ``load`` returns.
        channels: Number of channels.
        load: Returns the values, of shape ``(channels, *shape)``.
        spacing_mm: Spacing of the pixels, as stored.
        orientation: EXIF's orientation, 1 to 8; others count as 1.
        lossy: Whether the compression changes values.
        white_is_zero: Whether small values are bright, as stored; then ``load`` returns unsigned integers.
        step: Greatest common divisor of all values: 255 for a picture of 1 bit.
    """

    shape: tuple[int, int, int]
    stored: np.dtype[Any]
    channels: int
    load: Callable[[], Array]
    spacing_mm: tuple[float, ...] = (1.0, 1.0, 1.0)
    orientation: int = 1
    lossy: bool = False
    white_is_zero: bool = False
    step: int = 1

    @property
    def grid(self) -> Grid:
        """Grid of the upright picture; a picture has no position in a patient: its axes are the world's."""
        order = (1, 0, 2) if self.orientation in TURNS and TURNS[self.orientation][0] else (0, 1, 2)
        return Grid(tuple(self.shape[a] for a in order), spacing_mm=tuple(self.spacing_mm[a] for a in order))

    @property
    def load_upright(self) -> Callable[[], Array]:
        """Returns the values of the upright picture, of shape ``(channels, *grid.shape)``."""
        return partial(_upright, self.load, self.orientation) if self.orientation in TURNS else self.load


def _upright(load: Callable[[], Array], orientation: int) -> Array:
    exchange, *flips = TURNS[orientation]
    array = load()
    array = array.swapaxes(1, 2) if exchange else array
    flip_x, flip_y = (slice(None, None, -1 if flip else None) for flip in flips)
    return array[:, flip_x, flip_y]
