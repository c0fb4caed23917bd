"""Folds never divide a patient, hold out each case once, and are the same ever after."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stseg3d.planning.layouts import DataFound
from stseg3d.selection.splits import FILE, Splits, divide, kept_splits, labelled_data, splits_of
from tests.tiny import tiny_dataset


def ids(n: int, a_patient: int = 1) -> dict[str, str]:
    return {f"case{i}": f"patient{i // a_patient}" for i in range(n)}


def data(folder: Path, count: int, a_patient: int = 1) -> DataFound:
    path = tiny_dataset(folder, [np.full((4, 4, 4), n % 2, np.uint8) for n in range(count)])
    content = json.loads(path.read_text())
    for n, entry in enumerate((*content["training"], *content["validation"])):
        entry |= {"id": f"case{n}", "group": f"patient{n // a_patient}"}
    path.write_text(json.dumps(content))
    return labelled_data(path)


def check(splits: Splits) -> None:
    cases = sorted(splits.patients)
    assert sorted(case for fold in splits.folds for case in fold.held_out) == cases
    for fold in splits.folds:
        parts = [fold.training, fold.validation, fold.held_out]
        assert all(parts)
        assert sorted(case for part in parts for case in part) == cases
        patients = [{splits.patients[case] for case in part} for part in parts]
        assert sum(map(len, patients)) == len(set().union(*patients))


@pytest.mark.parametrize(("patients", "folds"), [(ids(5), 5), (ids(11), 5), (ids(3), 3), (ids(12, 3), 2), (ids(7, 2), 4)])
def test_all_cases_are_held_out_once_and_no_patient_is_divided(patients: dict[str, str], folds: int) -> None:
    for seed in range(5):
        held = divide(patients, folds, seed=seed)
        assert sorted(case for fold in held for case in fold) == sorted(patients)
        of = [{patients[case] for case in fold} for fold in held]
        assert sum(map(len, of)) == len({*patients.values()})
        largest = max(list(patients.values()).count(p) for p in patients.values())
        assert max(map(len, held)) - min(map(len, held)) <= largest


def test_one_seed_gives_one_split_whatever_the_order_and_another_gives_another() -> None:
    patients = ids(12)
    turned = dict(reversed(patients.items()))
    assert [sorted(fold) for fold in divide(patients, 3)] == [sorted(fold) for fold in divide(turned, 3)]
    assert divide(patients, 3) != divide(patients, 3, seed=1)


@pytest.mark.parametrize(
    ("patients", "folds", "rule"),
    [
        (ids(6), 1, "folds must be from 2 to the number of patients, 6, got 1"),
        (ids(6, 2), 4, "folds must be from 2 to the number of patients, 3, got 4"),
        (ids(3), 2, "folds must leave 2 patients beside those held out.*, got 2 folds of 3 patients"),
    ],
)
def test_impossible_folds_are_refused(patients: dict[str, str], folds: int, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        divide(patients, folds)


@pytest.mark.parametrize("a_patient", [1, 2])
def test_a_fold_trains_chooses_and_holds_out_other_patients(tmp_path: Path, a_patient: int) -> None:
    check(splits_of(data(tmp_path / "data", 8, a_patient), 4))


def test_a_split_is_written_down_and_used_again_and_a_contradiction_is_told(tmp_path: Path) -> None:
    found = data(tmp_path / "data", 6)
    first = kept_splits(tmp_path, found, 3, seed=4)
    check(first)
    before = (tmp_path / FILE).read_bytes()
    assert kept_splits(tmp_path, found, 3, seed=5) == first
    assert (tmp_path / FILE).read_bytes() == before
    with pytest.raises(ValueError, match=r"splits\.json: folds must be those begun with, 3, got 2; remove .*folds to begin anew"):
        kept_splits(tmp_path, found, 2)
    with pytest.raises(ValueError, match="cases and their patients must be those begun with, got a change of case6"):
        kept_splits(tmp_path, data(tmp_path / "more", 7), 3)
