"""Splits: patients stay whole, every share is told, and nothing is drawn from too few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from stseg3d.planning.findings import Finding, findings_table, findings_text, has_errors
from stseg3d.planning.layouts import DataFound, Entry, as_dataset_json, split
from stseg3d.planning.layouts import split as split_cases
from stseg3d.planning.layouts.split import ENOUGH, NAMES_GROUP, ONE_SIDE, SCANS, TEST_PATIENT, TWO_PATIENTS


def data(ids: str | Sequence[str], groups: Sequence[str] = ()) -> DataFound:
    names = ids.split() if isinstance(ids, str) else ids
    return DataFound(
        tuple(Entry(n, (Path(f"{n}.nii"),), Path(f"{n}_seg.nii"), g) for n, g in zip(names, groups or [""] * len(names), strict=True))
    )


def ids(entries: Sequence[Entry]) -> set[str]:
    return {entry.id for entry in entries}


def rules(found: DataFound) -> list[str]:
    return [f.rule for f in found.findings]


@pytest.mark.parametrize("seed", range(5))
def test_patients_stay_whole(seed: int) -> None:
    names = [f"p{p}_{scan}" for p in range(12) for scan in range(1 + p % 3)]
    found = split(data(names), r"p(\d+)", validation=0.25, test=0.2, seed=seed)
    parts = [{entry.group for entry in part} for part in (found.training, found.validation, found.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 12
    assert ids(found.entries) == set(names)
    assert [len(found.validation), len(found.test)] == [6, 5]
    assert not has_errors(found.findings)


def test_a_split_depends_on_names_and_seed_alone() -> None:
    names = [f"case{n}" for n in range(40)]
    drawn = ids(split(data(names)).validation)
    assert drawn == ids(split(data(names[::-1])).validation)
    assert drawn != ids(split(data(names), seed=1).validation)
    assert len(drawn) == 8
    assert len(drawn & ids(split(data([*names, *(f"case{n}" for n in range(40, 50))])).validation)) >= 5


@pytest.mark.parametrize(
    ("number", "test", "parts"),
    [(2, 0, (1, 1, 0)), (3, 0, (2, 1, 0)), (3, 0.1, (1, 1, 1)), (4, 0.5, (1, 1, 2)), (2, 0.3, (1, 1, 0)), (9, 0.2, (5, 2, 2))],
)
def test_few_cases(number: int, test: float, parts: tuple[int, int, int]) -> None:
    found = split(data([f"c{n}x" for n in range(number)]), test=test)
    assert tuple(map(len, (found.training, found.validation, found.test))) == parts
    assert ENOUGH in rules(found)
    assert (TEST_PATIENT in rules(found)) == (test > 0 and number < 3)


@pytest.mark.parametrize(("names", "group"), [("a", None), ("sub-1_ses-1 sub-1_ses-2", None), ("p1_a p1_b", r"p\d")])
def test_one_patient_only_trains(names: str, group: str | None) -> None:
    found = split(data(names), group)
    assert (ids(found.training), found.validation, rules(found)) == (set(names.split()), (), [TWO_PATIENTS])
    assert found.findings[0].level == "warning"


def test_groups_of_the_data_and_of_bids_count() -> None:
    found = split(data("a b c d", ["1", "1", "2", "2"]), validation=0.5)
    assert ids(found.training) in ({"a", "b"}, {"c", "d"})
    found = split(data("sub-1_ses-1 sub-1_ses-2 sub-2_ses-1 sub-2_ses-2"), validation=0.5)
    assert len({entry.group for entry in found.training}) == len({entry.group for entry in found.validation}) == 1
    assert {entry.group for entry in found.entries} == {"sub-1", "sub-2"}
    assert as_dataset_json(found, Path())["training"][0]["group"] == found.training[0].group


def test_equal_images_stay_together() -> None:
    found = replace(data("p1_1 p1_2 p2_1 p2_2 p3_1", ["p1", "p1", "p2", "p2", "p3"]), twins=(("p1_2", "p2_1"),))
    for seed in range(4):
        parts = split(found, validation=0.4, seed=seed)
        assert ids(parts.training) in ({"p1_1", "p1_2", "p2_1", "p2_2"}, {"p3_1"})


def test_lists_that_are_there_stay() -> None:
    given = replace(data("a b c d e f g h i j"), validation=data("v").training, test=(Entry("t", (Path("t.nii"),)),))
    assert split(given).training == given.training
    assert ids(split(given).validation) == {"v"}
    found = split(given, test=0.2)
    assert (len(found.training), len(found.validation), len(found.test)) == (8, 1, 3)


@pytest.mark.parametrize(("group", "level"), [(r"p\d", "error"), (None, "warning")])
def test_a_patient_on_two_sides_is_told(group: str | None, level: str) -> None:
    names = ("p1_a p2_a", "p1_b") if group else ("sub-1_a sub-2_a", "sub-1_b")
    found = split(replace(data(names[0]), validation=data(names[1]).training), group)
    astray = Finding(level, names[1].split("_")[0], ONE_SIDE, "training and validation")  # type: ignore[arg-type]
    assert astray in found.findings


@pytest.mark.parametrize(
    ("names", "warned"),
    [
        ("p1_1 p1_2 p2_1", True),
        ("p1-t1 p1-t2", True),
        ("x_slice1 x_slice2", True),
        ("anna__ct anna__mr ben__ct", True),
        ("a_left a_right", True),
        ("p01_2CH_ED p01_4CH_ED p02_2CH_ED", True),
        ("BraTS20_Training_001 BraTS20_Training_002", False),
        ("case_0001 case_0002 case_0003", False),
        ("spine1 spine2", False),
        ("a b c", False),
        ("sub-1_ses-1 sub-1_ses-2 sub-2_ses-1", False),
    ],
)
def test_ids_that_look_as_scans_of_one_patient(names: str, warned: bool) -> None:
    assert (SCANS in rules(split(data(names)))) == warned
    assert SCANS not in rules(split(data(names), r"(\w+)"))


def test_a_group_that_some_cases_lack() -> None:
    found = split(data("p1_a p2_a other"), r"p(\d)_")
    assert [(f.level, f.case) for f in found.findings if f.rule == NAMES_GROUP] == [("error", "other")]


def test_the_path_may_name_the_patient() -> None:
    found = DataFound(tuple(Entry(f"s{n}", (Path(f"x/p{n // 2}/s{n}.nii"),), Path("l")) for n in range(4)))
    assert {entry.id: entry.group for entry in split(found, r"p(\d)/").entries} == {"s0": "0", "s1": "0", "s2": "1", "s3": "1"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"validation": 1.0}, "validation must be a share"),
        ({"test": -0.1}, "test must"),
        ({"validation": 0.5, "test": 0.5}, "below 1 together"),
    ],
)
def test_shares_out_of_range(given: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        split_cases(data("a b"), **given)


def test_a_group_that_is_no_expression() -> None:
    with pytest.raises(ValueError, match=r"group must be a regular expression such as 'p\(\\d\+\)', got '\('"):
        split(data("a"), "(")


# --- the report --------------------------------------------------------------


def test_findings_are_one_report() -> None:
    found = [Finding("warning", "", "many cases", "3"), *(Finding("error", f"c{n}", "files exist", f"no {n}") for n in range(5))]
    assert findings_table(found).rows == [
        ["error", "files exist", "no 0, no 1, no 2 and 2 more", "c0, c1, c2 and 2 more", "5"],
        ["warning", "many cases", "3", "all", "1"],
    ]
    assert findings_text(found).startswith("5 errors, 1 warning\nerror: ")
    assert findings_text([]) == ""
    assert has_errors(found)
    assert not has_errors(found[:1])
