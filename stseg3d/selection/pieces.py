"""Pieces: the components of a prediction against its label, from which the Dice under any rule for components follows at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stseg3d.ops.cleaning import FOREGROUND, class_boxes
from stseg3d.ops.components import find_components
from stseg3d.plan import Output


@dataclass(frozen=True, eq=False)
class Pieces:
    """Components of each class in one case, 26 neighbours; arrays have a value for each.

    Attributes:
        classes: Names of the classes, background first.
        regions: Classes of each region, by its name.
        values: Its class.
        voxels: Its voxels.
        counted: Those that are annotated.
        hits: Those that the label gives to each class above background, and to each region, ``(names, n)``.
        whole: Number of the component of all classes together that it is a part of.
        truth: Voxels of each class above background, and of each region, in the label.
        voxel_mm3: Volume of a voxel.
    """

    classes: tuple[str, ...]
    regions: Mapping[str, tuple[int, ...]]
    values: NDArray[np.intp]
    voxels: NDArray[np.intp]
    counted: NDArray[np.intp]
    hits: NDArray[np.intp]
    whole: NDArray[np.intp]
    truth: NDArray[np.intp]
    voxel_mm3: float = 1.0

    @classmethod
    def of(
        cls,
        prediction: NDArray[Any],
        truth: NDArray[Any],
        classes: Sequence[str],
        *,
        regions: Mapping[str, tuple[int, ...]] | None = None,
        ignored: NDArray[np.bool_] | None = None,
        voxel_mm3: float = 1.0,
    ) -> Pieces:
        """Pieces of a prediction.

        Args:
            prediction: Classes ``(*S)``.
            truth: True classes ``(*S)``, 0 where ignored.
            classes: Names of the classes, background first.
            regions: Classes of each region, by its name.
            ignored: Mask of voxels that are not annotated.
            voxel_mm3: Volume of a voxel.
        """
        regions = dict(regions or {})
        groups = _groups(len(classes), regions)
        together, _ = find_components(prediction > 0)
        columns: list[list[NDArray[np.intp]]] = [[] for _ in range(5)]
        for value, box in enumerate(class_boxes(prediction, len(classes)), start=1):
            ids, found = find_components(prediction[box] == value)
            counted = ids if ignored is None else np.where(ignored[box], 0, ids)
            whole = np.zeros(len(found) + 1, dtype=np.intp)
            whole[ids] = together[box]  # equal within a component
            kinds = counted.astype(np.intp).ravel() * len(classes) + truth[box].ravel()
            by_kind = np.bincount(kinds, minlength=(len(found) + 1) * len(classes)).reshape(-1, len(classes))[1:]
            hits = np.array([by_kind[:, group].sum(axis=1) for group in groups])
            for column, array in zip(
                columns, (np.full(len(found), value), _counts(ids, len(found)), by_kind.sum(axis=1), hits, whole[1:]), strict=True
            ):
                column.append(array)
        totals = np.bincount(truth.ravel(), minlength=len(classes))
        values, voxels, annotated, shared, wholes = (np.concatenate(column, axis=-1) for column in columns)
        of_groups = np.array([totals[group].sum() for group in groups])
        return cls(tuple(classes), regions, values, voxels, annotated, shared, wholes, of_groups, voxel_mm3)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of what is scored: the classes above background, then the regions."""
        return (*self.classes[1:], *self.regions)

    def kept(self, output: Output) -> NDArray[np.bool_]:
        """Which pieces stay under the rules of an output, as :func:`stseg3d.ops.cleaning.clean` applies them."""
        kept = np.ones(len(self.values), dtype=np.bool_)
        for name in dict.fromkeys((FOREGROUND, *self.classes[1:])):
            if name not in output.cleaned:
                continue
            own = kept if name == FOREGROUND else kept & (self.values == self.classes.index(name))
            sizes = self._wholes(kept) if name == FOREGROUND else self.voxels
            least = output.min_volume_mm3.get(name, 0.0) / self.voxel_mm3
            least = max(least, sizes[own].max(initial=0) if name in output.largest_only else 0)
            kept = kept & ~(own & (sizes < least))
        return kept

    def dice(self, output: Output) -> NDArray[np.float64]:
        """Dice of each of :attr:`names` under the rules of an output; NaN where one is in neither prediction nor label.

        Args:
            output: The rules.
        """
        kept = self.kept(output)
        scores = np.full(len(self.names), np.nan)
        for n, group in enumerate(_groups(len(self.classes), self.regions)):
            own = kept & np.isin(self.values, group)
            both = self.counted[own].sum() + self.truth[n]
            scores[n] = 2 * self.hits[n, own].sum() / both if both else np.nan
        return scores

    def _wholes(self, kept: NDArray[np.bool_]) -> NDArray[np.intp]:
        """Voxels of the component of all classes that each piece is a part of."""
        sums = np.bincount(self.whole[kept], weights=self.voxels[kept], minlength=self.whole.max(initial=0) + 1)
        return sums[self.whole].astype(np.intp)


def _groups(kinds: int, regions: Mapping[str, tuple[int, ...]]) -> list[list[int]]:
    """Classes of each class above background, and of each region."""
    return [*([kind] for kind in range(1, kinds)), *map(list, regions.values())]


def _counts(ids: NDArray[Any], count: int) -> NDArray[np.intp]:
    """Voxels of each component."""
    return np.bincount(ids.ravel(), minlength=count + 1)[1:]
