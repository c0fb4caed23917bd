"""Data as they were found: cases by part, names of labels and channels, and findings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stseg3d.planning.findings import Finding

PARTS = ("training", "validation", "test")


@dataclass(frozen=True)
class Entry:
    """One case.

    Args:
        id: Name, unique in the data set.
        images: A file for each channel in order, or one file or DICOM folder with all channels.
        label: Label map; None in a test list only.
        group: Patient, or whatever else must not be divided between parts; empty if the data do not tell.
    """

    id: str
    images: tuple[Path, ...]
    label: Path | None = None
    group: str = ""


@dataclass(frozen=True)
class DataFound:
    """Cases that a user has, before any voxel was read.

    Args:
        training: Cases with labels.
        validation: Cases with labels, kept out of training; often empty before :func:`stseg3d.planning.layouts.split`.
        test: Cases of which some may lack a label.
        labels: ``"labels"`` of a ``dataset.json`` as it stands there: names by value, or values by name with nnU-Net's ``"ignore"`` and
            lists of values for regions. Empty if nothing names them.
        channels: Name of each channel in order; empty if nothing names them.
        layout: How the data were recognised.
        findings: What is wrong or doubtful.
        name: Name of the data set.
        twins: Ids of cases whose images are equal byte for byte.
    """

    training: tuple[Entry, ...] = ()
    validation: tuple[Entry, ...] = ()
    test: tuple[Entry, ...] = ()
    labels: Mapping[str, Any] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    layout: str = ""
    findings: tuple[Finding, ...] = ()
    name: str = ""
    twins: tuple[tuple[str, ...], ...] = ()

    @property
    def warnings(self) -> list[str]:
        """Warnings as sentences; the errors are in ``findings``."""
        return [f"{f.case}: {f.rule}, got {f.value}".removeprefix(": ") for f in self.findings if f.level == "warning"]

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Cases of all parts."""
        return self.training + self.validation + self.test


def as_dataset_json(found: DataFound, folder: Path) -> dict[str, Any]:
    """Content of a ``dataset.json`` to be written into ``folder``, in the layout of the Medical Segmentation Decathlon.

    Each case has an ``"id"``, and a ``"group"`` if one is known. Several channels are a list of paths under ``"image"``. Paths are relative
    to the folder if they lie below it, else absolute.
    """
    content: dict[str, Any] = {"name": found.name or folder.name}
    if found.channels:
        content["modality"] = {str(n): name for n, name in enumerate(found.channels)}
    if found.labels:
        content["labels"] = dict(found.labels)
    base = Path(os.path.abspath(folder))
    return content | {part: [_as_json(entry, base) for entry in getattr(found, part)] for part in PARTS}


def _as_json(entry: Entry, base: Path) -> dict[str, Any]:
    images = [_written(path, base) for path in entry.images]
    content: dict[str, Any] = {"id": entry.id, "image": images[0] if len(images) == 1 else images}
    if entry.label is not None:
        content["label"] = _written(entry.label, base)
    return content | ({"group": entry.group} if entry.group else {})


def _written(path: Path, base: Path) -> str:
    path = Path(os.path.abspath(path))
    return (path.relative_to(base) if path.is_relative_to(base) else path).as_posix()
