"""One prediction against one label: every metric of the foreground, and of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stseg3d.evaluate.pairing import Pair
from stseg3d.metrics import Objects, confusion_per_class, score_masks, score_objects
from stseg3d.volumes import Volume, open_label

FOREGROUND = "foreground"
Labels = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Row:
    """Metrics of one class in one case.

    Args:
        case: Id of the case.
        name: ``foreground``, or the class as a number.
        values: Metrics by their names in :data:`stseg3d.metrics.METRICS`.
        prediction_voxels: Voxels of the class in the prediction.
        label_voxels: Voxels of the class in the label.
    """

    case: str
    name: str
    values: dict[str, float]
    prediction_voxels: int
    label_voxels: int

    def as_dict(self) -> dict[str, Any]:
        """Flat dictionary for CSV and JSON."""
        voxels = {"prediction_voxels": self.prediction_voxels, "label_voxels": self.label_voxels}
        return {"case": self.case, "class": self.name, **self.values, **voxels}


def evaluate_case(
    pair: Pair, *, per_class: bool = False, tolerance_mm: float = 1.0, boundary_mm: float = 2.0, objects: Objects | None = None
) -> list[Row]:
    """Metrics of one case: of the foreground (label above 0) and, if asked, of each class that occurs in either file.

    Args:
        pair: The two files.
        per_class: Whether each class has a row, too.
        tolerance_mm: For ``nsd``: surfaces no farther apart agree.
        boundary_mm: For ``boundary_iou_fixed``: width of the boundary.
        objects: What an object is, see :func:`stseg3d.metrics.score_objects`; by default objects are not scored. ``"labels"`` are scored
            for the foreground only, ``"components"`` for each row's class.

    Raises:
        ValueError: If the two are not on the same grid, or either is not a label map.
    """
    prediction = open_label(pair.prediction)
    ours = read_classes(prediction)
    foreground = not per_class and objects != "labels"
    label = open_label(pair.label, prediction.grid, foreground=foreground, binary=int(ours.max(initial=0)) <= 1)
    _check_grids(pair, prediction, label)
    theirs = read_classes(label)
    lengths = {"tolerance_mm": tolerance_mm, "boundary_mm": boundary_mm}
    rows = [_row(pair.case, FOREGROUND, ours, theirs, prediction.grid.spacing_mm, lengths, objects)]
    if per_class:
        inner = None if objects == "labels" else objects
        for value in confusion_per_class(ours, theirs):
            rows.append(_row(pair.case, str(value), ours == value, theirs == value, prediction.grid.spacing_mm, lengths, inner))
    return rows


def _row(
    case: str, name: str, prediction: Labels, label: Labels, spacing_mm: Sequence[float], lengths: dict[str, float], objects: Objects | None
) -> Row:
    values = score_masks(prediction, label, spacing_mm, **lengths)
    if objects:
        values |= score_objects(prediction, label, objects=objects)
    return Row(case, name, values, int(np.count_nonzero(prediction)), int(np.count_nonzero(label)))


def _check_grids(pair: Pair, prediction: Volume, label: Volume) -> None:
    ours, theirs = prediction.grid, label.grid
    if ours.is_close(theirs):
        return
    what = f"shape {ours.shape} and {theirs.shape}"
    if ours.shape == theirs.shape:
        what = f"affine {np.round(ours.affine, 4).tolist()} and {np.round(theirs.affine, 4).tolist()}"
    msg = f"prediction {pair.prediction} and label {pair.label} must be on the same grid, got {what}"
    raise ValueError(msg)


def read_classes(volume: Volume) -> NDArray[np.integer]:
    """The label map in a file, of shape ``(*S)``.

    Raises:
        ValueError: If it has several channels, or a value that is negative or not whole.
    """
    if volume.channels != 1:
        msg = f"{volume.name}: a label map must have one channel, got {volume.channels}"
        raise ValueError(msg)
    array: NDArray[Any] = volume.read()[0]
    if array.dtype.kind == "f":
        whole = array.astype(np.int32)
        if not np.array_equal(whole, array):
            msg = f"{volume.name}: a label map must hold whole numbers, got {array[whole != array][0]}"
            raise ValueError(msg)
        array = whole
    if array.min(initial=0) < 0:
        msg = f"{volume.name}: a label map must not be negative, got {array.min()}"
        raise ValueError(msg)
    return array
