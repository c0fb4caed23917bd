"""Kind of a task, from its fingerprint: modality, classes or objects of one kind, and axes along which it may be mirrored."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stseg3d.planning.fingerprint import CaseFingerprint, ClassObjects, Fingerprint

MODALITIES = ("CT", "MR", "microscopy")
AIR_HU, LARGEST_HU = -500.0, 6000.0  # no other modality has its background there; metal reaches 3071 or a few thousand
SIDES = re.compile(r"(?:^|[^a-z])(left|right|l|r)(?:$|[^a-z0-9])", re.IGNORECASE)
NUMBERED = re.compile(r"^(.*?)(\d+)(.*)$")
MAIN_SHARE = 0.9  # of a class's voxels in its largest component, and of the cases that have one object of each class; the others are faults
ALIKE = 3.0  # largest ratio of two classes' median volumes that are objects of one kind
MIRROR_TOLERANCE = 0.1  # of the volume's length: how far objects may lie, on average, from the middle


@dataclass(frozen=True)
class TaskKind:
    """Kind of a task.

    Attributes:
        modality: ``"CT"``, ``"MR"`` or ``"microscopy"``.
        classes: Names of the classes, background first.
        instances: Whether the objects are of one class and told apart.
        number_from: World direction at whose end object 1 lies, for objects in a numbered row.
        mirror_axes: Axes along which a mirrored case is as plausible.
        reasons: Reason of each of the former, by its name.
        regions: Classes of each region, by its name.
    """

    modality: str
    classes: tuple[str, ...]
    instances: bool
    number_from: str | None
    mirror_axes: tuple[int, ...]
    reasons: dict[str, str]
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def kind_of(fingerprint: Fingerprint, *, modality: str | None = None) -> TaskKind:
    """Kind of the task that a data set poses.

    Args:
        fingerprint: Facts of the data set.
        modality: Modality, if it is known.

    Raises:
        ValueError: If ``modality`` is unknown.
    """
    if modality is not None and modality not in MODALITIES:
        msg = f"modality must be one of {', '.join(MODALITIES)}, got {modality!r}"
        raise ValueError(msg)
    reasons = {}
    seen, reasons["modality"] = (modality, "given") if modality else _modality(fingerprint)
    names = list(fingerprint.labels.values())
    classes, number_from, regions = _classes(fingerprint), None, {} if fingerprint.whole else fingerprint.regions
    instances = is_instance_map(fingerprint)
    if instances:
        classes = ("background", names[0] if names else "object")
        reasons["classes"] = "more values than names: each value is an object of its own"
    elif direction := _numbered_from(fingerprint):
        instances, number_from = True, direction
        classes = ("background", _common_name(names))
        reasons["classes"] = f"{names[0]} to {names[-1]} are alike, in a row: one class, numbered from {direction}"
    else:
        one = "all values are one region" if fingerprint.whole else "one value of the labels"
        unused = len(classes) - 1 - len(names)
        more = f"; {unused} of them unused" if unused > 0 else ""
        reasons["classes"] = f"{len(classes) - 1} by the values of the labels{more}" if len(classes) > 2 else one
    axes, reasons["mirror_axes"] = _mirror_axes(fingerprint, seen, [*names, *regions], number_from)
    return TaskKind(seen, classes, instances, number_from, axes, reasons, regions)


def _classes(fingerprint: Fingerprint) -> tuple[str, ...]:
    """Names of the classes: a value's class has its number, so that a value which is left out is a class as well, which never occurs."""
    if fingerprint.whole or len(fingerprint.labels) < 2:
        return ("background", fingerprint.whole or next(iter(fingerprint.labels.values()), "object"))
    values = range(1, max(map(int, fingerprint.labels)) + 1)
    return ("background", *(fingerprint.labels.get(str(value), f"value {value} (unused)") for value in values))


def is_instance_map(fingerprint: Fingerprint) -> bool:
    """Whether values of the labels are objects, not classes: there are more of them than names, of which there is one at most."""
    values = {value for case in fingerprint.cases for value in case.classes}
    return len(fingerprint.labels) <= 1 and len(values - {*fingerprint.labels}) > 0 and len(values) > 1


def merged(fingerprint: Fingerprint) -> Fingerprint:
    """The fingerprint of an instance map, its objects listed together as those of class 1."""
    return replace(fingerprint, cases=tuple(_merged_case(case) for case in fingerprint.cases))


def _merged_case(case: CaseFingerprint) -> CaseFingerprint:
    parts = list(case.classes.values())
    if len(parts) < 2:
        return replace(case, classes={"1": parts[0]} if parts else {})
    names = ("volumes_mm3", "extents_mm", "centres", "gaps_mm")
    lists: dict[str, Any] = {name: tuple(item for part in parts for item in getattr(part, name)) for name in names}
    sums = {name: sum(getattr(part, name) for part in parts) for name in ("count", "voxels", "at_border")}
    return replace(case, classes={"1": ClassObjects(**sums, **lists)})


def _modality(fingerprint: Fingerprint) -> tuple[str, str]:
    if fingerprint.pictures:
        return "microscopy", "the images are pictures"
    named = " ".join(fingerprint.channels).lower()
    if re.search(r"\bct\b", named):
        return "CT", "by the name of a channel"
    lows = [case.intensity[0].low for case in fingerprint.cases]
    highs = [case.intensity[0].high for case in fingerprint.cases]
    # A CT may be cropped to the body; then its lowest values are those of fat or lung.
    if len(fingerprint.channels) == 1 and np.median(lows) <= AIR_HU and max(highs) < LARGEST_HU:
        return "CT", f"values from {np.median(lows):g}, as air has in Hounsfield units"
    return "MR", "by the name of a channel" if re.search(r"\bmri?\b|\bt1|\bt2|flair", named) else "values are not Hounsfield units"


def _common_name(names: Sequence[str]) -> str:
    found = NUMBERED.match(names[0])
    stem = (found[1] + found[3]).strip(" _-") if found else ""
    return stem if len(stem) > 1 else "object"


def _numbered_from(fingerprint: Fingerprint) -> str | None:
    """Direction of a row of numbered objects that are alike, such as L1 to L5 from S; None if they are no row."""
    names = list(fingerprint.labels.values())
    parts = [NUMBERED.match(name) for name in names]
    if fingerprint.regions or len(names) < 3 or any(part is None for part in parts) or len({(p[1], p[3]) for p in parts if p}) > 1:
        return None
    numbers = [int(p[2]) for p in parts if p]
    values = [int(value) for value in fingerprint.labels]
    if values != list(range(1, len(values) + 1)) or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        return None
    volumes = [
        np.median([case.classes[key].voxels for case in fingerprint.cases if key in case.classes] or [0]) for key in fingerprint.labels
    ]
    if max(volumes) > ALIKE * min(volumes):
        return None
    return _row_direction(fingerprint)


def _places(fingerprint: Fingerprint) -> list[NDArray[np.float64]]:
    """Middle ``(values, axes)`` of each value's one object, in the cases that have exactly one of each."""
    places = []
    for case in fingerprint.cases:
        found = [case.classes.get(str(n)) for n in range(1, len(fingerprint.labels) + 1)]
        if not all(one and max(one.volumes_mm3) >= MAIN_SHARE * sum(one.volumes_mm3) for one in found):
            continue
        places.append(np.array([one.centres[int(np.argmax(one.volumes_mm3))] for one in found if one]))
    return places


def _row_direction(fingerprint: Fingerprint) -> str | None:
    places = _places(fingerprint)
    if len(places) < MAIN_SHARE * len(fingerprint.cases):
        return None
    for axis, (low, high) in enumerate((("L", "R"), ("P", "A"), ("I", "S"))):
        steps = np.concatenate([np.diff(place[:, axis]) for place in places])
        if (steps > 0).all() or (steps < 0).all():
            return low if steps[0] > 0 else high
    return None


def _mirror_axes(fingerprint: Fingerprint, modality: str, names: Sequence[str], number_from: str | None) -> tuple[tuple[int, ...], str]:
    """Axes along which mirroring is plausible: all in pictures; left and right in a scan whose objects lie evenly about its middle."""
    if modality == "microscopy":
        return (0, 1) if fingerprint.ndim == 2 else (0, 1, 2), "no direction of a picture differs from another"
    if any(SIDES.search(name) for name in names):
        return (), "a class is named by its side"
    if number_from in ("L", "R"):
        return (), "objects are numbered along this axis"
    if fingerprint.cases[0].shape[0] == 1:
        return (), "one voxel from left to right"
    for value, offset in _offsets(fingerprint, apart=number_from is None and not is_instance_map(fingerprint)).items():
        if abs(offset) > MIRROR_TOLERANCE:
            what = fingerprint.labels.get(value, "objects") if len(fingerprint.labels) > 1 else "objects"
            return (), f"{what}: to one side of the middle, by {100 * abs(offset):.0f} % of the width"
    return (0,), "objects lie as often left as right of the middle"


def _offsets(fingerprint: Fingerprint, *, apart: bool) -> dict[str, float]:
    """Mean place of the objects from left to right, from -0.5 to 0.5: of each value, or of all values together, whose key is empty."""
    places: dict[str, list[float]] = {}
    for case in fingerprint.cases:
        for value, found in case.classes.items():
            places.setdefault(value if apart else "", []).extend(centre[0] - 0.5 for centre in found.centres)
    return {value: float(np.mean(of_value)) for value, of_value in places.items()}
