"""How well a prediction agrees with its label: voxels, surfaces, boundaries, objects.

**Empty masks** are treated the same everywhere. *Both empty*: they agree, and every metric has its best value: 1, or 0 for distances and
differences. *One empty*: metrics in ``[0, 1]`` are 0, except specificity, which is measured; distances are the image's diagonal in mm, the
worst possible. Leaving a distance out would favour a method that finds nothing, and an infinite one would drown the mean; Metrics Reloaded
(Maier-Hein et al. 2024, Nature Methods 21:195; Project-MONAI/MetricsReloaded#55) recommends the worst value. It depends on how much the
image shows, so :mod:`stseg3d.evaluate` counts such cases. Two metrics can be *undefined*, NaN: the relative volume difference if only the
label is empty, and the IoU of matched objects if none matches. NaN is left out of means, and counted.
"""

from stseg3d.metrics.objects import Objects, find_overlaps, score_objects
from stseg3d.metrics.scores import METRICS, score_masks
from stseg3d.metrics.surfaces import (
    average_distance,
    average_distance_from_label,
    average_distance_from_prediction,
    hausdorff,
    surface_dice,
    surface_distances,
)
from stseg3d.metrics.voxels import OVERLAPS, Confusion, confusion, dice, iou, precision, recall, specificity, volume_difference

__all__ = [
    "METRICS",
    "OVERLAPS",
    "Confusion",
    "Objects",
    "average_distance",
    "average_distance_from_label",
    "average_distance_from_prediction",
    "confusion",
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
