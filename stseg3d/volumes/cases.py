"""Cases and data sets: which files belong together, and their names; :mod:`stseg3d.volumes.listing` finds them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stseg3d.volumes.label_values import UNKNOWN, LabelValues
from stseg3d.volumes.names import ensure_file_name
from stseg3d.volumes.open import volume_suffix
from stseg3d.volumes.volume import Volume


@dataclass(frozen=True)
class Case:
    """One image, perhaps with its label.

    Args:
        id: Name of the case, unique in its batch; outputs are named after it.
        image: File, or folder of a DICOM series.
        label: File with the ground truth.
        label_values: Values that the label may have.
    """

    id: str
    image: Path
    label: Path | None = None
    label_values: LabelValues = field(default=UNKNOWN, compare=False, repr=False)

    def as_dict(self) -> dict[str, str]:
        """The case as MONAI's dictionary transforms take it: paths by ``"image"`` and, if there is one, ``"label"``."""
        return {"image": str(self.image)} | ({} if self.label is None else {"label": str(self.label)})


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


def case_id(path: Path | str) -> str:
    """Name of the case at ``path``: its last part without the suffix of a volume."""
    path = Path(path)
    suffix = volume_suffix(path)
    return path.name[: -len(suffix)] if suffix else path.resolve().name


def output_name(case: str, suffix: str = "seg") -> str:
    """File name of a case's output, ``<case>_<suffix>.nii.gz``.

    Raises:
        ValueError: If the name is not safe in a folder, see :func:`stseg3d.volumes.names.ensure_file_name`.
    """
    return f"{ensure_file_name(case)}_{suffix}.nii.gz"


def load_dataset(path: Path | str) -> Dataset:
    """Data set in a ``dataset.json``, whose paths are relative to it; all files must exist.

    Args:
        path: The file. ``"training"`` is required; ``"validation"``, ``"test"`` and ``"labels"`` are optional. Entries are
            ``{"image": ..., "label": ...}``; in the test list a path is enough.

    Raises:
        FileNotFoundError: If it, or a file that it lists, does not exist.
        ValueError: If it is not a ``dataset.json``.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "dataset.json"
    if not path.is_file():
        msg = f"{path}: file must exist, got none"
        raise FileNotFoundError(msg)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        msg = f"{path}: file must be JSON, got: {error}"
        raise ValueError(msg) from error
    if not isinstance(content, dict) or not content.get("training"):
        got = sorted(content) if isinstance(content, dict) else type(content).__name__
        msg = f'{path}: file must list cases under "training", got {got}'
        raise ValueError(msg)
    labels = LabelValues.parse(content.get("labels", {}), path)
    lists = {key: _listed(content.get(key, []), key, path, labels) for key in ("training", "validation", "test")}
    _check_exist(lists, path)
    return Dataset(str(content.get("name", path.parent.name)), labels, **lists)


def _listed(entries: Any, key: str, path: Path, labels: LabelValues) -> list[Case]:
    if not isinstance(entries, list):
        msg = f"{path}: {key!r} must be a list of cases, got {type(entries).__name__}"
        raise ValueError(msg)
    cases = []
    for entry in entries:
        found = {"image": entry} if isinstance(entry, str) and key == "test" else entry
        due = ("image",) if key == "test" else ("image", "label")
        if not isinstance(found, dict) or not all(isinstance(found.get(k), str) for k in due):
            msg = f"{path}: each case under {key!r} must give {' and '.join(due)} as paths, got {entry!r}"
            raise ValueError(msg)
        image = path.parent / found["image"]
        label = path.parent / found["label"] if isinstance(found.get("label"), str) else None
        cases.append(Case(case_id(image), image, label, labels))
    return cases


def _check_exist(lists: Mapping[str, list[Case]], path: Path) -> None:
    files = [file for cases in lists.values() for case in cases for file in (case.image, case.label) if file is not None]
    missing = [file for file in files if not file.exists()]
    if missing:
        msg = f"{path}: files listed must exist, got {len(missing)} of {len(files)} missing, the first {missing[0]}"
        raise FileNotFoundError(msg)
