"""Cases at the paths that a user gives, each with a unique name."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stseg3d.volumes.cases import Case, case_id
from stseg3d.volumes.dicom.elements import sop_class
from stseg3d.volumes.dicom.kinds import DICOM_SUFFIXES, is_dicom, kind_without_image
from stseg3d.volumes.open import is_segmentation, is_volume_file, volume_suffix

logger = logging.getLogger(__name__)

LIST_SUFFIXES = (".csv", ".json")
SEPARATOR = "__"
# File systems take names of 255 bytes; the rest is for `_seg.nii.gz` and for temporary names.
MAX_NAME_BYTES = 180
ALL_PARTS = 10_000  # more parts than any path has


def find_cases(inputs: Iterable[Path | str], *, skip_outputs: bool = False) -> list[Case]:
    """Cases at the given paths, each named after its file or folder.

    Args:
        inputs: Files, DICOM series folders, and folders of either (not searched any deeper), in order of name.
        skip_outputs: Leave out files that ``stseg3d segment`` wrote: ``<case>_seg.*`` with ``<case>_seg.json`` beside it.

    Raises:
        FileNotFoundError: If a path does not exist.
        ValueError: If a folder holds no volume, a file is not one, or two cases have one name.
    """
    cases: dict[str, Case] = {}
    for image in (image for source in inputs for image in _images_at(Path(source), skip_outputs=skip_outputs)):
        case = Case(case_id(image), image)
        if case.id in cases:
            raise ValueError(_duplicate_text(case, cases[case.id]))
        cases[case.id] = case
    return list(cases.values())


def list_cases(
    inputs: Iterable[Path | str], *, leave_out: Path | None = None, on_error: Callable[[Exception], object] | None = None
) -> list[Case]:
    """Cases at the given paths, at any depth, under names that do not clash.

    A case below a folder is named by its path from there, ``patient1/DICOM`` as ``patient1__DICOM``, so its name does not depend on other
    files. If inputs would still share a name, as in ``a/ct.nii.gz b/ct.nii.gz``, the folders above are added. Outputs of
    ``stseg3d segment`` are left out, and a file or folder given twice is one case.

    Args:
        inputs: Files; folders of volumes or of DICOM series, searched to the bottom in order of name; lists of cases, whose paths are
            relative to them: a ``.csv`` with a column ``image`` and perhaps ``id`` and ``label``, or a ``.json`` with a list of paths or of
            ``{"image": ..., "id": ..., "label": ...}``, or with such lists under ``"training"``, ``"validation"`` and ``"test"``. Listed
            files need not exist.
        leave_out: Folder that is not searched, if it lies below an input.
        on_error: Called with the error of an input that cannot be listed, instead of raising it; the others are listed.

    Raises:
        FileNotFoundError: If an input does not exist.
        ValueError: If a folder holds no volume, a file is not one, a list has another form, or two cases would have one name.
    """
    places: dict[Path, _Place] = {}
    for source in inputs:
        try:
            places |= {place.image.absolute(): place for place in _places_at(Path(source), leave_out)}
        except (ValueError, OSError) as error:
            if on_error is None:
                raise
            on_error(error)
    cases: dict[str, Case] = {}
    for place, name in zip(places.values(), _names(list(places.values())), strict=True):
        case = Case(name, place.image, place.label)
        if name in cases:
            raise ValueError(_duplicate_text(case, cases[name]))
        cases[name] = case
    return list(cases.values())


def _duplicate_text(case: Case, other: Case) -> str:
    return f"{case.image}: case name must be unique, got {case.id!r} twice, also from {other.image}"


# --- places and names --------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """Place of a case, and its name: ``id``, or at least the last ``parts`` parts of its path."""

    image: Path
    parts: int = 1
    id: str = ""
    label: Path | None = None

    def name(self, parts: int) -> str:
        if self.id:
            return self.id
        path = Path(os.path.abspath(self.image))  # not resolved: a link keeps its own name
        stem = path.name.removesuffix(volume_suffix(path)) if not path.is_dir() else path.name
        return _shortened(SEPARATOR.join((*path.parent.parts[1:], stem)[-parts:]))


def _names(places: list[_Place]) -> list[str]:
    """Name of each place; equal names are extended by parts of their paths as long as that can distinguish them."""
    parts = [place.parts for place in places]
    while True:
        names = [place.name(n) for place, n in zip(places, parts, strict=True)]
        alike: dict[str, set[str]] = {}
        for place, name in zip(places, names, strict=True):
            alike.setdefault(name.casefold(), set()).add(place.name(ALL_PARTS).casefold())  # some file systems ignore case
        longer = [k for k, name in enumerate(names) if len(alike[name.casefold()]) > 1 and names[k] != places[k].name(parts[k] + 1)]
        if not longer:
            return names
        for k in longer:
            parts[k] += 1


def _shortened(name: str) -> str:
    """The name; if too long for a file system, its beginning and a hash."""
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name.encode()[: MAX_NAME_BYTES - 9].decode(errors='ignore')}-{mark}"


def _places_at(path: Path, leave_out: Path | None) -> list[_Place]:
    if path.suffix.lower() in LIST_SUFFIXES and path.is_file():
        return _listed(path)
    if not path.is_dir():
        return [_Place(image) for image in _images_at(path, skip_outputs=True)]
    seen = set() if leave_out is None or leave_out.resolve() == path.resolve() else {leave_out.resolve()}
    images = list(_images_below(path, seen))
    if not images:
        msg = f"{path}: folder must hold volumes, such as .nii.gz, or DICOM series, at any depth, got none"
        raise ValueError(msg)
    return [_Place(image, max(len(image.relative_to(path).parts), 1)) for image in images]


def _images_below(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Volumes and series in the folder and all below; a folder reached twice through links is searched once."""
    if folder.resolve() in seen:
        return
    seen.add(folder.resolve())
    yield from _images_in(folder, skip_outputs=True)
    for inner in sorted(folder.iterdir()):
        if inner.is_dir() and not inner.name.startswith("."):
            yield from _images_below(inner, seen)


def _images_at(path: Path, *, skip_outputs: bool) -> list[Path]:
    if not path.exists():
        msg = f"{path}: file or folder must exist, got none"
        raise FileNotFoundError(msg)
    if not path.is_dir():
        if not is_volume_file(path):
            msg = f"{path}: file must be a volume, such as .nii.gz, got {path.suffix or 'no suffix'!r}"
            raise ValueError(msg)
        return [path]
    inner = (d for d in sorted(path.iterdir()) if d.is_dir())
    images = _images_in(path, skip_outputs=skip_outputs) or [
        d for d in inner if any(is_dicom(p, segmentations=not skip_outputs) for p in _files_in(d))
    ]
    if not images:
        msg = f"{path}: folder must hold volumes, such as .nii.gz, or DICOM series, got {len(_files_in(path))} other files"
        raise ValueError(msg)
    return images


def _images_in(folder: Path, *, skip_outputs: bool) -> list[Path]:
    """Volumes in the folder itself, or the folder if it holds only a DICOM series."""
    files = _files_in(folder)
    volumes = [p for p in files if is_volume_file(p) and volume_suffix(p).lower() not in DICOM_SUFFIXES]
    volumes = [p for p in volumes if not _is_rough_map(p) and not (skip_outputs and _is_output(p))]
    volumes = _without_twins(volumes, labels=not skip_outputs)
    if not volumes:
        return _dicom_in(folder, files, labels=not skip_outputs)
    slices = sum(volume_suffix(p).lower() in DICOM_SUFFIXES for p in files)
    if slices:
        logger.warning("%s: %d DICOM files are left out, as there are %d other volumes beside them", folder, slices, len(volumes))
    return volumes


def _dicom_in(folder: Path, files: list[Path], *, labels: bool) -> list[Path]:
    """The folder if a DICOM image is in it; else its segmentations if they are wanted as labels; other objects are left out and told."""
    if any(is_dicom(p, segmentations=False) for p in files):
        return [folder]
    if labels:
        return [p for p in files if is_dicom(p)]
    kinds = {kind_without_image(sop_class(p)) for p in files} - {"", "DICOMDIR"}
    if kinds:
        logger.warning("%s: left out, as its DICOM files hold no image: %s", folder, ", ".join(sorted(kinds)))
    return []


def _without_twins(volumes: list[Path], *, labels: bool) -> list[Path]:
    """Volumes with only one of ``a.nrrd`` and its segmentation ``a.seg.nrrd``: the image, or the segmentation if ``labels``."""
    segmented = {case_id(p): p for p in volumes if is_segmentation(p)}
    names = {case_id(p) for p in volumes if not is_segmentation(p)} & segmented.keys()
    return [p for p in volumes if case_id(p) not in names or is_segmentation(p) == labels]


def _files_in(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def _is_output(path: Path) -> bool:
    name = case_id(path)
    return name.endswith("_seg") and path.with_name(f"{name}.json").is_file()


def _is_rough_map(path: Path) -> bool:
    """Whether it is a rough map of ``stseg3d segment --keep-rough``: neither an image nor a prediction."""
    name = case_id(path)
    return name.endswith("_rough") and path.with_name(f"{name.removesuffix('_rough')}_seg.json").is_file()


# --- lists -------------------------------------------------------------------


def _listed(path: Path) -> list[_Place]:
    try:
        entries = _csv_entries(path) if path.suffix.lower() == ".csv" else _json_entries(path)
    except (ValueError, RecursionError, csv.Error) as error:
        msg = f"{path}: list of cases must be a .csv with a column image, or a .json with a list: {error}"
        raise ValueError(msg) from error
    if not entries:
        msg = f"{path}: list of cases must name one at least, got none"
        raise ValueError(msg)
    return [_listed_place(entry, path) for entry in entries]


def _csv_entries(path: Path) -> list[Any]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        if "image" not in (reader.fieldnames or ()):
            msg = f"got the columns {reader.fieldnames}"
            raise ValueError(msg)
        return list(reader)


def _json_entries(path: Path) -> list[Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(content, dict):
        content = [entry for part in ("training", "validation", "test") for entry in content.get(part, [])]
    if not isinstance(content, list):
        msg = f"got {type(content).__name__}"
        raise ValueError(msg)
    return content


def _listed_place(entry: Any, path: Path) -> _Place:
    found = {"image": entry} if isinstance(entry, str) else entry
    values: dict[str, Any] = {key: found.get(key) or "" for key in ("image", "id", "label")} if isinstance(found, dict) else {"image": ""}
    if not all(isinstance(value, str) for value in values.values()) or not values["image"]:
        msg = f"{path}: each case must give its image, and perhaps id and label, as text, got {entry!r}"
        raise ValueError(msg)
    if values["id"] and not _is_plain_name(values["id"]):
        msg = f"{path}: id must be a plain file name of at most {MAX_NAME_BYTES} bytes, got {values['id']!r}"
        raise ValueError(msg)
    label = path.parent / values["label"] if values["label"] else None
    return _Place(path.parent / values["image"], id=values["id"], label=label)


def _is_plain_name(name: str) -> bool:
    return name.isprintable() and not name.startswith(".") and not set(name) & set("/\\") and len(name.encode()) <= MAX_NAME_BYTES
