"""Out-of-fold predictions: those of a rough network for cases that it was not trained on, as at inference."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stseg3d.machine.files import atomic_write
from stseg3d.volumes import Case, Dataset

Predictions = dict[str, NDArray[np.float16]]
PREDICTIONS_PREFIX = "predicted"


def training_cases(dataset: Dataset, folds: int = 0, fold: int | None = None) -> list[dict[str, Any]]:
    """Training cases as dictionaries for MONAI's transforms, with their ``id``; without those of a fold, every ``folds``-th one."""
    return with_ids(case for n, case in enumerate(dataset.training) if fold is None or n % folds != fold)


def held_out(dataset: Dataset, folds: int, fold: int) -> list[Case]:
    """The cases that :func:`training_cases` leaves out."""
    return dataset.training[fold::folds]


def with_ids(cases: Iterable[Case]) -> list[dict[str, Any]]:
    """Paths by ``image`` and ``label``, the ``id``, and the ``label_values``."""
    return [{**case.as_dict(), "label_values": case.label_values} for case in cases]


def check_folds(dataset: Dataset, folds: int) -> None:
    """Refuse an impossible number of folds.

    Raises:
        ValueError: If it is below two or above the number of training cases, or two cases share an id.
    """
    cases = dataset.training
    if not 2 <= folds <= len(cases):
        msg = f"folds must be 0, or from 2 to the number of training cases, {len(cases)}, got {folds}"
        raise ValueError(msg)
    check_ids([*cases, *dataset.validation])


def check_ids(cases: Iterable[Case]) -> None:
    """Refuse cases whose predictions would overwrite each other.

    Raises:
        ValueError: If two cases share an id.
    """
    seen: dict[str, Case] = {}
    for case in cases:
        if case.id in seen:
            msg = f"{case.image}: case id must be unique, got {case.id!r} twice, also from {seen[case.id].image}"
            raise ValueError(msg)
        seen[case.id] = case


def fold_name(fold: int, folds: int) -> str:
    """Name of a fold's files, such as ``fold0of3``; the configs call its training ``rough_fold0of3``."""
    return f"fold{fold}of{folds}"


def predictions_path(stages: Path, part: str) -> Path:
    """File of the predictions of a fold, or of another part of the data set."""
    return stages / f"{PREDICTIONS_PREFIX}_{part}.npz"


def save_predictions(found: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Write probabilities ``(K - 1, *S)`` by case id, as float16, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        # Ids are keys behind a letter: "file" is an argument of savez.
        np.savez_compressed(file, **{f"_{name}": array.astype(np.float16) for name, array in found.items()})  # type: ignore[arg-type]


def is_predicted(cases: Iterable[Case], path: Path) -> bool:
    """Whether a file has a prediction for each of the cases and no other."""
    if not path.is_file():
        return False
    with np.load(path, allow_pickle=False) as file:
        return {name.removeprefix("_") for name in file.files} == {case.id for case in cases}


def remove_predictions(stages: Path, *, but: Collection[Path]) -> None:
    """Remove predictions of earlier trainings with other folds, which :func:`load_predictions` would load."""
    for path in stages.glob(f"{PREDICTIONS_PREFIX}_*.npz"):
        if path not in but:
            path.unlink()


def load_predictions(stages: str | Path) -> Predictions:
    """All predictions in a folder, by case id."""
    found: Predictions = {}
    for path in sorted(Path(stages).glob(f"{PREDICTIONS_PREFIX}_*.npz")):
        with np.load(path, allow_pickle=False) as file:
            found |= {name.removeprefix("_"): file[name] for name in file.files}
    return found
