"""Every metric: name, title, unit and which way is better; and all metrics of one case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from numpy.typing import NDArray

from stseg3d.metrics.boundary import WIDTH_FRACTION, boundary_confusions
from stseg3d.metrics.surfaces import (
    average_distance,
    average_distance_from_label,
    average_distance_from_prediction,
    drop_flat_axes,
    hausdorff,
    surface_dice,
    surface_distances,
)
from stseg3d.metrics.voxels import OVERLAPS, confusion, iou, specificity, volume_difference


@dataclass(frozen=True, slots=True)
class Metric:
    """Description of a metric, for tables and figures."""

    name: str  # key of its values
    title: str  # name for readers
    unit: str  # `"mm"`, `"mm3"`, or empty for a plain number
    higher_is_better: bool | None  # None where nearer to 0 is better
    group: Literal["voxels", "surfaces", "objects"]  # what it is computed from: `"voxels"`, `"surfaces"` or `"objects"`

    @property
    def heading(self) -> str:
        """Title with its unit, as on an axis: ``HD95 [mm]``."""
        return f"{self.title} [{self.unit}]" if self.unit else self.title


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("dice", "Dice", "", True, "voxels"),
        Metric("iou", "IoU", "", True, "voxels"),
        Metric("precision", "Precision", "", True, "voxels"),
        Metric("recall", "Recall", "", True, "voxels"),
        Metric("specificity", "Specificity", "", True, "voxels"),
        Metric("volume_difference", "Relative volume difference", "", None, "voxels"),
        Metric("volume_difference_mm3", "Volume difference", "mm3", None, "voxels"),
        Metric("boundary_iou", "Boundary IoU", "", True, "surfaces"),
        Metric("boundary_iou_fixed", "Boundary IoU, fixed width", "", True, "surfaces"),
        Metric("hd95_mm", "HD95", "mm", False, "surfaces"),
        Metric("assd_mm", "Average surface distance", "mm", False, "surfaces"),
        Metric("asd_prediction_mm", "Average distance, prediction to label", "mm", False, "surfaces"),
        Metric("asd_label_mm", "Average distance, label to prediction", "mm", False, "surfaces"),
        Metric("nsd", "Normalised surface Dice", "", True, "surfaces"),
        Metric("objects_found", "Objects found", "", True, "objects"),
        Metric("objects_missed", "Objects missed", "", False, "objects"),
        Metric("objects_false", "False objects", "", False, "objects"),
        Metric("object_f1_10", "Object F1 at IoU 0.1", "", True, "objects"),
        Metric("object_f1_50", "Object F1 at IoU 0.5", "", True, "objects"),
        Metric("object_iou", "IoU of matched objects", "", True, "objects"),
        Metric("panoptic_quality", "Panoptic quality", "", True, "objects"),
    )
}


def score_masks(
    prediction: NDArray[Any],
    label: NDArray[Any],
    spacing_mm: Sequence[float],
    *,
    tolerance_mm: float = 1.0,
    boundary_mm: float = 2.0,
    ignored_voxels: int = 0,
) -> dict[str, float]:
    """Every metric of two masks, by its name in :data:`METRICS`; those of objects are in :func:`stseg3d.metrics.score_objects`.

    Args:
        prediction: Mask or label map of shape ``S``; values above 0 count. Axes of one voxel are dropped for all but volumes.
        label: Mask or label map of the same shape.
        spacing_mm: Spacing of each axis of ``S``.
        tolerance_mm: For ``nsd``: surfaces no farther apart agree.
        boundary_mm: For ``boundary_iou_fixed``: width of the boundary. For ``boundary_iou`` it is 2 % of the image's diagonal.
        ignored_voxels: Voxels, 0 in both, that are not of the image, for ``specificity``.

    Raises:
        ValueError: If the shapes differ, the spacing is not one positive number an axis, or a length is negative.
    """
    if tolerance_mm < 0:
        msg = f"tolerance_mm must not be negative, got {tolerance_mm}"
        raise ValueError(msg)
    ours, theirs, spacing = drop_flat_axes(prediction > 0, label > 0, spacing_mm)
    counts = confusion(ours, theirs)
    distances = surface_distances(ours, theirs, spacing)
    boundaries = boundary_confusions(ours, theirs, spacing, [WIDTH_FRACTION * distances.worst_mm, boundary_mm])
    return {
        **{name: metric(counts) for name, metric in OVERLAPS.items()},
        "specificity": specificity(counts, label.size - ignored_voxels),
        "volume_difference": volume_difference(counts),
        "volume_difference_mm3": (counts.prediction_voxels - counts.label_voxels) * prod(map(float, spacing_mm)),
        "boundary_iou": iou(boundaries[0]),
        "boundary_iou_fixed": iou(boundaries[1]),
        "hd95_mm": hausdorff(distances),
        "assd_mm": average_distance(distances),
        "asd_prediction_mm": average_distance_from_prediction(distances),
        "asd_label_mm": average_distance_from_label(distances),
        "nsd": surface_dice(distances, tolerance_mm),
    }
