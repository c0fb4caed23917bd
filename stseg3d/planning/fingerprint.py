"""`Fingerprint`: what is known of a data set before a network is trained on it.

The term is nnU-Net's (Isensee et al. 2021, Nature Methods 18:203); this one also tells how objects lie in a volume, which decides whether
and how boxes are put around them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stseg3d.machine.files import atomic_write_text
from stseg3d.machine.json_files import read_json
from stseg3d.plan import json_text
from stseg3d.plan.json_values import build, dump

FILE = "fingerprint.json"
PERCENTILES = (0.5, 5, 50, 95, 99.5)


@dataclass(frozen=True)
class Intensity:
    """Intensities of one channel.

    Attributes:
        low: Percentile 0.5.
        p5: Percentile 5.
        median: Percentile 50.
        p95: Percentile 95.
        high: Percentile 99.5.
        mean: Mean of the values, clipped to ``low`` and ``high``.
        sd: Standard deviation of the same.
    """

    low: float
    p5: float
    median: float
    p95: float
    high: float
    mean: float
    sd: float

    @classmethod
    def of(cls, values: NDArray[Any]) -> Intensity:
        """Intensities of a sample, of shape ``(n,)``; zeros if it is empty."""
        if not len(values):
            return cls(*[0.0] * 7)
        found = np.percentile(values, PERCENTILES)
        inside = np.clip(values.astype(np.float64), found[0], found[-1])
        return cls(*(significant(v) for v in (*found, inside.mean(), inside.std())))


@dataclass(frozen=True)
class ClassObjects:
    """Objects of one value of a label: its connected components, 26 neighbours.

    Lengths and places are along the axes of the canonical view. About
    :data:`stseg3d.planning.examine.MAX_OBJECTS` are listed at most, evenly over all of them.

    Attributes:
        count: Number of objects.
        voxels: Voxels of all of them.
        volumes_mm3: Volume of each.
        extents_mm: Length of each along the axes.
        centres: Middle of each as a fraction of the volume's length along the axes.
        gaps_mm: Distance of each from the nearest other object, of any value; empty if there is only one.
        at_border: Number of objects that reach the border of the volume.
    """

    count: int
    voxels: int
    volumes_mm3: tuple[float, ...]
    extents_mm: tuple[tuple[float, ...], ...]
    centres: tuple[tuple[float, ...], ...]
    gaps_mm: tuple[float, ...] = ()
    at_border: int = 0


@dataclass(frozen=True)
class CaseFingerprint:
    """Facts of one case, along the axes of its canonical view.

    Attributes:
        id: Name of the case.
        shape: Voxels along each axis.
        spacing_mm: Their spacing.
        orientation: Directions of the file's own axes, such as ``LPS``.
        dtype: Type of the voxels.
        intensity: Intensities of all voxels, by channel.
        foreground: Intensities of labelled voxels, by channel; zeros if there are none.
        zero_share: Share of voxels that are exactly 0 in all channels.
        together: Objects of all values taken together; fewer than those of the values where these touch.
        classes: Objects by value of the label, as text.
        ignored_share: Share of voxels that are not annotated.
    """

    id: str
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    orientation: str
    dtype: str
    intensity: tuple[Intensity, ...]
    foreground: tuple[Intensity, ...]
    zero_share: float
    together: ClassObjects | None = None
    classes: Mapping[str, ClassObjects] = field(default_factory=dict)
    ignored_share: float = 0.0

    @property
    def extent_mm(self) -> NDArray[np.float64]:
        """Length of the volume along each axis."""
        lengths: NDArray[np.float64] = np.array(self.shape) * np.array(self.spacing_mm)
        return lengths


@dataclass(frozen=True)
class Fingerprint:
    """Facts of a data set.

    Attributes:
        labels: Names by value of the label, as text; without background.
        channels: Names of the channels.
        pictures: Whether all images are pictures, such as PNG.
        intensity: Intensities of all voxels of all cases, by channel.
        foreground: Intensities of labelled voxels of all cases, by channel.
        cases: Facts of each training case.
        ignore: Value of voxels that are not annotated, None if there is none.
        regions: Values of each region by its name, if classes overlap.
    """

    labels: Mapping[str, str]
    channels: tuple[str, ...]
    pictures: bool
    intensity: tuple[Intensity, ...]
    foreground: tuple[Intensity, ...]
    cases: tuple[CaseFingerprint, ...]
    ignore: int | None = None
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Fingerprint:
        """The fingerprint in a file.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If it is not a fingerprint.
        """
        found: Fingerprint = build(cls, read_json(path.read_bytes(), str(path)), str(path))
        return found

    def write(self, path: Path) -> Path:
        """Write ``fingerprint.json``, whole or not at all."""
        return atomic_write_text(path, json_text(dump(self)))

    @property
    def whole(self) -> str | None:
        """Name of the region, if there is only one, and it holds all values; None otherwise."""
        name, values = next(iter(self.regions.items()), ("", ()))
        return name if len(self.regions) == 1 and {*map(str, values)} == self.labels.keys() else None

    @property
    def ndim(self) -> int:
        """2 if all volumes have depth 1, else 3."""
        return 2 if all(case.shape[-1] == 1 for case in self.cases) else 3

    def extents_mm(self, *, together: bool = False) -> NDArray[np.float64]:
        """Lengths ``(n, axes)`` of all objects."""
        found = [row for objects in self.objects(together=together) for row in objects.extents_mm]
        return np.array(found).reshape(-1, len(self.cases[0].shape))

    def volumes_mm3(self, *, together: bool = False) -> NDArray[np.float64]:
        """Volumes of all objects."""
        return np.array([v for objects in self.objects(together=together) for v in objects.volumes_mm3])

    def gaps_mm(self) -> NDArray[np.float64]:
        """Distance of each object from the nearest other one."""
        return np.array([gap for objects in self.objects() for gap in objects.gaps_mm])

    def objects(self, *, together: bool = False) -> Iterable[ClassObjects]:
        """Objects of each case, by value, or of all values together."""
        if together:
            return (case.together for case in self.cases if case.together)
        return (found for case in self.cases for found in case.classes.values())

    def counts(self, *, together: bool = False) -> NDArray[np.int64]:
        """Number of objects in each case."""
        if together:
            return np.array([case.together.count if case.together else 0 for case in self.cases])
        return np.array([sum(objects.count for objects in case.classes.values()) for case in self.cases])


def significant(value: float, digits: int = 5) -> float:
    """The number, rounded to a number of significant digits."""
    return float(f"{value:.{digits}g}")


def median_of(rows: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Median of each column."""
    found: NDArray[np.float64] = np.median(np.array(rows, dtype=np.float64), axis=0)
    return found
