"""Examination of labelled cases: the facts of a fingerprint, and what is wrong with the files, in one reading of each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from stseg3d.metrics.surfaces import tight_slices
from stseg3d.ops.components import structure
from stseg3d.ops.resample import count_not_finite, slabs
from stseg3d.planning.findings import Finding
from stseg3d.planning.fingerprint import CaseFingerprint, ClassObjects, Intensity, significant
from stseg3d.volumes import Case, Volume, network_view, open_volume, read_each, read_label
from stseg3d.volumes.open import volume_suffix
from stseg3d.volumes.pictures import PICTURE_SUFFIXES

MAX_OBJECTS = 200  # about as many are listed for each value of a case
MAX_SURFACE = 300  # about as many voxels of an object's surface, from which its distance to others is measured
MAX_DENSE = 65_535  # a larger value is renumbered, as scipy keeps a list entry for each number up to the largest
READABLE = "a case can be read"
SAMPLE = 200_000  # voxels of a case from which percentiles are taken, by kind
POOLED = 20_000  # of these, voxels that go into the percentiles of the data set


@dataclass(frozen=True)
class Examined:
    """A case and what was found.

    Attributes:
        facts: Its part of the fingerprint; None if it cannot be used.
        intensity: Sample of the intensities ``(C, n)``.
        foreground: Sample of the intensities of labelled voxels ``(C, n)``.
        findings: What is wrong or doubtful.
    """

    facts: CaseFingerprint | None
    intensity: NDArray[Any] = field(default_factory=lambda: np.empty((0, 0)))
    foreground: NDArray[Any] = field(default_factory=lambda: np.empty((0, 0)))
    findings: tuple[Finding, ...] = ()


def examine(case: Case) -> Examined:
    """Facts of one labelled case; what makes it unusable is returned as a finding, not raised."""
    try:
        return _examine(case)
    except (ValueError, OSError, MemoryError) as error:
        return Examined(None, findings=(finding_of(case.id, str(error) or type(error).__name__),))


def finding_of(case: str, sentence: str) -> Finding:
    """The finding in a sentence of the form ``file: rule, got value``; any other sentence is what keeps the case from being read."""
    head, *rest = re.split(r", got:? ", sentence, maxsplit=1)
    if not rest:
        return Finding("error", case, READABLE, sentence)
    place, _, rule = head.rpartition(": ")
    return Finding("error", case, rule, f"{rest[0]} ({Path(place).name})" if place else rest[0])


def _examine(case: Case) -> Examined:
    image = open_volume(case.image, channels_last=True)
    label = read_label(case.label, image, case.label_values)
    view = network_view(image, "RAS", colour=is_picture(case))
    values = view.view(label.classes)
    whole, inside, bad = _intensities(view, values)
    if bad:
        msg = f"{image.name}: voxels must be finite, got {bad} NaN or infinite"
        raise ValueError(msg)
    classes = objects_of(values, view.grid.spacing_mm)
    # A single value need not be looked through twice.
    together = classes if len(classes) < 2 else objects_of((values > 0).view(np.uint8), view.grid.spacing_mm)
    facts = CaseFingerprint(
        id=case.id,
        shape=tuple(view.grid.shape),
        spacing_mm=tuple(significant(mm) for mm in view.grid.spacing_mm),
        orientation=image.grid.orientation,
        dtype=str(image.dtype),
        intensity=tuple(map(Intensity.of, whole)),
        foreground=tuple(map(Intensity.of, inside)),
        zero_share=significant(float((whole == 0).all(axis=0).mean()), 3),
        together=next(iter(together.values()), None),
        classes=classes,
        ignored_share=significant(label.ignored_voxels / values.size, 3),
    )
    constant = [c for c, channel in enumerate(whole) if channel.min() == channel.max()]
    findings = [Finding("warning", case.id, "an image has more than one value", f"{whole[c][0]:g} in channel {c}") for c in constant]
    if not facts.classes:
        findings.append(Finding("warning", case.id, "a label marks an object", "background alone"))
    return Examined(facts, _thinned(whole, POOLED), _thinned(inside, POOLED), tuple(findings))


def is_picture(case: Case) -> bool:
    """Whether the image is a picture, such as a PNG."""
    return volume_suffix(case.images[0]).lower() in PICTURE_SUFFIXES


def _intensities(view: Volume, label: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], int]:
    """Samples ``(C, n)`` of all voxels and of labelled ones, as stored, and the number of voxels that are not finite."""
    step = max(prod(view.grid.shape) // SAMPLE, 1)
    marked = max(int(np.count_nonzero(label)) // SAMPLE, 1)
    whole, inside, bad = [], [], 0
    for box, voxels in read_each(view, slabs(view.grid.shape, view.channels)):
        flat, where = voxels.reshape(view.channels, -1), np.flatnonzero(label[box.slices])
        bad += count_not_finite(voxels)
        whole.append(flat[:, ::step].copy())
        inside.append(flat[:, where[::marked]])
    return np.concatenate(whole, axis=1), np.concatenate(inside, axis=1), bad


def _thinned(sample: NDArray[Any], size: int) -> NDArray[Any]:
    return sample[:, :: max(sample.shape[1] // size, 1)]


def objects_of(label: NDArray[Any], spacing_mm: Sequence[float]) -> dict[str, ClassObjects]:
    """Objects of each value above 0 of a label map, by value.

    Args:
        label: Whole numbers of shape ``S``.
        spacing_mm: Spacing of its voxels.
    """
    spacing = np.array(spacing_mm)
    found = list(_components(label))
    gaps = _gaps_mm([surface for *_, surface in found], spacing)
    by_value: dict[int, list[tuple[tuple[slice, ...], int, float]]] = {}
    for (value, where, size, _), gap in zip(found, gaps, strict=True):
        by_value.setdefault(value, []).append((where, size, gap))
    return {str(value): _class_objects(listed, label.shape, spacing) for value, listed in by_value.items()}


def _class_objects(
    listed: Sequence[tuple[tuple[slice, ...], int, float]], shape: Sequence[int], spacing: NDArray[np.float64]
) -> ClassObjects:
    """Objects of one value, from the place, the number of voxels and the gap of each."""
    lows, highs = (np.array([[getattr(s, end) for s in where] for where, *_ in listed]) for end in ("start", "stop"))
    sizes = np.array([size for _, size, _ in listed])
    long = np.array(shape) > 1
    kept = slice(None, None, max(len(listed) // MAX_OBJECTS, 1))
    return ClassObjects(
        count=len(listed),
        voxels=int(sizes.sum()),
        volumes_mm3=tuple(significant(v) for v in (sizes * spacing.prod())[kept]),
        extents_mm=tuple(tuple(significant(n) for n in row) for row in ((highs - lows) * spacing)[kept]),
        centres=tuple(tuple(significant(n, 3) for n in row) for row in ((highs + lows) / 2 / shape)[kept]),
        gaps_mm=tuple(significant(gap, 3) for *_, gap in listed[kept] if np.isfinite(gap)),
        at_border=int((((lows == 0) | (highs == shape)) & long).any(axis=1).sum()),
    )


def _components(label: NDArray[Any]) -> Iterator[tuple[int, tuple[slice, ...], int, NDArray[np.intp]]]:
    """Value, place, number of voxels and a sample of the surface ``(n, axes)`` of each object."""
    if not (mask := label > 0).any():
        return
    part = tight_slices(mask)
    dense, values = _renumbered(label[part])
    for value, place in zip(values, ndimage.find_objects(dense), strict=True):
        if place is None:
            continue
        ids, count = ndimage.label(label[part][place] == value, structure(label.ndim, 26))
        sizes = np.bincount(ids.ravel(), minlength=count + 1)
        for n, inner in enumerate(ndimage.find_objects(ids), start=1):
            corner = [t.start + p.start for t, p in zip(part, place, strict=True)]
            where = tuple(slice(c + i.start, c + i.stop) for c, i in zip(corner, inner, strict=True))
            one = ids[inner] == n
            surface = np.argwhere(one & ~ndimage.binary_erosion(one)) + [s.start for s in where]
            yield value, where, int(sizes[n]), surface[:: max(len(surface) // MAX_SURFACE, 1)]


def _renumbered(label: NDArray[Any]) -> tuple[NDArray[np.int32], Sequence[int]]:
    """The label with values that have no large gaps, and the value of each number from 1."""
    if (largest := int(label.max())) <= MAX_DENSE:
        return label.astype(np.int32, copy=False), range(1, largest + 1)
    values = np.unique(label[label > 0])
    return np.where(label > 0, np.searchsorted(values, label) + 1, 0).astype(np.int32), [int(v) for v in values]


def _gaps_mm(surfaces: Sequence[NDArray[np.intp]], spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of each object's surface voxels from those of the nearest other object; infinite for a single one."""
    if len(surfaces) < 2:
        return np.full(len(surfaces), np.inf)
    points = [surface * spacing for surface in surfaces]
    middle = np.array([s.mean(axis=0) for s in surfaces]) * spacing
    _, near = cKDTree(middle).query(middle, k=min(9, len(surfaces)))  # the eight objects whose middles are nearest
    trees = [cKDTree(of_object) for of_object in points]
    return np.array([min(trees[m].query(points[n])[0].min() for m in others if m != n) for n, others in enumerate(near)])
