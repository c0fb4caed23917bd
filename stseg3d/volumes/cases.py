"""Cases and data sets: which files belong together, and their names; :mod:`stseg3d.volumes.listing` finds them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stseg3d.machine.json_files import read_json
from stseg3d.volumes.label_values import UNKNOWN, LabelValues
from stseg3d.volumes.lists import PARTS, places_by_part
from stseg3d.volumes.names import Place, paths_of
from stseg3d.volumes.open import Source
from stseg3d.volumes.volume import Volume


@dataclass(frozen=True)
class Case:
    """One image, perhaps with its label.

    Args:
        id: Name of the case, unique in its batch; outputs are named after it.
        image: File, or folder of a DICOM series; or several, one for each channel.
        label: File with the ground truth.
        label_values: Values that the label may have.
        fault: Why the case cannot be worked on, such as a name that is another's, too; empty if it can.
    """

    id: str
    image: Source
    label: Path | None = None
    label_values: LabelValues = field(default=UNKNOWN, compare=False, repr=False)
    fault: str = ""

    @property
    def images(self) -> tuple[Path, ...]:
        """Path of each file of its image."""
        return paths_of(self.image)

    def absolute(self) -> Case:
        """The case with absolute paths to its image."""
        paths = tuple(path.absolute() for path in self.images)
        return replace(self, image=paths if isinstance(self.image, tuple) else paths[0])

    def as_dict(self) -> dict[str, Any]:
        """The case as MONAI's dictionary transforms take it: ``"id"``, and paths by ``"image"`` and, if there is one, ``"label"``."""
        image = [str(path) for path in self.image] if isinstance(self.image, tuple) else str(self.image)
        return {"id": self.id, "image": image} | ({} if self.label is None else {"label": str(self.label)})


@dataclass(frozen=True)
class Dataset:
    """Cases that a ``dataset.json`` in the layout of the Medical Segmentation Decathlon lists.

    Args:
        name: Name of the data set.
        labels: Values that the labels may have, and their names.
        training: Cases with labels.
        validation: Cases with labels, kept out of training.
        test: Cases, with or without labels.
    """

    name: str
    labels: LabelValues
    training: list[Case]
    validation: list[Case] = field(default_factory=list)
    test: list[Case] = field(default_factory=list)


@dataclass(frozen=True)
class OpenCase:
    """An image and its label, open and on one grid, seen along the world's axes.

    Args:
        image: The image.
        label: Classes ``(*S)``, 0 where ignored.
        id: Id of the case in the data set.
        ignored: Mask of voxels that nothing is learned from, ``(*S)``; None if there are none.
    """

    image: Volume
    label: NDArray[np.uint8]
    id: str = ""
    ignored: NDArray[np.bool_] | None = None

    @property
    def name(self) -> str:
        """Name of the image."""
        return self.image.name


def cases_at(places: Sequence[Place]) -> list[Case]:
    """A case at each place. Cases of one name have a fault, unless they are one: of the same image, and no two labels."""
    namesakes: dict[str, dict[Any, Place]] = {}
    for place in places:
        namesakes.setdefault(place.name(), {})[place.images, place.label] = place
    return [Case(place.name(), place.image, place.label, fault=_fault(place, namesakes[place.name()].values())) for place in places]


def _fault(place: Place, namesakes: Collection[Place]) -> str:
    other = next((p for p in namesakes if p.images != place.images), None)
    if other:
        return f"{paths_of(place.image)[0]}: case name must be unique, got {place.name()!r} twice, also from {paths_of(other.image)[0]}"
    other = next((p for p in namesakes if p.label and place.label and p.label != place.label), None)
    if other:
        return f"{paths_of(place.image)[0]}: case must have one label, or an id for each of several, got {place.label} and {other.label}"
    return ""


def without_faults(cases: Sequence[Case], where: str = "") -> list[Case]:
    """The cases.

    Raises:
        ValueError: If one has a fault; the message begins with ``where``.
    """
    for case in cases:
        if case.fault:
            raise ValueError(where + case.fault)
    return list(cases)


def load_dataset(path: Path | str) -> Dataset:
    """Data set in a ``dataset.json``, whose paths are relative to it; all files must exist.

    Args:
        path: The file. ``"training"`` is required; ``"validation"``, ``"test"`` and ``"labels"`` are optional. Entries are
            ``{"image": ..., "label": ..., "id": ...}``, see :func:`stseg3d.volumes.lists.places_by_part`; only those under ``"test"`` may
            lack a label.

    Raises:
        FileNotFoundError: If it, or a file that it lists, does not exist.
        ValueError: If it is not a ``dataset.json``, or two of its cases would have one name.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "dataset.json"
    if not path.is_file():
        msg = f"{path}: file must exist, got none"
        raise FileNotFoundError(msg)
    content = read_json(path.read_bytes(), f"{path}: file")
    if not isinstance(content, dict) or not content.get("training"):
        got = sorted(content) if isinstance(content, dict) else type(content).__name__
        msg = f'{path}: file must list cases under "training", got {got}'
        raise ValueError(msg)
    labels = LabelValues.parse(content.get("labels", {}), path)
    places = places_by_part(content, path)
    cases = iter(without_faults(cases_at([place for part in places.values() for place in part]), f"{path}: "))
    lists = {part: [replace(next(cases), label_values=labels) for _ in places.get(part, [])] for part in PARTS}
    for case in (case for part in ("training", "validation") for case in lists[part] if case.label is None):
        msg = f"{path}: each case under 'training' and 'validation' must give its label, got none for {case.images[0]}"
        raise ValueError(msg)
    _check_exist(lists, path)
    return Dataset(str(content.get("name", path.parent.name)), labels, **lists)


def _check_exist(lists: Mapping[str, list[Case]], path: Path) -> None:
    files = [file for cases in lists.values() for case in cases for file in (*case.images, case.label) if file is not None]
    missing = [file for file in files if not file.exists()]
    if missing:
        msg = f"{path}: files listed must exist, got {len(missing)} of {len(files)} missing, the first {missing[0]}"
        raise FileNotFoundError(msg)
