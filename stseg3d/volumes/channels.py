"""One image in several files, each of which holds some of its channels."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from stseg3d.geometry import Box
from stseg3d.volumes.volume import Array, Volume


class StackedVolume:
    """Images on one grid, whose channels follow each other; named after the first, whose header labels get.

    Args:
        volumes: At least one image. Boxes are read from each of them.

    Raises:
        ValueError: If they do not lie on one grid.
    """

    def __init__(self, volumes: Sequence[Volume]) -> None:
        first = volumes[0]
        for other in volumes[1:]:
            if not other.grid.is_close(first.grid):
                shapes = f"shape {first.grid.shape} and {other.grid.shape}" if first.grid.shape != other.grid.shape else "other affines"
                msg = f"{other.name}: channels of a case must lie on the grid of {first.name}, got {shapes}"
                raise ValueError(msg)
        self.volumes = list(volumes)
        self.grid, self.name = first.grid, first.name
        self.header = getattr(first, "header", None)
        self.channels = sum(volume.channels for volume in volumes)
        common = np.result_type(*(volume.dtype for volume in volumes))
        self.dtype: np.dtype[Any] = common if common.kind in "iu" else np.dtype(np.float32)

    def __copy__(self) -> StackedVolume:
        """The same image without the voxels that its files have read."""
        return StackedVolume([copy.copy(volume) for volume in self.volumes])

    def read(self, box: Box | None = None) -> Array:
        """Voxels in ``box``, of shape ``(C, *box.shape)``, in a type that holds those of all files."""
        found: Array = np.concatenate([volume.read(box) for volume in self.volumes], dtype=self.dtype, casting="unsafe")
        return found
