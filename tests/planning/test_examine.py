"""The facts of a case are those of its files, and what is wrong with these is found, not raised."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from stseg3d.planning.examine import examine, finding_of, objects_of
from stseg3d.planning.findings import Finding, findings_text
from stseg3d.planning.fingerprint import Fingerprint, Intensity
from stseg3d.planning.survey import survey
from stseg3d.volumes import Case, Dataset
from stseg3d.volumes.label_values import LabelValues
from tests.planning.spheres import fingerprint_of, spheres, write_case


def case_of(folder: Path, label, **options) -> Case:
    write_case(folder, "a", label, **options)
    return Case("a", folder / "images/a.nii.gz", folder / "labels/a.nii.gz")


def test_objects_have_their_count_size_place_gap_and_border() -> None:
    label = np.zeros((20, 10, 6), np.uint8)
    label[2:6, 1:4, 1:3] = 1
    label[10:12, 1:4, 1:3] = 1
    label[18:20, 5:9, 0:6] = 3
    found = objects_of(label, (1.0, 2.0, 0.5))
    assert set(found) == {"1", "3"}
    assert (found["1"].count, found["1"].voxels, found["1"].at_border) == (2, 24 + 12, 0)
    assert found["1"].volumes_mm3 == (24.0, 12.0)
    assert found["1"].extents_mm == ((4.0, 6.0, 1.0), (2.0, 6.0, 1.0))
    assert found["1"].centres[0] == (0.2, 0.25, 0.333)
    assert found["1"].gaps_mm[0] == pytest.approx(5.0)  # from voxel 5 to voxel 10
    assert found["3"].at_border == 1
    assert found["3"].gaps_mm[0] == pytest.approx(np.hypot(7, 4), abs=0.01)


def test_a_map_without_objects_has_none_and_one_object_has_no_gap() -> None:
    assert objects_of(np.zeros((4, 4, 1), np.uint8), (1, 1, 1)) == {}
    assert objects_of(spheres((12, 12, 12), (6, 6, 6)), (1, 1, 1))["1"].gaps_mm == ()


def test_facts_lie_along_the_axes_of_the_world_however_the_file_is_stored(tmp_path: Path) -> None:
    label = spheres((16, 20, 12), (4, 5, 6), radius=3)
    write_case(tmp_path, "a", label, spacing=(1, 2, 3))
    turned = [nib.load(tmp_path / kind / "a.nii.gz") for kind in ("images", "labels")]
    for kind, image in zip(("images", "labels"), turned, strict=True):
        nib.save(image.as_reoriented(nib.orientations.axcodes2ornt("LSA")[[0, 1, 2]]), tmp_path / kind / "b.nii.gz")
    one, other = (examine(Case(n, tmp_path / f"images/{n}.nii.gz", tmp_path / f"labels/{n}.nii.gz")).facts for n in "ab")
    assert one
    assert other
    assert one.orientation == "RAS" != other.orientation
    assert (one.shape, one.spacing_mm) == (other.shape, other.spacing_mm) == ((16, 20, 12), (1.0, 2.0, 3.0))
    assert one.classes["1"].extents_mm == other.classes["1"].extents_mm


def test_intensities_are_those_of_the_voxels_and_of_the_objects(tmp_path: Path) -> None:
    found = examine(case_of(tmp_path, spheres((24, 24, 24), (12, 12, 12), radius=8), noise=0))
    assert found.facts
    assert found.facts.foreground[0].median == 150
    assert (found.facts.intensity[0].low, found.facts.intensity[0].high) == (50, 150)


def test_intensity_of_nothing_is_zero_and_outliers_do_not_move_the_deviation() -> None:
    assert Intensity.of(np.empty(0)) == Intensity(*[0.0] * 7)
    values = np.append(np.arange(1000), 1e9)
    assert Intensity.of(values).sd < 300


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda label: label.astype(np.float32) * 0.5, "labels must be whole numbers"),
        (lambda label: -label.astype(np.int16), "labels must not be negative"),
        (lambda label: np.where(label > 0, np.nan, 0).astype(np.float32), "labels must be finite"),
    ],
)
def test_labels_that_are_none_are_findings(tmp_path: Path, change, rule: str) -> None:
    case = case_of(tmp_path, spheres((16, 16, 16), (8, 8, 8)))
    label = nib.load(case.label)
    nib.save(nib.Nifti1Image(change(np.asarray(label.dataobj)), label.affine), case.label)
    found = examine(case)
    assert found.facts is None
    assert [(f.level, f.case) for f in found.findings] == [("error", "a")]
    assert found.findings[0].rule.startswith(rule)


def test_another_grid_nan_and_a_missing_file_are_findings_of_their_cases(tmp_path: Path) -> None:
    cases = [case_of(tmp_path / name, spheres((16, 16, 16), (8, 8, 8))) for name in ("grid", "nan", "gone")]
    nib.save(nib.Nifti1Image(np.ones((16, 16, 16), np.uint8), np.diag([1, 1, 2, 1])), cases[0].label)
    image = np.full((16, 16, 16), np.nan, np.float32)
    nib.save(nib.Nifti1Image(image, np.eye(4)), cases[1].image)
    Path(cases[2].image).unlink()
    rules = [examine(case).findings[0].rule for case in cases]
    assert "same grid" in rules[0]
    assert "finite" in rules[1]
    assert "exist" in rules[2]


def test_a_constant_image_and_an_empty_label_are_told(tmp_path: Path) -> None:
    case = case_of(tmp_path, np.zeros((8, 8, 8), np.uint8), noise=0)
    assert {f.rule for f in examine(case).findings} == {"an image has more than one value", "a label marks an object"}


def test_a_finding_keeps_rule_and_value_apart() -> None:
    found = finding_of("a", "/x/y.nii.gz: labels must be whole numbers, got 0.5; 3 of 9 voxels are not")
    assert (found.rule, found.value) == ("labels must be whole numbers", "0.5; 3 of 9 voxels are not (y.nii.gz)")


def dataset_of(folder: Path, labels, names: dict[int, str]) -> Dataset:
    values = LabelValues(names)
    cases = []
    for n, label in enumerate(labels):
        write_case(folder, f"c{n}", label)
        cases.append(Case(f"c{n}", folder / f"images/c{n}.nii.gz", folder / f"labels/c{n}.nii.gz", values))
    return Dataset("spheres", values, cases)


def test_all_findings_come_in_one_survey_and_then_there_is_no_fingerprint(tmp_path: Path) -> None:
    data = dataset_of(tmp_path, [spheres((16, 16, 16), (8, 8, 8)) for _ in range(3)], {0: "background", 1: "ball"})
    for n in (0, 2):
        nib.save(nib.Nifti1Image(np.full((16, 16, 16), 0.5, np.float32), np.eye(4)), data.training[n].label)
    found = survey(data)
    assert found.fingerprint is None
    assert [f.case for f in found.findings if f.level == "error"] == ["c0", "c2"]


def test_a_class_that_never_occurs_is_an_error_and_a_rare_one_a_warning(tmp_path: Path) -> None:
    labels = [spheres((16, 16, 16), (4, 8, 8), (12, 8, 8), radius=3)[:, :, :] for _ in range(4)]
    for label in labels[1:]:
        label[label == 2] = 0
    found = survey(dataset_of(tmp_path, labels, {0: "background", 1: "one", 2: "two", 3: "three"}))
    assert [(f.level, f.rule.split(": ")[1]) for f in found.findings] == [("warning", "two"), ("error", "three")]


@pytest.mark.slow
def test_several_processes_find_what_one_finds(tmp_path: Path) -> None:
    data = dataset_of(tmp_path, [spheres((16, 16, 16), (8, 8, 4 + n)) for n in range(2)], {0: "background", 1: "ball"})
    assert survey(data, processes=2) == survey(data, processes=1)


def test_a_fingerprint_survives_its_file(tmp_path: Path) -> None:
    before = fingerprint_of([spheres((16, 16, 16), (8, 8, 8))], {"1": "ball"})
    assert Fingerprint.read(before.write(tmp_path / "fingerprint.json")) == before


def surveyed(folder: Path, label, labels: LabelValues):
    for name in "abc":
        write_case(folder, name, label)
    cases = [Case(n, folder / f"images/{n}.nii.gz", folder / f"labels/{n}.nii.gz", labels) for n in "abc"]
    return survey(Dataset("x", labels, cases))


def test_a_gap_between_values_is_no_class_that_is_missing_and_a_large_one_is_refused(tmp_path: Path) -> None:
    label = spheres((24, 24, 24), (6, 6, 6), (16, 16, 16), values=(1, 4))
    found = surveyed(tmp_path, label, LabelValues.parse({"background": 0, "b": 4, "a": 1}, "x"))
    assert found.findings == ()
    assert found.fingerprint
    assert found.fingerprint.labels == {"1": "a", "4": "b"}
    label[label == 4] = 255
    found = surveyed(tmp_path, label, LabelValues())
    assert [(f.level, f.rule, f.value) for f in found.findings] == [
        ("error", "values of classes leave out at most 32 numbers", "253 left out by 1, 255")
    ]


def test_the_fingerprint_keeps_regions_and_a_region_of_all_values_may_lack_some(tmp_path: Path) -> None:
    label = spheres((24, 24, 24), (6, 6, 6), (16, 16, 16), values=(1, 4))
    values = LabelValues.parse({"background": 0, "whole": [1, 2, 4], "core": [2, 4], "ignore": 9}, "x")
    found = surveyed(tmp_path, label, values)
    assert [f.rule for f in found.findings] == ["a class occurs in a training case: value 2"]
    assert found.fingerprint
    found.fingerprint.write(tmp_path / "fingerprint.json")
    assert Fingerprint.read(tmp_path / "fingerprint.json").regions == {"whole": (1, 2, 4), "core": (2, 4)}
    assert surveyed(tmp_path, label, LabelValues.parse({"background": 0, "whole": [1, 2, 4]}, "x")).findings == ()


def test_values_without_names_are_ids_of_objects_where_cases_hold_different_numbers_of_them(tmp_path: Path) -> None:
    places = [(4, 8, 8), (12, 8, 8), (8, 4, 8), (8, 12, 8), (8, 8, 3)]
    labels = [spheres((16, 16, 16), *places[:count], radius=2) for count in (5, 3, 4)]
    found = survey(dataset_of(tmp_path, labels, {}))
    assert found.fingerprint
    assert found.fingerprint.labels == {"1": "object"}
    alike = [spheres((16, 16, 16), *places, radius=2) for _ in range(3)]
    found = survey(dataset_of(tmp_path / "alike", alike, {}))
    assert found.fingerprint
    assert list(found.fingerprint.labels.values()) == [f"class {value}" for value in range(1, 6)]


@pytest.mark.parametrize(
    ("sentence", "rule", "value"),
    [
        ("/x/a.nii.gz: file must be sound gzip data, got: it ends early", "file must be sound gzip data", "it ends early (a.nii.gz)"),
        ("[Errno 5] Input/output error: '/x/a.nii'", "a case can be read", "[Errno 5] Input/output error: '/x/a.nii'"),
        ("labels must be whole numbers, got 0.5", "labels must be whole numbers", "0.5"),
    ],
)
def test_the_rule_of_a_finding_is_the_same_for_all_files(sentence: str, rule: str, value: str) -> None:
    found = finding_of("a", sentence)
    assert (found.rule, found.value) == (rule, value)


def test_large_values_cost_no_more_than_small_ones() -> None:
    label = np.zeros((8, 8, 8), np.int64)
    label[1:3, 1:3, 1:3], label[5:7] = 2_000_000_000, 70_000
    assert {value: (found.count, found.voxels) for value, found in objects_of(label, (1, 1, 1)).items()} == {
        "70000": (1, 128),
        "2000000000": (1, 8),
    }


def numbered(count: int) -> np.ndarray:
    """A picture of dots with values from 1 to a number."""
    label = np.zeros((16, 16, 1), np.uint8)
    label[1:15:2, 1:15:2, 0].flat = [n if n <= count else 0 for n in range(1, 50)]
    return label


@pytest.mark.parametrize(
    ("counts", "names"), [((20, 30, 25), {"1": "object"}), ((20, 20, 20), {str(n): f"class {n}" for n in range(1, 21)})]
)
def test_many_values_without_names_are_objects_where_each_case_counts_to_another_number(tmp_path: Path, counts, names) -> None:
    found = survey(dataset_of(tmp_path, [numbered(n) for n in counts], {}))
    assert found.fingerprint
    assert found.fingerprint.labels == names
    assert [f.value for f in found.findings if f.rule.startswith("values without names")] == ["20 values"] * (len(names) == 20)


def test_labels_without_any_object_and_names_that_are_no_channels_are_errors(tmp_path: Path) -> None:
    data = dataset_of(tmp_path, [np.zeros((8, 8, 8), np.uint8)] * 2, {0: "background", 1: "ball"})
    found = survey(data)
    assert [(f.level, f.rule) for f in found.findings if f.level == "error"] == [("error", "a training case has an object")]
    rules = [(f.rule, f.value) for f in survey(data, ["t1", "t2"]).findings if f.level == "error"]
    assert rules == [("an image has as many channels as are named", "1 for t1, t2")]


def test_the_progress_of_a_survey_knows_how_many_cases_come(tmp_path: Path) -> None:
    counts = []
    survey(dataset_of(tmp_path, [spheres((8, 8, 8), (4, 4, 4))] * 3, {}), progress=lambda cases, count: counts.append(count) or cases)
    assert counts == [3]


def test_a_report_names_each_rule_once_with_the_first_cases_in_lines_of_110_columns() -> None:
    grids = [Finding("error", f"patient_{n}", "label and image lie on one grid", f"{'voxels ' * 16}{n}") for n in range(5)]
    empty = [Finding("warning", f"patient_{n}", "a label marks an object", "background alone") for n in range(40)]
    lines = findings_text([*empty, *grids, Finding("warning", "", "a class is rare: kidney", "2")]).splitlines()
    assert lines[:2] == ["5 errors, 41 warnings", "error: label and image lie on one grid"]
    assert lines[8] == "    and 2 more"
    assert lines[9:] == [
        "warning: a label marks an object",
        "    patient_0, patient_1, patient_2 and 37 more: background alone",
        "warning: a class is rare: kidney",
        "    got 2",
    ]
    assert max(map(len, lines)) <= 110
    assert findings_text([]) == ""
