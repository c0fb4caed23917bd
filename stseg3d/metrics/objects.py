"""How many of the label's objects the prediction has: found, missed, false, F1, panoptic quality.

An object is either a label value above 0 (``"labels"``: an instance map, or one class per object, as for vertebrae) or a connected
component of the voxels above 0 (``"components"``). The values do not matter: objects are matched one to one by overlap, where their IoU is
*above* a threshold. Above 0.5 such a match is unique; below, it is the match with the most pairs and, among those, the greatest sum of IoU
(an optimal assignment). For empty masks, see :mod:`stseg3d.metrics`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stseg3d.metrics.surfaces import tight_slices
from stseg3d.metrics.voxels import check_shapes
from stseg3d.ops.components import structure

Objects = Literal["labels", "components"]
FOUND_IOU = 0.1  # usual for detection: nnDetection (Baumgartner et al. 2021, MICCAI) and its challenges


@dataclass(frozen=True, slots=True, eq=False)
class Overlaps:
    """Objects of a prediction and a label, and where they overlap."""

    predictions: int  # how many objects the prediction has
    labels: int  # how many the label has
    pairs: NDArray[np.int64]  # indices of overlapping objects, of shape `(n, 2)`: the prediction's and the label's
    iou: NDArray[np.float64]  # IoU of each pair, above 0

    def match(self, above: float) -> NDArray[np.float64]:
        """IoU of each pair in the best one-to-one match of pairs whose IoU is greater than ``above``."""
        from scipy.optimize import linear_sum_assignment
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        near = self.iou > above
        (ours, theirs), iou = self.pairs[near].T, self.iou[near]
        graph = coo_array((iou, (ours, theirs + self.predictions)), shape=(self.predictions + self.labels,) * 2)
        cluster = connected_components(graph, directed=False)[1][ours] if len(iou) else ours
        order = np.argsort(cluster, kind="stable")
        found = []
        for group in np.split(order, np.flatnonzero(np.diff(cluster[order])) + 1):
            if len(group) < 2:
                found.append(iou[group])
                continue
            (rows, i), (columns, j) = (np.unique(ids[group], return_inverse=True) for ids in (ours, theirs))
            value = np.zeros((len(rows), len(columns)))
            value[i, j] = iou[group]
            # One more pair is worth more than any sum of IoU.
            chosen = value[linear_sum_assignment(value + len(group) * (value > 0), maximize=True)]
            found.append(chosen[chosen > 0])
        return np.concatenate(found)


def find_overlaps(prediction: NDArray[Any], label: NDArray[Any]) -> Overlaps:
    """Objects of two maps of ids, 0 outside, and their overlaps.

    Raises:
        ValueError: If the shapes differ.
    """
    check_shapes(prediction, label)
    top = int(label.max(initial=0)) + 1
    keys, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for predicted, true in zip(np.atleast_1d(prediction), np.atleast_1d(label), strict=True):  # slab by slab: 8 bytes a voxel
        some = (predicted > 0) | (true > 0)
        key, count = np.unique(predicted[some].astype(np.int64) * top + true[some].astype(np.int64), return_counts=True)
        keys.append(key)
        counts.append(count)
    key, where = np.unique(np.concatenate(keys), return_inverse=True)
    voxels = np.bincount(where, weights=np.concatenate(counts), minlength=len(key))
    (ours, i), (theirs, j) = (np.unique(ids, return_inverse=True) for ids in (key // top, key % top))
    size, true_size = np.bincount(i, weights=voxels), np.bincount(j, weights=voxels)
    both = (ours[i] > 0) & (theirs[j] > 0) if len(key) else np.zeros(0, bool)
    i, j, shared = i[both], j[both], voxels[both]
    # Ids are indices now; the lowest is dropped if it stands for zero, the background.
    zero, true_zero = int(0 in ours), int(0 in theirs)
    pairs = np.stack([i - zero, j - true_zero], axis=1)
    return Overlaps(len(ours) - zero, len(theirs) - true_zero, pairs, shared / (size[i] + true_size[j] - shared))


def score_objects(prediction: NDArray[Any], label: NDArray[Any], *, objects: Objects = "labels") -> dict[str, float]:
    """Every object metric of one case, by its name in :data:`stseg3d.metrics.METRICS`.

    An object counts as found, and a predicted one as true, if it has a match with an IoU above :data:`FOUND_IOU`.

    Args:
        prediction: Map of ids of shape ``S``, 0 outside; for ``"components"`` a mask, above 0 inside.
        label: True map of the same shape.
        objects: What an object is: a value, ``"labels"``, or a connected component, ``"components"``, of voxels that share a
            face, an edge or a corner.

    Raises:
        ValueError: If the shapes differ, or ``objects`` is something else.
    """
    if objects not in ("labels", "components"):
        msg = f'objects must be "labels" or "components", got {objects!r}'
        raise ValueError(msg)
    check_shapes(prediction, label)
    box = tight_slices((prediction > 0) | (label > 0))
    maps = [prediction[box], label[box]]
    if objects == "components":
        maps = [ndimage.label(ids > 0, structure(ids.ndim, 26))[0] for ids in maps]
    overlaps = find_overlaps(*maps)
    found = len(overlaps.match(FOUND_IOU))
    half = overlaps.match(0.5)
    whole = (overlaps.predictions + overlaps.labels) / 2
    return {
        "objects_found": found,
        "objects_missed": overlaps.labels - found,
        "objects_false": overlaps.predictions - found,
        "object_f1_10": len(overlaps.match(0.1)) / whole if whole else 1.0,
        "object_f1_50": len(half) / whole if whole else 1.0,
        "object_iou": float(half.mean()) if len(half) else float("nan") if whole else 1.0,
        "panoptic_quality": float(half.sum()) / whole if whole else 1.0,
    }
