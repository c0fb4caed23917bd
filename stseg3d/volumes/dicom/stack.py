"""From slices to a volume: their order and spacing, after checks for missing, duplicate and sheared slices."""

from __future__ import annotations

from collections.abc import Sequence
from math import atan, degrees

import numpy as np

from stseg3d.machine.tables import abbreviated
from stseg3d.volumes.dicom.headers import DISTINCTIONS, Header
from stseg3d.volumes.dicom.series import places
from stseg3d.volumes.volume import LPS_RAS, Array

# A slice may be off by this fraction of the slice distance: scanners round positions; a missing slice causes half a distance or more.
MAX_UNEVEN = 0.1
# And by this many pixels sideways, over the whole stack: more would be visible.
MAX_SIDEWAYS = 0.5


def stacked(headers: Sequence[Header], name: str) -> tuple[list[Header], Array]:
    """Slices from the lowest along their normal, and the affine, RAS+, of their volume.

    Args:
        headers: Headers of slices with the same size, spacing and orientation, in any order.
        name: Name in messages.

    Raises:
        ValueError: If slices have no position, share one, are missing, unevenly spaced, or sheared, as by a tilted gantry.
    """
    if len(headers) > 1 and (lost := [h for h in headers if "ImagePositionPatient" not in h.tags]):
        msg = f"{name}: slices must say where they are (ImagePositionPatient), got {len(lost)} that do not: {abbreviated(lost)}"
        raise ValueError(msg)
    ordered = sorted(headers, key=lambda h: float(np.dot(h.origin, headers[0].normal)))
    first = ordered[0]
    origins = np.array([h.origin for h in ordered])
    along = origins @ first.normal
    _check_doubled(ordered, along, name)
    step = (along[-1] - along[0]) / (len(ordered) - 1) if len(ordered) > 1 else _thickness_mm(first)
    if _off_place(along) > MAX_UNEVEN * step:
        raise ValueError(_uneven(ordered, along, name))
    _check_straight(first, origins, along, name)
    affine = np.eye(4)
    affine[:3, :2] = first.direction[:, :2] * first.spacing_mm[:2]
    affine[:3, 2] = first.normal * step
    affine[:3, 3] = first.origin
    return ordered, LPS_RAS @ affine


def _thickness_mm(header: Header) -> float:
    """Thickness of a single slice; 1 mm if the tag is missing."""
    try:
        return float(header.tags["SliceThickness"]) or 1.0
    except (KeyError, ValueError):
        return 1.0


def _off_place(along: Array) -> float:
    """Largest deviation of a slice from even spacing, in mm."""
    if len(along) < 3:
        return 0.0
    numbers = np.arange(len(along))
    return float(np.abs(along - np.polyval(np.polyfit(numbers, along, 1), numbers)).max())


def _check_doubled(ordered: Sequence[Header], along: Array, name: str) -> None:
    numbers = places(ordered)
    doubled = [k for k in range(1, len(ordered)) if numbers[k] == numbers[k - 1]]
    if not doubled:
        return
    a, b = ordered[doubled[0] - 1], ordered[doubled[0]]
    differing = [t for t in DISTINCTIONS if a.tags.get(t) != b.tags.get(t)]
    if a.tags.get("SOPInstanceUID", a) == b.tags.get("SOPInstanceUID", b):
        why = "they have one SOPInstanceUID, so one is a copy"
    else:
        pairs = [f"{t} {a.tags.get(t, 'not given')} and {b.tags.get(t, 'not given')}" for t in differing]
        why = f"they differ in {abbreviated(pairs)}" if pairs else "their tags do not say why"
    msg = f"{name}: slices must each have a place of their own, got {len(doubled)} in the place of another, the first at"
    msg += f" {along[doubled[0]]:.2f} mm, {a} and {b}: {why}; keep one set of slices in the folder"
    raise ValueError(msg)


def _uneven(ordered: Sequence[Header], along: Array, name: str) -> str:
    """Message on uneven distances: the missing slices, if they explain them."""
    gaps = np.diff(along)
    usual = float(np.median(gaps))
    slices = gaps / usual
    if np.abs(slices - np.round(slices)).max() > MAX_UNEVEN * 2 or np.round(slices).max() < 2:
        k = int(np.argmax(np.abs(gaps - usual)))
        msg = f"{name}: slices must be evenly spaced, got distances of {gaps.min():.3f} to {gaps.max():.3f} mm"
        return f"{msg}, {gaps[k]:.3f} mm between {ordered[k]} and {ordered[k + 1]}"
    counts = np.round(slices).astype(int) - 1
    holes = [
        f"{counts[k]} at {along[k] + usual:.2f} mm" + (f" to {along[k + 1] - usual:.2f} mm" if counts[k] > 1 else "")
        + f", between {ordered[k]} and {ordered[k + 1]}"
        for k in np.flatnonzero(counts).tolist()
    ]  # fmt: skip
    msg = f"{name}: slices must all be there, {usual:.3f} mm apart, got {counts.sum()} missing of {len(ordered) + counts.sum()}"
    return f"{msg}: {'; '.join(holes[:3])}{f'; and {len(holes) - 3} more gaps' if len(holes) > 3 else ''}"


def _check_straight(first: Header, origins: Array, along: Array, name: str) -> None:
    """Refuse slices that are not above each other."""
    # NIfTI's sform could hold a sheared affine, but no qform can, and SimpleITK, 3D Slicer and others refuse or straighten such files
    # (https://github.com/rordenlab/dcm2niix/issues/945): an output that viewers put elsewhere is worse than none.
    sideways = origins - origins[0] - np.outer(along - along[0], first.normal)
    off = np.linalg.norm(sideways, axis=1)
    if off.max() <= MAX_SIDEWAYS * min(first.spacing_mm[:2]):
        return
    shear = sideways[-1] / (along[-1] - along[0])
    if np.linalg.norm(sideways - np.outer(along - along[0], shear), axis=1).max() <= MAX_SIDEWAYS * min(first.spacing_mm[:2]):
        angle = degrees(atan(float(np.linalg.norm(shear))))
        msg = f"{name}: slices must be stacked along their normal, got a gantry tilt of {angle:.1f} degrees ({off[-1]:.1f} mm sideways)"
        msg += "; straighten the series first, as dcm2niix does: take its file with _Tilt in the name"
    else:
        msg = f"{name}: slices must be stacked along their normal, got some up to {off.max():.1f} mm sideways"
    raise ValueError(msg)
