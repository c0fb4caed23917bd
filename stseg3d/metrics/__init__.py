"""How well a prediction agrees with its label: voxels, surfaces, boundaries, objects.

**Empty masks**, the same everywhere. *Both are empty*: they agree, and every metric has its best value: 1, and 0 for distances and
differences. *One is empty*: what lies in ``[0, 1]`` is 0, but specificity, which is measured; a distance is the image's diagonal in mm,
the worst there is. A distance left out would raise the mean of a method that finds nothing, and an infinite one would drown it; the
worst value is what Metrics Reloaded (Maier-Hein et al. 2024, Nature Methods 21:195; Project-MONAI/MetricsReloaded#55) asks for. It depends
on how much the image shows, so :mod:`stseg3d.evaluate` counts such cases. *Undefined*, NaN, are two: the relative volume difference where
only the label is empty, and the IoU of matched objects where none matches. A NaN stays out of a mean and is counted beside it.
"""

from stseg3d.metrics.objects import Objects, Overlaps, find_overlaps, score_objects
from stseg3d.metrics.scores import METRICS, Metric, score_masks
from stseg3d.metrics.surfaces import (
    SurfaceDistances,
    average_distance,
    average_distance_from_label,
    average_distance_from_prediction,
    hausdorff,
    surface_dice,
    surface_distances,
)
from stseg3d.metrics.voxels import (
    OVERLAPS,
    Confusion,
    confusion,
    confusion_per_class,
    dice,
    iou,
    precision,
    recall,
    specificity,
    volume_difference,
)

__all__ = [
    "METRICS",
    "OVERLAPS",
    "Confusion",
    "Metric",
    "Objects",
    "Overlaps",
    "SurfaceDistances",
    "average_distance",
    "average_distance_from_label",
    "average_distance_from_prediction",
    "confusion",
    "confusion_per_class",
    "dice",
    "find_overlaps",
    "hausdorff",
    "iou",
    "precision",
    "recall",
    "score_masks",
    "score_objects",
    "specificity",
    "surface_dice",
    "surface_distances",
    "volume_difference",
]
