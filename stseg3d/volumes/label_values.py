"""Values of a label map, checked before anything is made of them: what a ``dataset.json`` calls them, and which voxels are ignored."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from math import ceil, prod
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from stseg3d.machine.tables import abbreviated
from stseg3d.volumes.open import open_label
from stseg3d.volumes.volume import Array, Volume

logger = logging.getLogger(__name__)

# Name of the value whose voxels nothing is learned from: https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/ignore_label.md
IGNORE = "ignore"
TOLERANCE = 1e-3  # resampled and rescaled labels are off by rounding only
LARGEST = 2**31 - 1
LISTED = 5  # values in a message

# Ids of objects are many values, each in one place. A scan has many values, too, but more than a third of them are spread over a quarter of
# it and more: so it is in 98 % of 348 scans and pictures at hand, and in none of 207 maps of nuclei and organs, of which the most is 8 %.
MANY_VALUES, SEEN_VOXELS, SPREAD, SPREAD_VALUES, SAMPLED = 20, 8, 1 / 4, 1 / 3, 2**21

Meaning = Literal["foreground", "objects", "classes"]


@dataclass(frozen=True)
class LabelValues:
    """Values that the labels of a data set may have.

    Args:
        names: Name of each value; without any, nothing is known.
        regions: Values of each region, in ascending order, by its name: classes that may overlap, each the union of its values. Empty if
            each value is a class.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @classmethod
    def parse(cls, labels: Any, where: Path | str) -> Self:
        """The values under ``"labels"`` of a ``dataset.json``: names by value, or nnU-Net's values, or lists of values, by name.

        With a list of several values, all names but those of background and of what is ignored are regions
        (https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/region_based_training.md). A value that is no region by itself is
        then named by its number.

        Args:
            labels: The entry.
            where: The file, for messages.

        Raises:
            ValueError: If it does not give one name for each value or set of values, 0 is not background, or a region holds what is
                background or ignored.
        """
        msg = f'{where}: "labels" must give a name for each value, got {labels!r}'
        if not isinstance(labels, dict):
            raise ValueError(msg)
        by_value = all(str(key).isdecimal() for key in labels)
        named = [(_values(key), str(content)) if by_value else (_values(content), str(key)) for key, content in labels.items()]
        if not all(values for values, _ in named) or len({values for values, _ in named}) < len(named):
            raise ValueError(msg)
        found = cls(*_with_regions(dict(named)))
        ignored = [value for value in found.names if found.is_named(value, IGNORE)]
        if len(ignored) > 1 or 0 in ignored or any(value and found.is_named(value, "background") for value in found.names):
            msg = f'{where}: "labels" must have 0 as background and at most one other value as "{IGNORE}", got {labels!r}'
            raise ValueError(msg)
        for name, values in found.regions.items():
            if {0, *ignored} & {*values} or name.strip().casefold() in ("background", IGNORE):
                msg = f'{where}: "labels" must have regions of values that are neither background nor ignored, got {name!r} of {[*values]}'
                raise ValueError(msg)
        return found

    @property
    def ignore(self) -> int | None:
        """Value of voxels that are left out of losses and scores; None without."""
        return next((value for value in self.names if self.is_named(value, IGNORE)), None)

    def is_named(self, value: int, name: str) -> bool:
        """Whether a value has this name, in small or capital letters."""
        return self.names[value].strip().casefold() == name

    @property
    def may_be_ids(self) -> bool:
        """Whether values without a name may be further objects: there is one kind of object, and no value is ignored."""
        return not self.names or (self.ignore is None and len(self.names.keys() - {0}) == 1)


def _values(content: Any) -> tuple[int, ...]:
    """Values of one entry in ascending order; empty if it is none."""
    given = content if isinstance(content, list) else [content]
    if any(isinstance(v, bool) or not str(v).isdecimal() or len(str(v)) > len(str(LARGEST)) for v in given):
        return ()
    values = {int(v) for v in given}
    return tuple(sorted(values)) if len(values) == len(given) else ()


def _with_regions(named: Mapping[tuple[int, ...], str]) -> tuple[dict[int, str], dict[str, tuple[int, ...]]]:
    """Names of single values, and regions if there is one of several values."""
    names = {values[0]: name for values, name in named.items() if len(values) == 1}
    if len(names) == len(named):
        return names, {}
    names = {v: names.get(v, f"value {v}") for v in sorted({v for values in named for v in values})}
    apart = {(0,), *((v,) for v, name in names.items() if name.strip().casefold() == IGNORE)}
    return names, {name: values for values, name in named.items() if values not in apart}


UNKNOWN = LabelValues()


@dataclass(frozen=True, eq=False)
class Label:
    """Ground truth of a case.

    Args:
        classes: Whole numbers ``(*S)``, 0 where ignored.
        ignored: Mask of voxels that are neither object nor background, ``(*S)``; None if there are none.
    """

    classes: NDArray[np.integer]
    ignored: NDArray[np.bool_] | None = None

    @property
    def ignored_voxels(self) -> int:
        """Number of ignored voxels."""
        return 0 if self.ignored is None else int(np.count_nonzero(self.ignored))

    def clear(self, labels: Array) -> Array:
        """Another label map of this shape, 0 where this one is ignored."""
        return labels if self.ignored is None else np.where(self.ignored, labels.dtype.type(0), labels)


def read_label(
    source: object,
    image: Volume,
    values: LabelValues = UNKNOWN,
    *,
    meaning: Meaning = "objects",
    out_channels: int | None = None,
    binary: bool = False,
) -> Label:
    """Ground truth of an image, or of a prediction, along its axes.

    Args:
        source: Path or object, as :func:`stseg3d.volumes.open_volume` takes it.
        image: The image.
        values: Values that the data set names.
        meaning: ``"foreground"`` if only labels above 0 against 0 matter: segments of a file may then overlap. ``"objects"`` if a value
            may be the id of an object. ``"classes"`` if each value is a class.
        out_channels: Number of classes, for ``"classes"``.
        binary: Whether there is one class; there is with ``"foreground"`` or two channels. A picture of 0 and 255 then marks object 1.

    Raises:
        OSError: If there is no such file.
        ValueError: If the file is broken, has several channels or lies on another grid than the image, or values are negative, not whole,
            not finite, not named by the data set, or not below ``out_channels``, or are those of a scan.
    """
    binary = binary or meaning == "foreground" or out_channels == 2
    label = open_label(source, image.grid, overlap=meaning == "foreground" and values.ignore is None, binary=binary)
    _check_grids(label, image)
    classes = _whole_numbers(label)
    _check_named(classes, values, label.name, ids=meaning != "classes")
    ignored = classes == values.ignore if values.ignore is not None else np.zeros((), dtype=bool)
    found = Label(np.where(ignored, classes.dtype.type(0), classes), ignored) if ignored.any() else Label(classes)
    if out_channels is not None and (most := int(found.classes.max())) >= out_channels:
        msg = f"{label.name}: labels must be below out_channels={out_channels}, the number of the plan's classes, got {most}"
        raise ValueError(msg)
    return found


def read_classes(volume: Volume) -> NDArray[np.integer]:
    """The label map in a file of which nothing else is known, such as a prediction, ``(*S)``.

    Raises:
        ValueError: If it has several channels, or values are negative, not whole or not finite, or are those of a scan.
    """
    classes = _whole_numbers(volume)
    _check_named(classes, UNKNOWN, volume.name, ids=True)
    return classes


def _check_grids(label: Volume, image: Volume) -> None:
    ours, theirs = image.grid, label.grid
    if ours.is_close(theirs):
        return
    what = f"shape {ours.shape} and {theirs.shape}"
    if ours.shape == theirs.shape:
        what = f"affine {np.round(ours.affine, 4).tolist()} and {np.round(theirs.affine, 4).tolist()}"
    msg = f"{image.name} and its label {label.name} must be on the same grid, got {what}"
    raise ValueError(msg)


def _whole_numbers(volume: Volume) -> NDArray[np.integer]:
    if volume.channels != 1:
        msg = f"{volume.name}: a label map must have one channel, got {volume.channels}"
        raise ValueError(msg)
    stored: Array = volume.read()[0]
    labels = _rounded(stored, volume.name) if stored.dtype.kind == "f" else stored
    low, high = int(labels.min()), int(labels.max())
    if low < 0:
        msg = f"{volume.name}: labels must not be negative, got {low} to {high}: is it a scan?"
        raise ValueError(msg)
    if high > LARGEST:
        msg = f"{volume.name}: labels must be at most {LARGEST}, got {high}"
        raise ValueError(msg)
    whole: NDArray[np.integer] = labels.astype({"f": np.int32, "b": np.uint8}.get(labels.dtype.kind, labels.dtype), copy=False)
    return whole


def _rounded(labels: Array, name: str) -> Array:
    """Whole numbers, still real, at most :data:`TOLERANCE` away."""
    with np.errstate(invalid="ignore"):
        whole = np.rint(labels)
        off = np.abs(labels - whole)
    if bad := int(np.count_nonzero(~np.isfinite(off))):
        msg = f"{name}: labels must be finite, got NaN or infinity in {bad} of {labels.size} voxels"
        raise ValueError(msg)
    most = float(off.max(initial=0))
    if most > TOLERANCE:
        wrong = off > TOLERANCE
        msg = f"{name}: labels must be whole numbers, got {labels[wrong][0]:g}; {np.count_nonzero(wrong)} of {labels.size} voxels are not"
        raise ValueError(msg)
    if most > 0:
        _say_rounded(name, most)
    return whole


@cache
def _say_rounded(name: str, most: float) -> None:
    """Warn once for each file, which training opens several times."""
    logger.warning("%s: labels are rounded to whole numbers, up to %.1g away", name, most)


def _check_named(classes: NDArray[np.integer], values: LabelValues, name: str, *, ids: bool) -> None:
    """Refuse values without a name, except ids of objects that lie each in one place."""
    named, top = {0, *values.names}, int(classes.max(initial=0))
    if top < len(named) and named.issuperset(range(top + 1)):
        return
    if values.names and not (ids and values.may_be_ids):
        if more := sorted(set(values_in(classes)) - named):
            got = abbreviated(more, LISTED)
            msg = f'{name}: labels must be values that "labels" of dataset.json names, {sorted(named)}, got {got}'
            raise ValueError(msg)
    elif top > MANY_VALUES and (count := _values_of_scan(classes)):
        msg = f"{name}: labels must be classes or ids of objects, got {count} values spread over the whole image: is it a scan?"
        raise ValueError(msg)


def values_in(classes: NDArray[np.integer]) -> list[int]:
    """Values that occur in a label map, in ascending order."""
    top = int(classes.max(initial=0))
    if top > SAMPLED:  # an id of an object may be large, and take as much memory
        return [int(value) for value in np.unique(classes)]
    seen = np.zeros(top + 1, dtype=bool)
    for slab in np.atleast_1d(classes):
        seen[slab] = True
    return [int(value) for value in np.flatnonzero(seen)]


def _values_of_scan(classes: NDArray[np.integer]) -> int:
    """Number of values if they are spread as those of a scan, else 0; judged on a part of the voxels."""
    from scipy import ndimage

    step = ceil((classes.size / SAMPLED) ** (1 / max(sum(n > 1 for n in classes.shape), 1)))
    some = classes[tuple(slice(None, None, step) for _ in classes.shape)]
    values, index, counts = np.unique(some, return_inverse=True, return_counts=True)
    seen = (values > 0) & (counts >= SEEN_VOXELS)
    if np.count_nonzero(seen) <= MANY_VALUES:
        return 0
    places = ndimage.find_objects(index.reshape(some.shape) + 1)
    sizes = np.array([prod(part.stop - part.start for part in place) for place, one in zip(places, seen, strict=True) if one])
    whole = prod(part.stop - part.start for part in ndimage.find_objects((some > 0).astype(np.uint8))[0])
    return int(np.count_nonzero(values)) if np.mean(sizes > SPREAD * whole) > SPREAD_VALUES else 0
