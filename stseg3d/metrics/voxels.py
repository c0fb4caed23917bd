"""How well a prediction agrees with its label, from counts of voxels; for empty masks see :mod:`stseg3d.metrics`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Confusion:
    """Numbers of voxels of one class in both prediction and label, and in only one of them."""

    both: int  # voxels in both (true positives)
    prediction_only: int  # voxels in the prediction alone (false positives)
    label_only: int  # voxels in the label alone (false negatives)

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(self.both + other.both, self.prediction_only + other.prediction_only, self.label_only + other.label_only)

    @property
    def prediction_voxels(self) -> int:
        """Voxels of the class in the prediction."""
        return self.both + self.prediction_only

    @property
    def label_voxels(self) -> int:
        """Voxels of the class in the label."""
        return self.both + self.label_only


def confusion(prediction: NDArray[np.generic], label: NDArray[np.generic]) -> Confusion:
    """Counts of the foreground, all classes together, in label maps or masks of one shape; values above 0 are foreground.

    Raises:
        ValueError: If the shapes differ.
    """
    check_shapes(prediction, label)
    total = Confusion(0, 0, 0)
    for predicted, true in zip(np.atleast_1d(prediction), np.atleast_1d(label), strict=True):  # slab by slab: no full-size mask
        inside, wanted = predicted > 0, true > 0
        both = int(np.count_nonzero(inside & wanted))
        total += Confusion(both, int(np.count_nonzero(inside)) - both, int(np.count_nonzero(wanted)) - both)
    return total


def dice(counts: Confusion) -> float:
    """Twice the shared voxels over the sum of both, in ``[0, 1]``; 1 if both are empty."""
    return _share(2 * counts.both, counts.prediction_voxels + counts.label_voxels, counts)


def iou(counts: Confusion) -> float:
    """Voxels of the intersection over those of the union, in ``[0, 1]``; 1 if both are empty."""
    return _share(counts.both, counts.prediction_voxels + counts.label_only, counts)


def precision(counts: Confusion) -> float:
    """Fraction of the prediction that is in the label, in ``[0, 1]``; 1 if both are empty, 0 if only the prediction is."""
    return _share(counts.both, counts.prediction_voxels, counts)


def recall(counts: Confusion) -> float:
    """Fraction of the label that is in the prediction, in ``[0, 1]``; 1 if both are empty, 0 if only the label is."""
    return _share(counts.both, counts.label_voxels, counts)


def specificity(counts: Confusion, voxels: int) -> float:
    """Fraction of an image's voxels outside the label that are outside the prediction, too; 1 if the label is everywhere.

    It depends on how much background the image shows.
    """
    outside = voxels - counts.label_voxels
    return 1 - counts.prediction_only / outside if outside else 1.0


def volume_difference(counts: Confusion) -> float:
    """Volume of the prediction over that of the label, minus 1; 0 if both are empty, NaN if only the label is."""
    difference = counts.prediction_voxels - counts.label_voxels
    if not counts.label_voxels:
        return float("nan") if difference else 0.0
    return difference / counts.label_voxels


OVERLAPS: dict[str, Callable[[Confusion], float]] = {"dice": dice, "iou": iou, "precision": precision, "recall": recall}


def _share(part: int, whole: int, counts: Confusion) -> float:
    if counts == Confusion(0, 0, 0):
        return 1.0
    return part / whole if whole else 0.0


def check_shapes(prediction: NDArray[np.generic], label: NDArray[np.generic]) -> None:
    """Refuse arrays of different shapes.

    Raises:
        ValueError: If they differ.
    """
    if prediction.shape != label.shape:
        msg = f"prediction must have the label's shape {label.shape}, got {prediction.shape}"
        raise ValueError(msg)
