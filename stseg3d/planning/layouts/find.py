"""Data found: which layout a user's folder or file has, and its cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stseg3d.planning.findings import Finding
from stseg3d.planning.layouts.bids import BIDS_LEVELS, bids_roles, is_bids
from stseg3d.planning.layouts.check import checked
from stseg3d.planning.layouts.found import DataFound
from stseg3d.planning.layouts.lists import read_csv, read_dataset_json
from stseg3d.planning.layouts.match import NAME_LEVELS, match
from stseg3d.planning.layouts.split import with_groups
from stseg3d.planning.layouts.walk import Named, volumes_below
from stseg3d.planning.layouts.words import without_words
from stseg3d.volumes.dicom.kinds import DICOM_SUFFIXES
from stseg3d.volumes.lists import LIST_SUFFIXES
from stseg3d.volumes.open import volume_suffix

DATASET = "dataset.json"
HOLDS_IMAGES = "a folder holds images that stseg3d reads"
HOLDS_LABELS = "there are labels: in a folder such as labels or masks, in files named such as a_seg, or given with --labels"


def find_data(
    data: Path | None, *, images: Path | None = None, labels: Path | None = None, group: str | None = None, channels: Sequence[str] = ()
) -> DataFound:
    """Cases of a folder or a list in any layout that people have, with findings for all that does not fit; no voxel is read.

    Args:
        data: ``dataset.json`` of the Decathlon or nnU-Net, or a folder with one; a CSV; a folder in BIDS; or a folder of images and labels
            that names distinguish, in two folders, in a folder a case, or side by side.
        images: Folder of the images, or one image, instead of ``data``.
        labels: Folder of the labels, or one label, that belong to ``images`` or to the images in ``data``.
        group: Regular expression that finds the patient in a case's id or path, see :func:`stseg3d.planning.layouts.split`.
        channels: Which channels to take, in order, as the names of the files end (``t1``, ``0000``, BIDS's ``T1w``); by default all that
            most cases have.

    Raises:
        FileNotFoundError: If a path that is given does not exist.
        ValueError: If neither ``data`` nor both folders are given, a list is not readable, or ``group`` is no regular expression.
    """
    if (images or data) is None or (images is not None and data is not None) or (images is not None and labels is None):
        msg = f"either data, or both images and labels must be given, got data={data}, images={images}, labels={labels}"
        raise ValueError(msg)
    for path in (data, images, labels):
        if path is not None and not path.exists():
            msg = f"{path}: data must exist, got none"
            raise FileNotFoundError(msg)
    source = images or data
    assert source is not None
    if labels is not None and labels.resolve() == source.resolve():  # side by side
        labels = None
    found = _of_list(source) if labels is None and _is_list(source) else _of_names(source, labels, channels)
    return with_groups(checked(replace(found, name=found.name or source.absolute().name)), group)


def _is_list(path: Path) -> bool:
    return path.suffix.lower() in LIST_SUFFIXES or (path / DATASET).is_file()


def _of_list(path: Path) -> DataFound:
    if path.suffix.lower() == ".csv":
        return read_csv(path)
    return read_dataset_json(path / DATASET if path.is_dir() else path)


def _of_names(source: Path, labels: Path | None, channels: Sequence[str]) -> DataFound:
    named = volumes_below(source)
    bids = is_bids(named)
    if labels is None:
        pictured, maps = bids_roles(named) if bids else _roles(named)
        if not (pictured and maps):  # names of BIDS, but the folders say which are labels
            pictured, maps = _roles(named)
    else:
        maps = volumes_below(labels)
        of_labels = {label.path.resolve() for label in maps}  # which may lie below the images
        pictured = [n for n in (bids_roles(named)[0] or named if bids else named) if n.path.resolve() not in of_labels]
        if len(maps) == 1 and len(pictured) > 1 and _is_one_series(pictured, maps[0]):
            pictured = [Named(source, (), source.absolute().name)]
    findings = [Finding("error", str(source), HOLDS_IMAGES, _instead(source))] if not pictured else []
    findings += [Finding("error", str(labels or source), HOLDS_LABELS, _instead(labels or source))] if not maps else []
    if findings:
        return DataFound(findings=tuple(findings))
    if len(pictured) == len(maps) == 1:
        maps = [replace(maps[0], folders=pictured[0].folders, stem=pictured[0].stem, part=pictured[0].part)]
    found = match(pictured, maps, (*BIDS_LEVELS, *NAME_LEVELS) if bids else NAME_LEVELS, channels=channels)
    where = "images and labels in a folder each" if labels or any(n.role == "label" for n in maps) else "images and labels side by side"
    return found if found.layout.startswith("BIDS") else replace(found, layout=f"{where}: {found.layout}".removesuffix(": "))


def _roles(named: Sequence[Named]) -> tuple[list[Named], list[Named]]:
    """Images and labels: as their folders say where there is one of labels, else as their own names say."""
    folders_tell = any(n.role == "label" for n in named)
    are_labels = [n.role == "label" or (n.says_label and not (folders_tell and n.role == "image")) for n in named]
    images, maps = ([n for n, is_label in zip(named, are_labels, strict=True) if is_label == wanted] for wanted in (False, True))
    return images, maps


def _is_one_series(images: Sequence[Named], label: Named) -> bool:
    """Whether the images are the slices of the one volume that the label belongs to, and no pictures of which it is named after one."""
    slices = all(not n.path.is_dir() and volume_suffix(n.path).lower() in DICOM_SUFFIXES for n in images)
    return slices and without_words(label.stem, "label") not in {n.stem for n in images}


def _instead(path: Path) -> str:
    """What a folder holds, for a user who expected more."""
    if path.is_file():
        return path.name
    files = sorted(path.iterdir())
    kinds = ", ".join(dict.fromkeys(file.suffix or "no suffix" for file in files if file.is_file()))
    volumes = len(volumes_below(path))
    return f"{volumes} images" if volumes else "an empty folder" if not files else f"{len(files)} others ({kinds or 'folders'})"
