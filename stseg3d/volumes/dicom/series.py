"""Volumes in a folder of DICOM files, and the choice of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stseg3d.machine.tables import abbreviated
from stseg3d.volumes.dicom.frames import frame_headers, is_enhanced
from stseg3d.volumes.dicom.headers import DISTINCTIONS, Header, read_headers
from stseg3d.volumes.dicom.kinds import NO_IMAGE_MODALITIES

# Fewer slices than this beside a volume are scouts, screenshots or dose tables.
MIN_SLICES = 3
# Directions and spacings may differ by this much within one volume: writers round them to 4 to 6 digits.
MAX_DIFFERENCE = 1e-3
# Slices no farther apart than this have the same position.
ONE_PLACE_MM = 0.01


@dataclass(frozen=True, eq=False)
class Series:
    """Files of one series UID that form one volume.

    Args:
        id: UID of the series; ``UID#2`` is the second volume under one UID.
        headers: Headers of its files, in no order.
        distinction: Tag that distinguishes it from other volumes under its UID, such as ``AcquisitionNumber 2``.
    """

    id: str
    headers: list[Header]
    distinction: str = ""

    @property
    def description(self) -> str:
        """Name that the scanner's user gave it."""
        return self.headers[0].tags.get("SeriesDescription", "")

    @property
    def uid(self) -> str:
        """UID of the series; empty if its files have none."""
        return self.headers[0].tags.get("SeriesInstanceUID", "")

    @property
    def slices(self) -> int:
        """Number of slices, or frames if one file has many."""
        return sum(header.size[2] for header in self.headers)

    @property
    def is_volume(self) -> bool:
        """Whether it may be worth segmenting: an image, grey, and with more positions than a scout or a bolus-tracking slice."""
        first = self.headers[0]
        if first.tags.get("Modality") in NO_IMAGE_MODALITIES:
            return False
        depth = max(len(set(places(self.headers))), first.size[2])
        return depth >= MIN_SLICES and first.components == 1 and not first.is_localizer

    @property
    def name(self) -> str:
        """UID and description, safe to store with a result; dates could identify a patient."""
        return f"{self.id or 'without UID'}{f' {self.description!r}' if self.description else ''}"

    def __str__(self) -> str:
        first = self.headers[0]
        tags = first.tags
        between = _distance_mm(self.headers)
        spacing = [*first.spacing_mm[:2], *([between] if between else [])]
        parts = [
            tags.get("Modality", ""),
            f"{first.size[0]} x {first.size[1]} x {self.slices}",
            f"{' x '.join(f'{s:.2f}' for s in spacing)} mm",
            " ".join(tags[name].split(".")[0] for name in ("SeriesDate", "SeriesTime") if name in tags),
            "localizer" if first.is_localizer else "",
            "colours" if first.components > 1 else "",
            self.distinction,
        ]
        return f"{self.name} ({', '.join(part for part in parts if part)})"


def read_series(folder: Path) -> tuple[list[Series], list[str]]:
    """Volumes in a folder, and its other DICOM files.

    Args:
        folder: The folder; not searched any deeper.

    Returns:
        Volumes, largest first; and DICOM files that are not images, each with its kind.

    Raises:
        ValueError: If a DICOM file is broken.
    """
    headers, others = read_headers(folder)
    return volumes_of(headers), [f"{path.name} ({kind})" for path, kind in others.items()]


def volumes_of(headers: Iterable[Header]) -> list[Series]:
    """Volumes that these files form, largest first.

    Raises:
        ValueError: If frames of an enhanced file have no position.
    """
    by_uid: dict[str, list[Header]] = {}
    for one in (one for header in headers for one in (frame_headers(header) if is_enhanced(header) else [header])):
        by_uid.setdefault(one.tags.get("SeriesInstanceUID", ""), []).append(one)
    found = []
    for uid, own in by_uid.items():
        parts = [part for group in _alike(own) for part in _one_a_place(group)]
        parts.sort(key=lambda part: (-len(part[0]), len(part[1]), part[1]))
        for number, (members, told) in enumerate(parts, start=1):
            found.append(Series(uid if len(parts) == 1 else f"{uid}#{number}", members, told))
    return sorted(found, key=lambda one: -one.slices)


def choose_series(folder: Path, found: Sequence[Series], wanted: str | None, others: Sequence[str] = ()) -> Series:
    """Volume that ``wanted`` names, or the only one.

    Args:
        folder: The folder, for messages.
        found: Volumes in the folder.
        others: Its other DICOM files.
        wanted: UID, the beginning of one, or a description; None if there is only one volume, apart from scouts and pictures.

    Raises:
        ValueError: If none or several volumes fit.
    """
    if not found:
        msg = f"{folder}: folder must hold a DICOM series, got {abbreviated(others) or 'none'}"
        raise ValueError(msg)
    matches = list(found) if wanted is None else _matches(found, wanted)
    volumes = [series for series in matches if series.is_volume] or matches
    if len(volumes) == 1:
        return volumes[0]
    listed = "; ".join(str(series) for series in (volumes or found))
    if not volumes:
        msg = f"{folder}: series must be one of {listed}, got {wanted!r}"
    elif wanted is None:
        msg = f"{folder}: folder must hold one DICOM series, got {len(volumes)}; choose one with series= or --series: {listed}"
    else:
        msg = f"{folder}: series must name one of {len(found)}, got {wanted!r} that fits {len(volumes)}: {listed}"
    raise ValueError(msg)


def _matches(found: Sequence[Series], wanted: str) -> list[Series]:
    """Series that satisfy the first rule that any satisfies."""
    text = wanted.strip().casefold()
    rules: tuple[Callable[[Series], bool], ...] = (
        lambda one: one.id == text,
        lambda one: one.uid == text,
        lambda one: one.description.casefold() == text,
        lambda one: bool(text) and one.id.startswith(text),
    )
    return next((fitting for rule in rules if (fitting := [one for one in found if rule(one)])), [])


# --- what belongs together ---------------------------------------------------


def _alike(headers: Sequence[Header]) -> list[list[Header]]:
    """Headers in groups of one size, spacing and orientation; a file of many frames is a group of its own."""
    groups: list[list[Header]] = []
    for header in headers:
        group = next((g for g in groups if _fits(header, g[0])), None)
        if group is None:
            groups.append([header])
        else:
            group.append(header)
    return groups


def _fits(a: Header, b: Header) -> bool:
    kinds = [(h.size, h.components, h.is_localizer, "ImagePositionPatient" in h.tags) for h in (a, b)]
    if kinds[0] != kinds[1] or a.size[2] > 1:
        return False
    spacings = [np.array(h.spacing_mm[:2]) for h in (a, b)]
    return bool(np.abs(a.direction - b.direction).max() <= MAX_DIFFERENCE and np.abs(spacings[0] / spacings[1] - 1).max() <= MAX_DIFFERENCE)


def places(headers: Sequence[Header]) -> list[int]:
    """Rank of each header's position along the normal, from the lowest; equal for slices at the same position."""
    along = np.array([np.dot(h.origin, headers[0].normal) for h in headers])
    order = np.argsort(along, kind="stable")
    numbers = np.zeros(len(headers), dtype=int)
    numbers[order[1:]] = np.cumsum(np.diff(along[order]) > ONE_PLACE_MM)
    return [int(number) for number in numbers]


def _one_a_place(headers: list[Header]) -> list[tuple[list[Header], str]]:
    """Group split by the first tag that leaves one slice at each position; unsplit if no tag does or none is needed."""
    most = max(Counter(places(headers)).values())
    for name in DISTINCTIONS if most > 1 else ():
        parts: dict[str, list[Header]] = {}
        for header in headers:
            parts.setdefault(header.tags.get(name, ""), []).append(header)
        # At most as many values as slices at one position: a time that differs from slice to slice says nothing.
        if 1 < len(parts) <= most and all(len(set(places(part))) == len(part) for part in parts.values()):
            return [(part, f"{name} {value or 'not given'}") for value, part in parts.items()]
    return [(headers, "")]


def _distance_mm(headers: Sequence[Header]) -> float:
    """Median distance of the slices; 0 for a single one."""
    along = np.unique([np.dot(h.origin, headers[0].normal) for h in headers])
    if len(along) > 1:
        return float(np.median(np.diff(along)))
    return abs(headers[0].spacing_mm[2]) if headers[0].size[2] > 1 else 0.0
