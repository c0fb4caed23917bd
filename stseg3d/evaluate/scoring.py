"""One prediction against one label: every metric of the foreground, and of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stseg3d.evaluate.pairing import Pair
from stseg3d.metrics import Objects, score_masks, score_objects
from stseg3d.volumes import Meaning, open_label, read_classes, read_label
from stseg3d.volumes.label_values import values_in

FOREGROUND = "foreground"
Labels = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Row:
    """Metrics of one class in one case."""

    case: str  # id of the case
    name: str  # `foreground`, the class as a number, or the name of a region
    values: dict[str, float]  # metrics by their names in `stseg3d.metrics.METRICS`
    prediction_voxels: int  # voxels of the class in the prediction
    label_voxels: int  # voxels of the class in the label

    def as_dict(self) -> dict[str, Any]:
        """Flat dictionary for CSV and JSON."""
        voxels = {"prediction_voxels": self.prediction_voxels, "label_voxels": self.label_voxels}
        return {"case": self.case, "class": self.name, **self.values, **voxels}


def evaluate_case(
    pair: Pair, *, per_class: bool = False, tolerance_mm: float = 1.0, boundary_mm: float = 2.0, objects: Objects | None = None
) -> list[Row]:
    """Metrics of one case: of the foreground (label above 0) and, if asked, of each class and each region that occurs in either file.

    A region is the union of its values, in both files.

    Where the label has the value that the data set calls ``"ignore"``, prediction and label are cleared, and no voxel is counted.

    Args:
        pair: The two files.
        per_class: Whether each class has a row, too, and each region that the data set names.
        tolerance_mm: For ``nsd``: surfaces no farther apart agree.
        boundary_mm: For ``boundary_iou_fixed``: width of the boundary.
        objects: What an object is, see :func:`stseg3d.metrics.score_objects`; by default objects are not scored. ``"labels"`` are scored
            for the foreground only, ``"components"`` for each row's class.

    Raises:
        ValueError: If the two are not on the same grid, or either is not a label map.
    """
    prediction = open_label(pair.prediction)
    labels = read_classes(prediction)
    meaning: Meaning = "objects" if objects == "labels" else "classes" if per_class else "foreground"
    binary = int(labels.max(initial=0)) <= 1
    truth = read_label(pair.label, prediction, pair.label_values, meaning=meaning, binary=binary)
    ours, theirs = truth.clear(labels), truth.classes
    spacing, settings = prediction.grid.spacing_mm, {"tolerance_mm": tolerance_mm, "boundary_mm": boundary_mm}
    settings["ignored_voxels"] = truth.ignored_voxels
    rows = [_row(pair.case, FOREGROUND, ours, theirs, spacing, settings, objects)]
    if per_class:
        inner = None if objects == "labels" else objects
        for value in classes_in(ours, theirs):
            rows.append(_row(pair.case, str(value), ours == value, theirs == value, spacing, settings, inner))
        for name, values in pair.label_values.regions.items():
            masks = np.isin(ours, values), np.isin(theirs, values)
            if masks[0].any() or masks[1].any():
                rows.append(_row(pair.case, region_row(name), *masks, spacing, settings, inner))
    return rows


def classes_in(*maps: Labels) -> list[int]:
    """Classes above 0 that occur in any of the label maps, in ascending order."""
    return sorted({value for labels in maps for value in values_in(labels)} - {0})


def region_row(name: str) -> str:
    """Name of a region's row, which is that of no class and not that of the foreground."""
    return f"{name} (region)" if name == FOREGROUND or name.isdecimal() else name


def _row(
    case: str,
    name: str,
    prediction: Labels,
    label: Labels,
    spacing_mm: Sequence[float],
    settings: Mapping[str, Any],
    objects: Objects | None,
) -> Row:
    values = score_masks(prediction, label, spacing_mm, **settings)
    if objects:
        values |= score_objects(prediction, label, objects=objects)
    return Row(case, name, values, int(np.count_nonzero(prediction)), int(np.count_nonzero(label)))
