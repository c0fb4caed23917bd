"""Splits: the cases of a data set divided into folds by patient, written down once and used again."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from stseg3d.machine.files import atomic_write_text
from stseg3d.machine.json_files import read_json
from stseg3d.plan import json_text
from stseg3d.plan.json_values import build, dump
from stseg3d.planning.findings import findings_text, has_errors
from stseg3d.planning.layouts import DataFound, find_data
from stseg3d.planning.layouts.split import drawn, patients_of

FILE = Path("folds", "splits.json")
VALIDATION_SHARE = 0.1  # of the cases that train; they choose the checkpoint, so that the held-out ones choose nothing
FEWEST_OTHERS = 2  # patients beside those held out: one trains and one chooses the checkpoint


@dataclass(frozen=True)
class Fold:
    """Ids of the cases of one fold.

    Attributes:
        training: Cases that train.
        validation: Cases that choose the checkpoint.
        held_out: Cases that do neither, on which the networks are scored.
    """

    training: tuple[str, ...]
    validation: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass(frozen=True)
class Splits:
    """All folds of a data set.

    Attributes:
        seed: Seed by which they were drawn.
        patients: Patient of each case, or whatever else must not be divided.
        folds: The folds; each case is held out in one.
    """

    seed: int
    patients: Mapping[str, str]
    folds: tuple[Fold, ...]


def labelled_data(data: Path) -> DataFound:
    """The labelled cases of a ``dataset.json``, those for training and for validation together under ``training``.

    Raises:
        OSError: If a file cannot be read.
        ValueError: If the data have an error; the message lists all.
    """
    found = find_data(data)
    if has_errors(found.findings):
        msg = f"{data}: {findings_text(found.findings).rstrip()}"
        raise ValueError(msg)
    return replace(found, training=found.training + found.validation, validation=(), test=())


def divide(patients: Mapping[str, str], folds: int, *, seed: int = 0) -> list[list[str]]:
    """Cases of each fold: no patient is divided, and folds differ as little in their numbers of cases as patients allow.

    Args:
        patients: Patient of each case.
        folds: Number of folds.
        seed: Seed; the order of the cases does not matter.

    Raises:
        ValueError: If there are fewer than two folds, or too few patients for them.
    """
    sizes = Counter(patients.values())
    if not 2 <= folds <= len(sizes):
        msg = f"folds must be from 2 to the number of patients, {len(sizes)}, got {folds}"
        raise ValueError(msg)
    order = sorted(sizes, key=lambda patient: (-sizes[patient], hashlib.sha256(f"{seed}/{patient}".encode()).digest()))
    held: list[list[str]] = [[] for _ in range(folds)]
    counts = [0] * folds
    for patient in order:
        smallest = min(range(folds), key=lambda n: (counts[n], len(held[n])))
        held[smallest].append(patient)
        counts[smallest] += sizes[patient]
    if any(len(sizes) - len(of) < FEWEST_OTHERS for of in held):
        rule = f"folds must leave {FEWEST_OTHERS} patients beside those held out, one to train and one to choose the checkpoint"
        msg = f"{rule}, got {folds} folds of {len(sizes)} patients"
        raise ValueError(msg)
    return [[case for case, patient in patients.items() if patient in of] for of in held]


def splits_of(found: DataFound, folds: int, *, seed: int = 0) -> Splits:
    """Folds of labelled data.

    Raises:
        ValueError: If the folds are impossible, see :func:`divide`.
    """
    of_case = patients_of(found)
    patients = {entry.id: of_case[entry.id] for entry in found.training}
    out = []
    for n, held in enumerate(divide(patients, folds, seed=seed)):
        others = [entry for entry in found.training if entry.id not in held]
        choosing = drawn(others, patients, due=VALIDATION_SHARE * len(others), seed=seed + n, least=2)
        training = [entry.id for entry in others if entry.id not in choosing]
        out.append(Fold(tuple(training), tuple(entry.id for entry in others if entry.id in choosing), tuple(held)))
    return Splits(seed, patients, tuple(out))


def kept_splits(bundle: Path, found: DataFound, folds: int, *, seed: int = 0) -> Splits:
    """Folds that are written down in a bundle, or new ones, which are written down.

    Args:
        bundle: Folder of the bundle.
        found: Labelled data.
        folds: Number of folds.
        seed: Seed of new ones.

    Raises:
        ValueError: If those written down are of another number or of other cases, or new ones are impossible.
    """
    path = bundle / FILE
    if not path.is_file():
        splits = splits_of(found, folds, seed=seed)
        path.parent.mkdir(exist_ok=True)
        atomic_write_text(path, json_text(dump(splits)))
        return splits
    splits = read_splits(bundle)
    begin = f"remove {path.parent} to begin anew"
    if len(splits.folds) != folds:
        msg = f"{path}: folds must be those begun with, {len(splits.folds)}, got {folds}; {begin}"
        raise ValueError(msg)
    of_case = patients_of(found)
    changed = dict(splits.patients).items() ^ {entry.id: of_case[entry.id] for entry in found.training}.items()
    if changed:
        some = ", ".join(sorted({case for case, _ in changed})[:5])
        msg = f"{path}: cases and their patients must be those begun with, got a change of {some}; {begin}"
        raise ValueError(msg)
    return splits


def read_splits(bundle: Path) -> Splits:
    """Folds that are written down in a bundle.

    Raises:
        FileNotFoundError: If there are none.
        ValueError: If the file is not one of folds.
    """
    path = bundle / FILE
    if not path.is_file():
        msg = f"{path}: file must exist, got none; `stseg3d train {bundle} --folds 5` writes it and trains the folds"
        raise FileNotFoundError(msg)
    found: Splits = build(Splits, read_json(path.read_bytes(), str(path)), str(path))
    return found
