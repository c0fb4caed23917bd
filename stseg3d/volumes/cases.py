"""Cases and data sets: which files belong together, and what each is called."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stseg3d.volumes.open import DICOM_SUFFIXES, is_volume_file, volume_suffix


@dataclass(frozen=True)
class Case:
    """One image, perhaps with its label.

    Args:
        id: Name of the case, unique in its batch: the file's name without suffix.
        image: File, or folder of a DICOM series.
        label: File with the ground truth.
    """

    id: str
    image: Path
    label: Path | None = None

    def as_dict(self) -> dict[str, str]:
        """The case as MONAI's dictionary transforms take it: paths by ``"image"`` and, if there is one, ``"label"``."""
        return {"image": str(self.image)} | ({} if self.label is None else {"label": str(self.label)})


@dataclass(frozen=True)
class Dataset:
    """What a ``dataset.json`` in the layout of the Medical Segmentation Decathlon lists.

    Args:
        name: Name of the data set.
        labels: Name of each label value, 0 included.
        training: Cases with labels.
        validation: Cases with labels, kept out of training.
        test: Cases, with or without labels.
    """

    name: str
    labels: Mapping[int, str]
    training: list[Case]
    validation: list[Case] = field(default_factory=list)
    test: list[Case] = field(default_factory=list)


def case_id(path: Path | str) -> str:
    """Name of the case at ``path``: the last part, without the suffix of a volume."""
    path = Path(path)
    suffix = volume_suffix(path)
    return path.name[: -len(suffix)] if suffix else path.resolve().name


def output_name(case: str, suffix: str = "seg") -> str:
    """File name of a case's output, ``<case>_<suffix>.nii.gz``."""
    return f"{case}_{suffix}.nii.gz"


def find_cases(inputs: Iterable[Path | str], *, skip_outputs: bool = False) -> list[Case]:
    """Cases at the given paths, each with a name of its own.

    Args:
        inputs: Files, DICOM series folders, and folders of such files or of such folders (not searched any deeper), taken in order of
            name.
        skip_outputs: Leave out what ``stseg3d segment`` wrote into a folder: ``<case>_seg.*`` with ``<case>_seg.json`` beside it.

    Raises:
        FileNotFoundError: If a path does not exist.
        ValueError: If a folder holds no volume, a file is not one, or two cases have one name.
    """
    cases: dict[str, Case] = {}
    for image in (image for source in inputs for image in _images_at(Path(source), skip_outputs=skip_outputs)):
        case = Case(case_id(image), image)
        if case.id in cases:
            msg = f"{image}: case name must be unique, got {case.id!r} twice, also from {cases[case.id].image}"
            raise ValueError(msg)
        cases[case.id] = case
    return list(cases.values())


def load_dataset(path: Path | str) -> Dataset:
    """Data set that a ``dataset.json`` lists, its paths relative to that file; the files exist.

    Args:
        path: The file. ``"training"`` is due; ``"validation"``, ``"test"`` and ``"labels"`` are not. Entries are
            ``{"image": ..., "label": ...}``; for the test list a path alone will do.

    Raises:
        FileNotFoundError: If it, or a file it lists, does not exist.
        ValueError: If it is not such a file.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "dataset.json"
    if not path.is_file():
        msg = f"{path}: file must exist, got none"
        raise FileNotFoundError(msg)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        msg = f"{path}: file must be JSON, got: {error}"
        raise ValueError(msg) from error
    if not isinstance(content, dict) or not content.get("training"):
        got = sorted(content) if isinstance(content, dict) else type(content).__name__
        msg = f'{path}: file must list cases under "training", got {got}'
        raise ValueError(msg)
    lists = {key: _listed(content.get(key, []), key, path) for key in ("training", "validation", "test")}
    _check_exist(lists, path)
    return Dataset(str(content.get("name", path.parent.name)), _label_names(content.get("labels", {}), path), **lists)


def _images_at(path: Path, *, skip_outputs: bool) -> list[Path]:
    if not path.exists():
        msg = f"{path}: file or folder must exist, got none"
        raise FileNotFoundError(msg)
    if not path.is_dir():
        if not is_volume_file(path):
            msg = f"{path}: file must be a volume, such as .nii.gz, got {path.suffix or 'no suffix'!r}"
            raise ValueError(msg)
        return [path]
    files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    volumes = [p for p in files if is_volume_file(p) and volume_suffix(p).lower() not in DICOM_SUFFIXES]
    volumes = [p for p in volumes if not (skip_outputs and _is_output(p))]
    if volumes:
        return volumes
    if any(is_dicom(p) for p in files):
        return [path]
    series = [d for d in sorted(path.iterdir()) if d.is_dir() and any(is_dicom(p) for p in sorted(d.iterdir()) if p.is_file())]
    if series:
        return series
    msg = f"{path}: folder must hold volumes, such as .nii.gz, or DICOM series, got {len(files)} other files"
    raise ValueError(msg)


def _is_output(path: Path) -> bool:
    name = case_id(path)
    return name.endswith("_seg") and path.with_name(f"{name}.json").is_file()


def is_dicom(path: Path) -> bool:
    """Whether the file's name or first bytes are those of DICOM."""
    if volume_suffix(path).lower() in DICOM_SUFFIXES:
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _listed(entries: Any, key: str, path: Path) -> list[Case]:
    cases = []
    for entry in entries:
        found = {"image": entry} if isinstance(entry, str) and key == "test" else entry
        due = ("image",) if key == "test" else ("image", "label")
        if not isinstance(found, dict) or not all(isinstance(found.get(k), str) for k in due):
            msg = f"{path}: each case under {key!r} must give {' and '.join(due)} as paths, got {entry!r}"
            raise ValueError(msg)
        image = path.parent / found["image"]
        label = path.parent / found["label"] if isinstance(found.get("label"), str) else None
        cases.append(Case(case_id(image), image, label))
    return cases


def _check_exist(lists: Mapping[str, list[Case]], path: Path) -> None:
    files = [file for cases in lists.values() for case in cases for file in (case.image, case.label) if file is not None]
    missing = [file for file in files if not file.exists()]
    if missing:
        msg = f"{path}: files listed must exist, got {len(missing)} of {len(files)} missing, the first {missing[0]}"
        raise FileNotFoundError(msg)


def _label_names(labels: Any, path: Path) -> dict[int, str]:
    """Names by value; also from nnU-Net's values by name."""
    try:
        if all(str(key).isdigit() for key in labels):
            return {int(value): str(name) for value, name in labels.items()}
        return {int(value): str(name) for name, value in labels.items()}
    except (TypeError, ValueError, AttributeError) as error:
        msg = f'{path}: "labels" must give a name for each value, got {labels!r}'
        raise ValueError(msg) from error
