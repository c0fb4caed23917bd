"""One prediction against one label: every metric of the foreground, and of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stseg3d.evaluate.pairing import Pair
from stseg3d.metrics import Objects, confusion_per_class, score_masks, score_objects
from stseg3d.volumes import Meaning, open_volume, read_classes, read_label

FOREGROUND = "foreground"
Labels = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Row:
    """Metrics of one class in one case.

    Args:
        case: Id of the case.
        name: ``foreground``, the class as a number, or the name of a region.
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
    prediction = open_volume(pair.prediction)
    meaning: Meaning = "objects" if objects == "labels" else "classes" if per_class else "foreground"
    truth = read_label(pair.label, prediction, pair.label_values, meaning=meaning)
    ours, theirs = truth.clear(read_classes(prediction)), truth.classes
    spacing, settings = prediction.grid.spacing_mm, {"tolerance_mm": tolerance_mm, "boundary_mm": boundary_mm}
    settings["ignored_voxels"] = truth.ignored_voxels
    rows = [_row(pair.case, FOREGROUND, ours, theirs, spacing, settings, objects)]
    if per_class:
        inner = None if objects == "labels" else objects
        for value in confusion_per_class(ours, theirs):
            rows.append(_row(pair.case, str(value), ours == value, theirs == value, spacing, settings, inner))
        for name, values in pair.label_values.regions.items():
            masks = np.isin(ours, values), np.isin(theirs, values)
            if masks[0].any() or masks[1].any():
                rows.append(_row(pair.case, region_row(name), *masks, spacing, settings, inner))
    return rows


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
