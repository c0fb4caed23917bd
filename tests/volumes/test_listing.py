"""The cases of a batch: found at any depth or listed, each with a name that no other has and that stays what it is."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from stseg3d.volumes import Case, find_cases, list_cases
from tests.systems import make_link, on_posix
from tests.volumes.empty import touch


def ids(*inputs: Path | str, leave_out: Path | None = None) -> list[str]:
    return [case.id for case in list_cases(inputs, leave_out=leave_out)]


# --- folders -----------------------------------------------------------------


def test_a_folder_is_searched_to_the_bottom_and_the_way_is_the_name(tmp_path: Path) -> None:
    found = touch(
        tmp_path, "in/z.nii", "in/1/image.nii.gz", "in/1/deeper/still/image.nii", "in/2/image.nii.gz", "in/2/notes.txt", "in/.trash/x.nii"
    )
    cases = list_cases([tmp_path / "in"])
    assert {case.id: case.image for case in cases} == {
        "z": found[0],
        "1__image": found[1],
        "1__deeper__still__image": found[2],
        "2__image": found[3],
    }


def test_a_name_does_not_depend_on_what_else_is_there(tmp_path: Path) -> None:
    touch(tmp_path, "1/image.nii")
    before = ids(tmp_path)
    touch(tmp_path, "2/image.nii")
    assert ids(tmp_path) == [*before, "2__image"]


def test_dicom_studies_are_searched_for_their_series(tmp_path: Path) -> None:
    touch(tmp_path, "p1/DICOM/1.dcm", "p1/DICOM/2.dcm", "p2/DICOM/1.dcm", "p3/scout/1.ima", "p3/chest/1.ima", "p4/notes.txt")
    (tmp_path / "p5").mkdir()
    (tmp_path / "p5" / "IM0001").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")  # the index of a disc is no series
    assert ids(tmp_path) == ["p1__DICOM", "p2__DICOM", "p3__chest", "p3__scout", "p5"]
    assert ids(tmp_path / "p1" / "DICOM") == ["DICOM"]


def test_dicom_files_beside_other_volumes_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "1.dcm", "2.dcm", "ct.nii")
    with caplog.at_level(logging.WARNING):
        assert ids(tmp_path) == ["ct"]
    assert caplog.messages == [f"{tmp_path}: 2 DICOM files are left out, as there are 1 other volumes beside them"]


def test_what_segment_wrote_is_no_input(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii", "a_seg.nii.gz", "a_seg.json", "a_rough.nii.gz", "b_seg.nii", "out/c.nii", "out/outcomes.jsonl", "summary.csv")
    assert ids(tmp_path) == ["a", "b_seg", "out__c"]
    assert ids(tmp_path, leave_out=tmp_path / "out") == ["a", "b_seg"]
    assert ids(tmp_path / "out", leave_out=tmp_path / "out") == ["c"]  # asked for by name


def test_links_are_followed_and_no_folder_is_searched_twice(tmp_path: Path) -> None:
    touch(tmp_path, "store/1/image.nii", "in/x.nii")
    make_link(tmp_path / "in" / "patient", tmp_path / "store" / "1")
    make_link(tmp_path / "in" / "round", tmp_path / "in")
    make_link(tmp_path / "in" / "again", tmp_path / "store" / "1")
    assert ids(tmp_path / "in") == ["x", "again__image"]


def test_a_folder_without_volumes_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "1/notes.txt", "2/scan.xyz")
    with pytest.raises(ValueError, match=f"{tmp_path}: folder must hold volumes, such as .nii.gz, or DICOM series, at any depth, got none"):
        list_cases([tmp_path])
    with pytest.raises(ValueError, match=r"notes.txt: file must be a volume"):
        list_cases([tmp_path / "1" / "notes.txt"])
    with pytest.raises(FileNotFoundError, match=r"nowhere: file or folder must exist, got none"):
        list_cases([tmp_path / "nowhere"])


def test_inputs_that_cannot_be_listed_are_told_and_the_others_are_listed(tmp_path: Path) -> None:
    (file,) = touch(tmp_path, "ct.nii")
    errors: list[Exception] = []
    assert list_cases([tmp_path / "nowhere", file], on_error=errors.append) == [Case("ct", file)]
    assert [type(error) for error in errors] == [FileNotFoundError]


# --- names -------------------------------------------------------------------


def test_files_given_apart_are_told_apart_by_their_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "x/1/ct.nii", "y/1/ct.nii", "y/2/ct.nii", "y/2/mr.nii", "y/2/CT.nii.gz")
    monkeypatch.chdir(tmp_path)
    assert ids("x/1/ct.nii") == ["ct"]
    assert ids("y/1/ct.nii", "y/2/ct.nii", "y/2/mr.nii") == ["1__ct", "2__ct", "mr"]
    assert ids("x/1/ct.nii", "y/1/ct.nii", "y/2/ct.nii") == ["x__1__ct", "y__1__ct", "2__ct"]
    assert ids("x/1", "y/1") == ["x__1__ct", "y__1__ct"]
    assert ids("x/1/ct.nii", "y/2/CT.nii.gz") == ["1__ct", "2__CT"]  # some file systems take ct and CT for one


def test_what_is_given_twice_is_one_case(tmp_path: Path) -> None:
    (file,) = touch(tmp_path, "in/ct.nii")
    assert list_cases([file, tmp_path / "in", file]) == [Case("ct", file)]


@pytest.mark.parametrize(("one", "other"), [("in/x.nii", "in/x.nii.gz"), ("in/x.jpg", "in/x.png")])
def test_two_that_cannot_be_told_apart_fail_and_the_others_do_not(one: str, other: str, tmp_path: Path) -> None:
    first, second, third = touch(tmp_path, one, other, "in/1/x.nii")
    assert [(case.id, case.fault) for case in list_cases([tmp_path / "in"])] == [
        ("x", f"{first}: case name must be unique, got 'x' twice, also from {second}"),
        ("x", f"{second}: case name must be unique, got 'x' twice, also from {first}"),
        ("1__x", ""),
    ]
    assert [case.fault for case in list_cases([first, third])] == ["", ""]


@on_posix
def test_a_name_that_files_cannot_have_is_a_fault_of_its_case_alone(tmp_path: Path) -> None:
    touch(tmp_path, "a\nb.nii", "-rf.nii", "NUL.png", "good.nii", "p/NUL.png", os.fsdecode(b"b\xff.nii"))
    faults = {case.id: case.fault for case in list_cases([tmp_path])}
    assert {name for name, fault in faults.items() if not fault} == {"good", "p__NUL"}
    assert set(faults) == {"-rf", "NUL", "a\nb", "b\udcff", "good", "p__NUL"}
    assert all(": case must have a name " in fault for fault in faults.values() if fault)
    assert [case.id for case in find_cases([tmp_path])] == sorted(set(faults) - {"p__NUL"})  # nothing is written under these names


def test_a_name_leaves_room_for_those_of_the_outputs(tmp_path: Path) -> None:
    long = ["é" * 60, "é" * 60, "1"]
    touch(tmp_path, f"{'/'.join(long)}/ct.nii", f"{'/'.join(long[:2])}/2/ct.nii")
    found = ids(tmp_path)
    assert len(set(found)) == 2
    assert all(len(name.encode()) <= 180 for name in found)
    assert all((tmp_path / f".1234567.{name}_probabilities.nii.gz").touch() is None for name in found)


# --- lists -------------------------------------------------------------------


def test_a_csv_lists_images_and_perhaps_names_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text('\ufeffid,image,label,age\nfirst,scans/a.nii,a_label.nii,50\n,"scans/b, c.nii",,60\n', encoding="utf-8")
    assert list_cases([path]) == [
        Case("first", tmp_path / "scans/a.nii", tmp_path / "a_label.nii"),
        Case("b, c", tmp_path / "scans/b, c.nii"),
    ]


@pytest.mark.parametrize(
    "content",
    [
        ["a.nii", "/data/b.nii"],
        [{"image": "a.nii", "id": ""}, {"image": "/data/b.nii", "label": None}],
        {"name": "data", "training": [{"image": "a.nii"}], "validation": [], "test": ["/data/b.nii"]},
    ],
)
def test_a_json_lists_paths_or_cases(content: object, tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(json.dumps(content))
    assert list_cases([path]) == [Case("a", tmp_path / "a.nii"), Case("b", Path("/data/b.nii"))]


@pytest.mark.parametrize("name", ["../a", "a/b", "..", ".", ".hidden", "a\\b", "a\nb", "x" * 221, "a\0"])
def test_a_listed_name_stays_in_the_folder(name: str, tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(json.dumps([{"image": "a.nii", "id": name}]))
    with pytest.raises(ValueError, match=r"list.json: entry 1: case must have a name "):
        list_cases([path])


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("list.csv", "file,id\na.nii,a\n", "with a column image, or image_0, image_1 and so on: got the columns"),
        ("list.csv", "", "got the columns None"),
        ("list.csv", "image\n", "list of cases must name one at least, got none"),
        ("list.csv", "image,id\na.nii,b\n,a\n", "row 2 must give its image"),
        ("list.json", "{", "list.json: file must be JSON"),
        ("list.json", "3", "got int"),
        ("list.json", '{"training": 5}', "'training' must be a list of cases, got int"),
        ("list.json", '{"training": [], "test": null}', "'test' must be a list of cases, got NoneType"),
        ("list.json", '{"test": ["a.nii"], "test": []}', "the key 'test' stands twice"),
        ("list.json", "{}", "must name one at least"),
        ("list.json", "[3]", "entry 1 must give its image, and perhaps id and label, as text, got 3"),
        ("list.json", '[{"image": 5}]', "entry 1 must give its image"),
        ("list.json", '[{"image": "a.nii", "id": 0}]', "entry 1 must give its image"),
        ("list.json", '[{"image": "a.nii", "label": []}]', "entry 1 must give its image"),
    ],
)
def test_a_list_of_another_kind_is_refused(name: str, content: str, rule: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=rule) as caught:
        list_cases([tmp_path / name])
    assert str(tmp_path) in str(caught.value)


def test_a_listed_name_goes_before_one_that_was_found(tmp_path: Path) -> None:
    touch(tmp_path, "in/1/ct.nii", "in/ct.nii")
    (tmp_path / "list.csv").write_text("image,id\nin/1/ct.nii,ct\n")
    assert ids(tmp_path / "list.csv", tmp_path / "in" / "ct.nii") == ["ct", "in__ct"]
