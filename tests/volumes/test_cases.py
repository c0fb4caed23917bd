from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stseg3d.volumes import Case, case_id, find_cases, is_volume_file, list_cases, load_dataset, output_name
from tests.volumes.empty import touch

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("a.nii.gz", "a"),
        ("a.nii", "a"),
        ("a.b.nrrd", "a.b"),
        ("CT_01.NII.GZ", "CT_01"),
        ("x.tar.mha", "x.tar"),
        ("scan", "scan"),
        ("a.PNG", "a"),
    ],
)
def test_a_case_is_called_by_its_file_without_the_suffix(tmp_path, name, case):
    assert case_id(tmp_path / name) == case


def test_the_output_is_called_by_the_case():
    assert output_name("ct_01") == "ct_01_seg.nii.gz"
    assert output_name("ct_01", "probabilities") == "ct_01_probabilities.nii.gz"


def test_files_and_folders_give_cases_in_order(tmp_path):
    files = touch(tmp_path, "z.nii", "in/b.nii.gz", "in/a.nrrd", "in/notes.txt", "in/.c.nii", "in/deeper/d.nii")
    found = find_cases([files[0], str(tmp_path / "in")])
    assert found == [Case("z", files[0]), Case("a", files[2]), Case("b", files[1])]
    assert found[0].as_dict() == {"id": "z", "image": str(files[0])}


def test_two_cases_of_one_name_are_refused(tmp_path):
    first, second = touch(tmp_path, "a/ct.nii.gz", "a/ct.nii")
    with pytest.raises(ValueError, match=f"{first}: case name must be unique, got 'ct' twice, also from {second}"):
        find_cases([first, second])


def test_what_is_no_case_is_refused(tmp_path):
    (text,) = touch(tmp_path, "in/notes.txt")
    with pytest.raises(FileNotFoundError, match="none: file or folder must exist, got none"):
        find_cases([tmp_path / "none"])
    with pytest.raises(ValueError, match=r"notes.txt: file must be a volume, such as .nii.gz, got '.txt'"):
        find_cases([text])
    with pytest.raises(ValueError, match=r"in: folder must hold volumes, such as .nii.gz, or DICOM series, got 1 other files"):
        find_cases([text.parent])
    assert not is_volume_file(text)
    assert not is_volume_file(tmp_path / "none.nii.gz")


def dataset_json(folder: Path, **content: object) -> Path:
    touch(folder, "images/a.nii.gz", "labels/a.nii.gz", "images/b.nii.gz", "labels/b.nii.gz", "images/c.nii.gz")
    path = folder / "dataset.json"
    path.write_text(json.dumps(content))
    return path


A, B = ({"image": f"images/{x}.nii.gz", "label": f"./labels/{x}.nii.gz"} for x in "ab")


def test_a_decathlon_dataset_is_read(tmp_path):
    path = dataset_json(
        tmp_path, name="organs", labels={"0": "background", "1": "aorta"}, training=[A], validation=[B], test=["images/c.nii.gz"]
    )
    for source in (path, str(path), tmp_path):
        dataset = load_dataset(source)
        assert dataset.name == "organs"
        assert dataset.labels.names == {0: "background", 1: "aorta"}
        assert dataset.training == [Case("a", tmp_path / "images/a.nii.gz", tmp_path / "labels/a.nii.gz")]
        assert [case.id for case in dataset.validation] == ["b"]
        assert dataset.test == [Case("c", tmp_path / "images/c.nii.gz")]
    assert dataset.training[0].as_dict().keys() == {"id", "image", "label"}


def test_names_by_value_or_values_by_name(tmp_path):
    assert load_dataset(dataset_json(tmp_path, labels={"background": 0, "aorta": 1}, training=[A])).labels.names == {
        0: "background",
        1: "aorta",
    }
    assert load_dataset(dataset_json(tmp_path, training=[A])).labels.names == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"validation": [A]}, """file must list cases under "training", got ['validation']"""),
        ({"training": []}, """file must list cases under "training", got ['training']"""),
        ({"training": ["images/a.nii.gz"]}, "each case under 'training' and 'validation' must give its label, got none for"),
        (
            {"training": [A, {"image": 3, "label": "x"}]},
            "training entry 2 must give its image, and perhaps id and label, as text, got {'image'",
        ),
        ({"training": [A], "validation": [A | {"id": 3}]}, "validation entry 1 must give its image"),
        ({"training": [A], "test": [{"image": ""}]}, "test entry 1 must give its image"),
        ({"training": [A], "test": [A | {"id": "../x"}]}, "test entry 1: case must have a name without '/'"),
        ({"training": [A], "test": 5}, "'test' must be a list of cases, got int"),
        ({"training": [A], "validation": None}, "'validation' must be a list of cases, got NoneType"),
        ({"training": [A | {"id": "x"}, B | {"id": "x"}]}, "case name must be unique, got 'x' twice"),
        ({"training": [A], "validation": [A | {"label": B["label"]}]}, "case must have one label, or an id for each of several"),
        ({"training": [A], "labels": {"a": "b"}}, """"labels" must give a name for each value, got {'a': 'b'}"""),
        ({"training": [A], "labels": ["a"]}, """"labels" must give a name for each value, got ['a']"""),
    ],
)
def test_a_dataset_of_another_shape_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_dataset(dataset_json(tmp_path, **content))
    assert str(tmp_path / "dataset.json") in str(caught.value)


def test_a_name_is_the_same_whichever_part_is_looked_at_and_however_the_file_is_read(tmp_path):
    """As KiTS has it."""
    touch(tmp_path, *(f"case_{n}/{kind}.nii.gz" for n in range(4) for kind in ("imaging", "label")), "other.nii", "x.nii")
    kits = [{"image": f"case_{n}/imaging.nii.gz", "label": f"case_{n}/label.nii.gz"} for n in range(4)]
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"training": kits[:1], "validation": kits[1:3], "test": [kits[3] | {"id": "seven"}, "other.nii"]}))
    dataset = load_dataset(path)
    parts = (dataset.training, dataset.validation, dataset.test)
    names = ["case_0__imaging", "case_1__imaging", "case_2__imaging", "seven", "other"]
    assert [[case.id for case in part] for part in parts] == [names[:1], names[1:3], names[3:]]
    assert [case.id for case in list_cases([path])] == names
    assert [case.id for case in list_cases([path, tmp_path / "x.nii"])] == [*names, "x"]


def test_an_image_may_be_listed_again_or_under_an_id_for_each_label(tmp_path):
    path = dataset_json(tmp_path, training=[A, A], validation=[A | {"label": B["label"], "id": "rater2"}])
    dataset = load_dataset(path)
    assert [case.id for case in dataset.training + dataset.validation] == ["a", "a", "rater2"]
    assert [case.id for case in list_cases([path, tmp_path / "images"])] == ["a", "rater2", "b", "c"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_is_no_part_of_a_dataset(tmp_path, encoding):
    path = dataset_json(tmp_path)
    path.write_text(json.dumps({"name": "ü", "training": [A]}, ensure_ascii=False), encoding=encoding)
    assert load_dataset(path).name == "ü"
    assert [case.id for case in list_cases([path])] == ["a"]


def test_missing_files_are_counted_and_the_first_is_named(tmp_path):
    path = dataset_json(tmp_path, training=[A, {"image": "images/x.nii.gz", "label": "labels/x.nii.gz"}])
    with pytest.raises(FileNotFoundError, match=r"dataset.json: files listed must exist, got 2 of 4 missing, the first .*images/x.nii.gz"):
        load_dataset(path)


@pytest.mark.parametrize("content", ["{", "[]", "3", ""])
def test_a_file_that_is_no_dataset_is_refused(tmp_path, content):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(ValueError, match=r"dataset.json: file must"):
        load_dataset(tmp_path / "dataset.json")
    with pytest.raises(FileNotFoundError, match=r"none.json: file must exist, got none"):
        load_dataset(tmp_path / "none.json")


@pytest.mark.parametrize(("name", "training", "validation"), [("vertebrae_mr", 28, 6), ("hippocampus_mr", 30, 10), ("nuclei_2d", 240, 67)])
def test_the_data_sets_at_hand(data_dir, name, training, validation):
    dataset = load_dataset(data_dir / name)
    assert (len(dataset.training), len(dataset.validation)) == (training, validation)


def test_importing_the_package_imports_no_heavy_library():
    heavy = ["torch", "monai", "itk", "SimpleITK", "nibabel", "scipy"]
    code = f"import sys, stseg3d.volumes; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout.strip() == "[]"


def test_what_segment_wrote_into_a_folder_can_be_left_out(tmp_path):
    for name in ("a.nii.gz", "a_seg.nii.gz", "a_seg.json", "b_seg.nii.gz", "c.nii.gz", "c.json"):
        (tmp_path / name).touch()
    assert [case.id for case in find_cases([tmp_path])] == ["a", "a_seg", "b_seg", "c"]
    # b_seg has no report beside it: somebody else's file; and c.json is no report of ours
    assert [case.id for case in list_cases([tmp_path])] == ["a", "b_seg", "c"]


def test_rough_maps_beside_their_labels_are_never_cases(tmp_path):
    touch(tmp_path, "a.nii.gz", "a_rough.nii.gz", "a_seg.nii.gz", "a_seg.json", "b_rough.nii.gz")
    assert [case.id for case in find_cases([tmp_path])] == ["a", "a_seg", "b_rough"]
    assert [case.id for case in list_cases([tmp_path])] == ["a", "b_rough"]
