"""The slice of a volume to show, as people look at it: patients in the radiologist's orientation, pictures as they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stseg3d.geometry import Box
from stseg3d.report.views import best_slices

Rectangle = tuple[float, float, float, float]  # top, left, bottom, right, in pixels, half-open


@dataclass(frozen=True, slots=True)
class Slice:
    """One slice across an axis of a canonical (RAS) volume, or a picture of depth 1.

    Args:
        axis: The axis it lies across.
        index: Its index along that axis.
        lies_flat: Whether this is a picture without a patient, whose axes run to the right and down, not to the left and up.
    """

    axis: int
    index: int
    lies_flat: bool = False

    def pixels(self, array: NDArray[Any]) -> NDArray[Any]:
        """Rows and columns of the slice: ``(*S) -> (rows, columns)``, ``(C, *S) -> (rows, columns, C)``."""
        plane = np.take(array, self.index, axis=array.ndim - 3 + self.axis)
        plane = np.moveaxis(plane, 0, -1) if array.ndim == 4 else plane
        turned: NDArray[Any] = np.swapaxes(plane, 0, 1)
        return turned if self.lies_flat else turned[::-1, ::-1]

    def rectangles(self, boxes: Iterable[Box], shape: Sequence[int]) -> list[Rectangle]:
        """The boxes that the slice cuts, in its rows and columns.

        Args:
            boxes: Boxes in voxels of the volume.
            shape: Shape of the volume, of three axes.
        """
        column_axis, row_axis = self._others()
        found = []
        for box in boxes:
            if not box.start[self.axis] <= self.index < box.stop[self.axis]:
                continue
            (left, right), (top, bottom) = ((box.start[a], box.stop[a]) for a in (column_axis, row_axis))
            if not self.lies_flat:
                left, right = shape[column_axis] - right, shape[column_axis] - left
                top, bottom = shape[row_axis] - bottom, shape[row_axis] - top
            found.append((float(top), float(left), float(bottom), float(right)))
        return found

    def pixel_mm(self, spacing_mm: Sequence[float]) -> tuple[float, float]:
        """Height and width of a pixel."""
        column_axis, row_axis = self._others()
        return float(spacing_mm[row_axis]), float(spacing_mm[column_axis])

    def _others(self) -> tuple[int, int]:
        first, second = (axis for axis in range(3) if axis != self.axis)
        return first, second


def best_slice(mask: NDArray[Any], *, lies_flat: bool = False) -> Slice:
    """The slice with most voxels of a mask, across any axis; the middle one across the shortest axis if the mask is empty.

    Args:
        mask: Label map or mask of three axes; if one has length 1, the slice lies across it.
        lies_flat: Whether this is a picture without a patient, see :class:`Slice`.
    """
    flat = [axis for axis, n in enumerate(mask.shape) if n == 1]
    if flat:
        return Slice(flat[-1], 0, lies_flat)
    at = best_slices(mask, [])
    if not mask.any():
        shortest = int(np.argmin(mask.shape))
        return Slice(shortest, at[shortest], lies_flat)
    counts = [np.count_nonzero(np.take(mask, index, axis=axis)) for axis, index in enumerate(at)]
    best = int(np.argmax(counts))
    return Slice(best, at[best], lies_flat)
