"""Data as people have it: each layout from names alone, and what does not fit is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from stseg3d.planning.findings import Finding
from stseg3d.planning.layouts import DataFound, as_dataset_json, check, find, find_data, lists, match
from stseg3d.volumes import load_dataset
from tests.systems import make_link

BASIC = {"labels": {"background": 0, "x": 1}}


def touch(root: Path, *names: str) -> Path:
    """Empty files under a folder; names are separated by spaces, too."""
    for name in (one for several in names for one in several.split()):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def cases(found: DataFound, part: str = "training") -> dict[str, tuple[list[str], str | None]]:
    """Names of the images and the label, by id."""
    return {e.id: ([i.name for i in e.images], e.label and e.label.name) for e in getattr(found, part)}


def rules(findings: Iterable[Finding]) -> list[tuple[str, str, str]]:
    return [(f.level, f.case, f.rule) for f in findings]


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("a.nii.gz b.nii.gz", "a.nii.gz b.nii.gz"),
        ("a.nii.gz b.nii.gz", "a_seg.nii.gz b_seg.nii.gz"),
        ("a.nii b.mha", "a-label.nii.gz b-label.nrrd"),
        ("a.nrrd b.nrrd", "a.seg.nrrd b.seg.nrrd"),
        ("a.png b.jpg", "a_mask.png b_mask.png"),
        ("a_image.nii.gz b_image.nii.gz", "a_gt.nii.gz b_gt.nii.gz"),
        ("image_a.nii.gz image_b.nii.gz", "label_a.nii.gz label_b.nii.gz"),
        ("a_0000.nii.gz b_0000.nii.gz", "a.nii.gz b.nii.gz"),
        ("a_0000.nii.gz b_0000.nii.gz", "a_0000_segmentation.nii.gz b_0000_segmentation.nii.gz"),
        ("a_ct.nii.gz b_ct.nii.gz", "a_lesion_mask.nii.gz b_lesion_mask.nii.gz"),
        ("a_t1.nii.gz b_t1.nii.gz", "a_T1_GroundTruth.nii.gz b_T1_ground-truth.nii.gz".replace("T1", "t1")),
        ("a/scan.nii.gz b/scan.nii.gz", "a/anything.nii.gz b/anything.nii.gz"),
        ("Case_a.nii.gz Case_b.nii.gz", "case_A.nii.gz case_B.nii.gz"),
        ("lesion_a.nii.gz lesion_b.nii.gz", "lesion_a_seg.nii.gz lesion_b_seg.nii.gz"),
        ("x/a.nii.gz y/b.nii.gz", "final/a.nii.gz final/b.nii.gz"),
        ("a.tif b.tiff", "a_segmented.tif b_segmented.tif"),
    ],
)
def test_two_folders_are_matched_by_name(images: str, labels: str, tmp_path: Path) -> None:
    touch(tmp_path / "one", images)
    touch(tmp_path / "two", labels)
    found = find_data(None, images=tmp_path / "one", labels=tmp_path / "two")
    assert found.findings == ()
    assert [e.images[0].relative_to(tmp_path / "one").as_posix() for e in found.training] == images.split()
    assert [e.label and e.label.relative_to(tmp_path / "two").as_posix() for e in found.training] == labels.split()


def test_numbers_of_cases_are_no_channels(tmp_path: Path) -> None:
    touch(tmp_path, "images/case_0000.nii.gz images/case_0001.nii.gz labels/case_0000.nii.gz labels/case_0001.nii.gz")
    assert cases(find_data(tmp_path)) == {f"case_{n}": ([f"case_{n}.nii.gz"], f"case_{n}.nii.gz") for n in ("0000", "0001")}


def test_numbers_that_follow_words(tmp_path: Path) -> None:
    touch(tmp_path, "volume-0.nii volume-1.nii segmentation-0.nii segmentation-1.nii")
    assert cases(find_data(tmp_path)) == {"0": (["volume-0.nii"], "segmentation-0.nii"), "1": (["volume-1.nii"], "segmentation-1.nii")}


@pytest.mark.parametrize(
    ("one", "two"), [("images", "labels"), ("imagesTr", "labelsTr"), ("img", "masks"), ("image", "label"), ("train_images", "train_masks")]
)
def test_a_folder_holds_two(one: str, two: str, tmp_path: Path) -> None:
    touch(tmp_path, f"{one}/a.png {one}/b.png {two}/a.png {two}/b.png")
    found = find_data(tmp_path)
    assert cases(found) == {"a": (["a.png"], "a.png"), "b": (["b.png"], "b.png")}
    assert found.findings == ()
    assert "a folder each" in found.layout


def test_folders_say_the_part(tmp_path: Path) -> None:
    touch(tmp_path, "train/images/a.png train/labels/a.png val/images/a.png val/labels/a.png test/images/c.png")
    found = find_data(tmp_path)
    assert (cases(found), cases(found, "validation"), cases(found, "test")) == (
        {"training__a": (["a.png"], "a.png")},
        {"validation__a": (["a.png"], "a.png")},
        {"c": (["c.png"], None)},
    )
    assert found.findings == ()


@pytest.mark.parametrize(
    "names",
    [
        "case_1/imaging.nii.gz case_1/segmentation.nii.gz case_2/imaging.nii.gz case_2/segmentation.nii.gz",  # KiTS
        "case_1/ct.nii.gz case_1/label.nii.gz case_2/ct.nii.gz case_2/label.nii.gz",
        "case_1/case_1.nrrd case_1/case_1.seg.nrrd case_2/case_2.nrrd case_2/case_2.seg.nrrd",  # AVT
        "case_1/x17.nii.gz case_1/lesion.nii.gz case_2/y.nii.gz case_2/lesion.nii.gz",
        "case_1/case_1_f01.nii.gz case_1/case_1_f01_gt.nii.gz case_2/case_2_f09.nii.gz case_2/case_2_f09_gt.nii.gz",  # ACDC
        "case_1/images/s.nii.gz case_1/masks/m.nii.gz case_2/images/s.nii.gz case_2/masks/m.nii.gz",
    ],
)
def test_a_folder_a_case(names: str, tmp_path: Path) -> None:
    found = find_data(touch(tmp_path, names))
    folders = [(e.images[0].relative_to(tmp_path).parts[0], e.label and e.label.relative_to(tmp_path).parts[0]) for e in found.training]
    assert folders == [("case_1", "case_1"), ("case_2", "case_2")]
    assert [e.id for e in found.training] == (["case_1_f01", "case_2_f09"] if "f01" in names else ["case_1", "case_2"])
    assert found.findings == ()


@pytest.mark.parametrize(
    ("names", "channels"),
    [
        ("b1/b1_flair.nii.gz b1/b1_t1ce.nii.gz b1/b1_seg.nii.gz b2/b2_flair.nii.gz b2/b2_t1ce.nii.gz b2/b2_seg.nii.gz", ("flair", "t1ce")),
        ("b1/b1_flair.nii.gz b1/b1_t1.nii.gz b1/b1_t1_seg.nii.gz b2/b2_flair.nii.gz b2/b2_t1.nii.gz b2/b2_t1_seg.nii.gz", ("flair", "t1")),
        ("images/b1_0000.png images/b1_0001.png images/b2_0000.png images/b2_0001.png labels/b1.png labels/b2.png", ("0000", "0001")),
        ("b1/green.tif b1/red.tif b1/mask.tif b2/green.tif b2/red.tif b2/mask.tif", ("green", "red")),
        ("b1_flair.nii b1_t1.nii b1_mask.nii b2_flair.nii b2_t1.nii b2_mask.nii", ("flair", "t1")),
    ],
)
def test_channels_are_files_of_their_own(names: str, channels: tuple[str, ...], tmp_path: Path) -> None:
    found = find_data(touch(tmp_path, names))
    assert found.channels == channels
    assert found.findings == ()
    assert [e.id for e in found.training] == ["b1", "b2"]
    assert all(
        [image.name.rpartition(".")[0].partition(".")[0].endswith(c) for image, c in zip(e.images, channels, strict=True)]
        for e in found.training
    )
    picked = find_data(tmp_path, channels=channels[1:])
    assert [len(e.images) for e in picked.training] == [1, 1]
    assert picked.channels == channels[1:]


def test_time_points_with_labels_are_cases(tmp_path: Path) -> None:
    found = find_data(touch(tmp_path, "p1_t1.nii p1_t2.nii p1_t1_seg.nii p1_t2_seg.nii"))
    assert cases(found) == {"p1_t1": (["p1_t1.nii"], "p1_t1_seg.nii"), "p1_t2": (["p1_t2.nii"], "p1_t2_seg.nii")}


def test_dicom_series_are_images(tmp_path: Path) -> None:
    touch(tmp_path, "images/p1/1.dcm images/p1/2.dcm images/p2/1.dcm labels/p1.nii.gz labels/p2/seg.nii.gz labels/p2/notes.txt")
    (tmp_path / "images/p3").mkdir()
    for n in range(3):
        (tmp_path / f"images/p3/IM{n}").write_bytes(bytes(128) + b"DICM")
    touch(tmp_path, "labels/p3_mask.nii.gz")
    found = find_data(tmp_path)
    assert cases(found) == {"p1": (["p1"], "p1.nii.gz"), "p2": (["p2"], "seg.nii.gz"), "p3": (["p3"], "p3_mask.nii.gz")}
    assert found.findings == ()


def test_dicom_series_beside_their_label(tmp_path: Path) -> None:
    found = find_data(touch(tmp_path, "p1/1.dcm p1/2.dcm p1/seg.nii.gz p2/CT/1.dcm p2/seg.nii.gz"))
    assert cases(found) == {"p1": (["p1"], "seg.nii.gz"), "p2": (["CT"], "seg.nii.gz")}


def test_a_dicom_segmentation_is_a_file(tmp_path: Path) -> None:
    found = find_data(touch(tmp_path, "p1/CT/1.dcm p1/CT/2.dcm p1/SEG/1.dcm p2/CT/1.dcm p2/CT/2.dcm p2/SEG/1.dcm"))
    assert [(e.id, e.images[0], e.label) for e in found.training] == [
        (p, tmp_path / p / "CT", tmp_path / p / "SEG" / "1.dcm") for p in ("p1", "p2")
    ]
    assert found.findings == ()


def test_one_dicom_series_and_one_label(tmp_path: Path) -> None:
    touch(tmp_path, "CT/1.dcm CT/2.dcm seg.nii.gz")
    assert cases(find_data(None, images=tmp_path / "CT", labels=tmp_path / "seg.nii.gz")) == {"CT": (["CT"], "seg.nii.gz")}


def test_dicom_pictures_are_images_of_their_own(tmp_path: Path) -> None:
    found = find_data(touch(tmp_path, "images/a.dcm images/b.dcm labels/a.png labels/b.png"))
    assert len(found.training) == 0  # a folder of DICOM files below the searched one is a series
    assert cases(find_data(None, images=tmp_path / "images", labels=tmp_path / "labels")) == {n: ([f"{n}.dcm"], f"{n}.png") for n in "ab"}


def test_one_image_and_one_label_need_no_common_name(tmp_path: Path) -> None:
    touch(tmp_path, "scan.nii.gz truth.mha")
    found = find_data(None, images=tmp_path / "scan.nii.gz", labels=tmp_path / "truth.mha")
    assert cases(found) == {"scan": (["scan.nii.gz"], "truth.mha")}


# --- BIDS --------------------------------------------------------------------


def bids(root: Path, *labels: str) -> Path:
    scans = [f"sub-{s}/ses-{v}/anat/sub-{s}_ses-{v}_{c}.nii.gz" for s in ("01", "02") for v in ("1", "2") for c in ("FLAIR", "T1w")]
    (root / "derivatives").mkdir()
    (root / "dataset_description.json").touch()
    return touch(root, *scans, *labels)


@pytest.mark.parametrize("what", ["label-lesion_mask", "T1w_label-lesion_mask", "dseg", "T1w_lesion-manual", "space-orig_desc-expert_dseg"])
def test_bids(what: str, tmp_path: Path) -> None:
    names = [f"derivatives/manual/sub-{s}/ses-{v}/anat/sub-{s}_ses-{v}_{what}.nii.gz" for s in ("01", "02") for v in ("1", "2")]
    found = find_data(bids(tmp_path, *names, "sub-01/ses-1/anat/sub-01_ses-1_T1w.json"))
    assert list(cases(found)) == ["sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1", "sub-02_ses-2"]
    assert cases(found)["sub-01_ses-2"] == (["sub-01_ses-2_FLAIR.nii.gz", "sub-01_ses-2_T1w.nii.gz"], f"sub-01_ses-2_{what}.nii.gz")
    assert (found.channels, found.findings) == (("FLAIR", "T1w"), ())
    assert find_data(tmp_path, channels=["T1w"]).channels == ("T1w",)


def test_folders_of_bids_with_other_names_in_them(tmp_path: Path) -> None:
    found = find_data(touch(tmp_path, "sub-1/t1.nii sub-1/lesion.nii sub-2/t1.nii sub-2/lesion.nii"))
    assert cases(found) == {f"sub-{n}": (["t1.nii"], "lesion.nii") for n in (1, 2)}
    assert found.findings == ()


def test_bids_with_several_labels_is_told_which(tmp_path: Path) -> None:
    kinds = ("brain", "lesion")
    names = [f"derivatives/{k}/sub-{s}/sub-{s}_ses-{v}_label-{k}_mask.nii.gz" for k in kinds for s in ("01", "02") for v in ("1", "2")]
    root = bids(tmp_path, *names)
    assert set(rules(find_data(root).findings)) == {
        ("error", f"sub-{s}_ses-{v}", match.ONE_LABEL) for s in ("01", "02") for v in ("1", "2")
    }
    found = find_data(root, labels=root / "derivatives" / "lesion")
    assert (len(found.training), found.findings) == (4, ())


def test_raw_data_and_derivatives_side_by_side(tmp_path: Path) -> None:
    names = [f"{f}/sub-v{n}/sub-v{n}_{what}.nii.gz" for f, what in (("rawdata", "ct"), ("derivatives", "seg-vert_msk")) for n in (1, 2)]
    found = find_data(touch(tmp_path, *names))
    assert (list(cases(found)), found.channels, found.findings) == (["sub-v1", "sub-v2"], ("ct",), ())


def test_bids_runs_are_cases_if_each_has_a_label(tmp_path: Path) -> None:
    scans = [f"sub-1/anat/sub-1_run-{r}_T2w.nii.gz" for r in (1, 2)]
    found = find_data(touch(tmp_path, *scans, *(f"derivatives/sub-1/sub-1_run-{r}_T2w_mask.nii.gz" for r in (1, 2))))
    assert list(cases(found)) == ["sub-1_run-1", "sub-1_run-2"]
    assert found.channels == ("T2w",)


# --- lists -------------------------------------------------------------------


def write(root: Path, content: object) -> Path:
    root.mkdir(exist_ok=True, parents=True)
    (root / "dataset.json").write_text(json.dumps(content), encoding="utf-8-sig")
    return root


def test_decathlon(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/a.nii.gz labelsTr/a.nii.gz imagesTs/b.nii.gz")
    training = [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}]
    content = {"name": "BRATS", "modality": {"1": "T1w", "0": "FLAIR"}, "labels": {"0": "background", "1": "edema"}}
    found = find_data(write(tmp_path, {**content, "training": training, "test": ["./imagesTs/b.nii.gz"], "numTraining": 1}))
    assert cases(found) == {"a": (["a.nii.gz"], "a.nii.gz")}
    assert cases(found, "test") == {"b": (["b.nii.gz"], None)}
    assert (found.channels, found.labels, found.name) == (("FLAIR", "T1w"), content["labels"], "BRATS")
    assert found.findings == ()
    assert find_data(tmp_path / "dataset.json") == found


def test_listed_cases_of_one_name_are_named_after_their_folders(tmp_path: Path) -> None:
    touch(tmp_path, *(f"case_{n}/{name}.nii.gz" for n in (1, 2) for name in ("imaging", "segmentation")))
    entries = [{"image": f"case_{n}/imaging.nii.gz", "label": f"case_{n}/segmentation.nii.gz"} for n in (1, 2)]
    assert list(cases(find_data(write(tmp_path, {"training": entries})))) == ["case_1__imaging", "case_2__imaging"]


def test_lists_with_faults_give_all_of_them(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz b.nii.gz l.nii.gz t.txt")
    good = {"image": ["a.nii.gz", "b.nii.gz"], "label": "l.nii.gz", "id": "good"}
    wrong = [
        {"image": "a.nii.gz"},
        {"label": "l.nii.gz"},
        7,
        {"image": "c.nii.gz", "label": "d.nii.gz"},
        {"image": "t.txt", "label": "l.nii.gz"},
    ]
    found = find_data(write(tmp_path, {"training": [good, *wrong], "anatomies": [1]}))
    assert cases(found) == {"good": (["a.nii.gz", "b.nii.gz"], "l.nii.gz")}
    assert set(rules(found.findings)) == {
        *(("error", f"training[{n}]", lists.ENTRY) for n in (1, 2, 3)),
        ("error", "c", check.EXISTS),
        ("error", "t.txt", check.KNOWN_SUFFIX),
        ("error", "t.txt", check.ONCE),
        ("warning", "", lists.NO_ANATOMIES),
    }


@pytest.mark.parametrize("content", [[], {}, {"training": []}, {"channel_names": {"0": "CT"}}, "x"])
def test_a_json_without_cases_is_one_finding(content: object, tmp_path: Path) -> None:
    assert [(f.level, f.rule) for f in find_data(write(tmp_path, content)).findings] == [("error", lists.LISTED)]


def test_a_broken_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(ValueError, match=r"dataset\.json must be JSON"):
        find_data(tmp_path)


def nnunet(root: Path, **more: object) -> Path:
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    content = {"channel_names": {"0": "FLAIR", "1": "T1"}, "labels": labels, "numTraining": 2, "file_ending": ".nii.gz", **more}
    touch(root, *(f"imagesTr/case_{n}_000{c}.nii.gz" for n in (1, 2) for c in (0, 1)), "labelsTr/case_1.nii.gz labelsTr/case_2.nii.gz")
    touch(root, "imagesTs/case_3_0000.nii.gz imagesTs/case_3_0001.nii.gz imagesTr/case_1_0000.json")
    return write(root, content)


def test_nnunet(tmp_path: Path) -> None:
    found = find_data(nnunet(tmp_path / "Dataset001_X"))
    assert cases(found) == {f"case_{n}": ([f"case_{n}_0000.nii.gz", f"case_{n}_0001.nii.gz"], f"case_{n}.nii.gz") for n in (1, 2)}
    assert cases(found, "test") == {"case_3": (["case_3_0000.nii.gz", "case_3_0001.nii.gz"], None)}
    assert (found.channels, found.layout, found.name, found.findings) == (("FLAIR", "T1"), "nnU-Net", "Dataset001_X", ())
    assert found.labels == {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}


def test_nnunet_faults(tmp_path: Path) -> None:
    root = nnunet(tmp_path, numTraining=7)
    touch(root, "imagesTr/case_1_0002.nii.gz imagesTr/case_4_0000.nii.gz labelsTr/case_5.nii.gz")
    assert rules(find_data(root).findings) == [
        ("warning", "case_4", match.LABELLED),
        ("warning", "case_5", match.IMAGED),
        ("warning", "case_1", match.KNOWN_CHANNELS),
        ("warning", "", lists.NUM_TRAINING),
    ]
    (root / "imagesTr/case_2_0001.nii.gz").unlink()
    found = find_data(root)
    assert ("error", "case_2", match.ALL_CHANNELS) in rules(found.findings)
    assert list(cases(found)) == ["case_1"]


def test_nnunet_pictures_have_their_colours_in_one_file(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/a_0000.png labelsTr/a.png")
    names = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "file_ending": ".png", "numTraining": 1}
    found = find_data(write(tmp_path, {**BASIC, **names}))
    assert (cases(found), found.channels, found.findings) == ({"a": (["a_0000.png"], "a.png")}, ("R", "G", "B"), ())


def test_nnunet_of_the_first_version_lists_cases_without_their_channels(tmp_path: Path) -> None:
    entries = [{"image": f"./imagesTr/case_{n}.nii.gz", "label": f"./labelsTr/case_{n}.nii.gz"} for n in (1, 2)]
    found = find_data(nnunet(tmp_path, training=entries, test=["./imagesTs/case_3.nii.gz"]))
    assert cases(found) == {f"case_{n}": ([f"case_{n}_0000.nii.gz", f"case_{n}_0001.nii.gz"], f"case_{n}.nii.gz") for n in (1, 2)}
    assert list(cases(found, "test")) == ["case_3"]


def test_nnunet_lists_of_files(tmp_path: Path) -> None:
    touch(tmp_path, "far/a.nii.gz far/b.nii.gz far/l.nii.gz")
    found = find_data(write(tmp_path, {**BASIC, "dataset": {"c1": {"images": ["far/a.nii.gz", "far/b.nii.gz"], "label": "far/l.nii.gz"}}}))
    assert cases(found) == {"c1": (["a.nii.gz", "b.nii.gz"], "l.nii.gz")}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_csv(separator: str, tmp_path: Path) -> None:
    touch(tmp_path, "x/a0.nii x/a1.nii x/al.nii x/b0.nii x/b1.nii x/bl.nii x/c0.nii x/c1.nii")
    rows = ["ID,Image_1,Image_0,Label,Group,Part", "a,x/a1.nii,x/a0.nii,x/al.nii,p1,", "", "b,x/b1.nii,x/b0.nii,x/bl.nii,p2,validation"]
    rows += [",x/c1.nii,x/c0.nii,,,test", "d,x/a1.nii,x/a0.nii,x/al.nii,p1,later", "e,x/a0.nii,,x/al.nii,,"]
    (tmp_path / "my.csv").write_text("\r\n".join(rows).replace(",", separator), encoding="utf-8-sig")
    found = find_data(tmp_path / "my.csv")
    assert cases(found) == {"a": (["a0.nii", "a1.nii"], "al.nii")}
    assert cases(found, "validation") == {"b": (["b0.nii", "b1.nii"], "bl.nii")}
    assert cases(found, "test") == {"c0": (["c0.nii", "c1.nii"], None)}
    assert [e.group for e in found.entries] == ["p1", "p2", ""]
    assert rules(found.findings) == [("error", "my.csv, line 6", lists.PART), ("error", "training[1]", lists.ENTRY)]


def test_csv_without_its_columns(tmp_path: Path) -> None:
    (tmp_path / "my.csv").write_text("scan,label\na,b\n")
    assert rules(find_data(tmp_path / "my.csv").findings) == [("error", "my.csv", lists.LISTED)]


# --- what does not fit -------------------------------------------------------


def test_nothing_matches(tmp_path: Path) -> None:
    touch(tmp_path, "images/a1.nii images/a2.nii images/a3.nii labels/b1.nii labels/b2.nii")
    found = find_data(tmp_path)
    assert found.findings == (Finding("error", "", match.SOME_MATCH, "3 images (a1.nii, a2.nii and 1 more) and 2 labels (b1.nii, b2.nii)"),)
    assert found.entries == ()


def test_lone_images_and_labels_are_named(tmp_path: Path) -> None:
    found = find_data(touch(tmp_path, "images/a.nii images/b.nii images/c.nii labels/a.nii labels/d.nii"))
    assert rules(found.findings) == [("warning", "b", match.LABELLED), ("warning", "c", match.LABELLED), ("warning", "d", match.IMAGED)]
    assert list(cases(found)) == ["a"]
    assert len(found.warnings) == 3


@pytest.mark.parametrize(
    ("extra", "rule"),
    [
        ("labels/a.mha", match.ONE_LABEL),
        ("images/a.mha", match.ONE_IMAGE),
        ("labels/a_seg.nii", None),
    ],
)
def test_two_for_one(extra: str, rule: str | None, tmp_path: Path) -> None:
    found = find_data(touch(tmp_path, "images/a.nii images/b.nii labels/a.nii labels/b.nii", extra))
    assert rules(found.findings) == [("error", "a", rule) if rule else ("warning", "a_seg", match.IMAGED)]


def test_files_of_a_folder_belong_together_before_those_of_one_name(tmp_path: Path) -> None:
    found = find_data(touch(tmp_path, "p1/s3.nii p1/s4_seg.nii p2/s4.nii p2/s3_seg.nii"))
    assert cases(found) == {"p1": (["s3.nii"], "s4_seg.nii"), "p2": (["s4.nii"], "s3_seg.nii")}


def test_one_mask_an_organ_is_told(tmp_path: Path) -> None:
    found = find_data(touch(tmp_path, "s1/ct.nii.gz s1/segmentations/aorta.nii.gz s1/segmentations/liver.nii.gz"))
    assert rules(found.findings) == [("error", "s1", match.ONE_LABEL)]
    assert found.findings[0].value == "2: aorta.nii.gz, liver.nii.gz"


def test_a_case_without_a_channel(tmp_path: Path) -> None:
    found = find_data(touch(tmp_path, "a_t1.nii a_flair.nii a_seg.nii b_t1.nii b_flair.nii b_seg.nii c_t1.nii c_seg.nii"))
    assert rules(found.findings) == [("error", "c", match.ALL_CHANNELS)]
    assert found.findings[0].value == "no flair"


@pytest.mark.parametrize("names", ["", "a.txt b.csv", "a.nii b.nii"])
def test_a_folder_without_images_or_labels(names: str, tmp_path: Path) -> None:
    found = find_data(touch(tmp_path, names))
    expected = [find.HOLDS_LABELS] if ".nii" in names else [find.HOLDS_IMAGES, find.HOLDS_LABELS]
    assert rules(found.findings) == [("error", str(tmp_path), rule) for rule in expected]


def test_both_folders_empty(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    found = find_data(None, images=tmp_path / "a", labels=tmp_path / "b")
    assert rules(found.findings) == [("error", str(tmp_path / "a"), find.HOLDS_IMAGES), ("error", str(tmp_path / "b"), find.HOLDS_LABELS)]


def test_equal_images_are_found(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{folder}/{name}.nii" for folder in ("images", "labels") for name in "abcd"))
    content = os.urandom(3 << 16)
    for name, tail in [("a", b"1"), ("b", b"2"), ("c", b"1"), ("d", b"1")]:
        (tmp_path / "images" / f"{name}.nii").write_bytes(content + tail)
    changed = bytearray(content + b"1")
    changed[100_001] ^= 1
    (tmp_path / "images" / "d.nii").write_bytes(changed)
    found = find_data(tmp_path)
    assert found.twins == (("a", "c"),)
    assert rules(found.findings) == [("warning", "a", check.DIFFERENT)]


def test_equal_images_in_two_parts_are_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii b.nii l.nii m.nii")
    for name in "ab":
        (tmp_path / f"{name}.nii").write_bytes(b"same")
    lists_of = {"training": [{"image": "a.nii", "label": "l.nii"}], "validation": [{"image": "b.nii", "label": "m.nii"}]}
    found = find_data(write(tmp_path, lists_of))
    assert found.findings == (Finding("error", "a", check.DIFFERENT, "a, b equal, in training and validation"),)


def test_a_file_in_two_cases(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.nii labels/a.nii labels/b.nii")
    make_link(tmp_path / "images" / "b.nii", tmp_path / "images" / "a.nii")
    assert rules(find_data(tmp_path).findings) == [("error", "b", check.ONCE)]


def test_a_case_listed_twice(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii l.nii")
    (tmp_path / "a.nii").write_bytes(b"image")
    case = [{"image": "a.nii", "label": "l.nii"}]
    expected = [("error", "a", check.UNIQUE_ID), *[("error", "a", check.ONCE)] * 2]
    assert rules(find_data(write(tmp_path, {"training": case, "validation": case})).findings) == expected


def test_ids_that_differ_in_case_alone_or_are_no_names(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.nii" for n in range(6)))
    entries = [{"image": f"{2 * n}.nii", "label": f"{2 * n + 1}.nii", "id": name} for n, name in enumerate(("a", "A", "x/y"))]
    assert rules(find_data(write(tmp_path, {"training": entries})).findings) == [
        ("error", "A", check.UNIQUE_ID),
        ("error", "x/y", check.PLAIN_ID),
    ]


def test_copies_of_images_are_no_labels(tmp_path: Path) -> None:
    touch(tmp_path, "images/b.nii labels/a_seg.nii labels/b.nii")
    for folder in ("images", "labels"):
        (tmp_path / folder / "a.nii").write_bytes(b"same")
    assert rules(find_data(tmp_path).findings) == [("warning", "a_seg", match.IMAGED), ("error", "a", check.NO_COPY)]


def test_listed_cases_have_one_number_of_channels(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.nii" for n in range(7)))
    entries = [{"image": i, "label": label, "id": i[0][0]} for i, label in ((["0.nii", "1.nii"], "2.nii"), (["3.nii"], "4.nii"))]
    found = find_data(write(tmp_path, {"modality": {"0": "CT"}, "training": entries}))
    assert rules(found.findings) == [("error", "3", check.SAME_COUNT), ("error", "", check.COUNT_OF_NAMES)]


def test_predictions_are_no_labels(tmp_path: Path) -> None:
    found = find_data(touch(tmp_path, "a.nii.gz a_seg.nii.gz a_seg.json b.nii.gz b_seg.nii.gz"))
    assert rules(found.findings) == [("warning", "a", check.NO_PREDICTION)]


def test_images_and_labels_in_one_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii a_seg.nii")
    assert cases(find_data(None, images=tmp_path, labels=tmp_path)) == {"a": (["a.nii"], "a_seg.nii")}


@pytest.mark.parametrize("given", [{}, {"images": 1}, {"labels": 1}, {"data": 1, "images": 1, "labels": 1}])
def test_arguments_that_contradict_each_other(given: dict[str, int], tmp_path: Path) -> None:
    paths = dict.fromkeys(given, tmp_path)
    with pytest.raises(ValueError, match="either data, or both images and labels must be given"):
        find_data(paths.pop("data", None), **paths)


def test_a_path_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: data must exist"):
        find_data(tmp_path / "nowhere")


# --- what is written ---------------------------------------------------------


def test_what_is_written_is_a_data_set_we_read(tmp_path: Path) -> None:
    touch(tmp_path / "data", "train/images/a.nii train/labels/a.nii val/images/b.nii val/labels/b.nii test/images/c.nii")
    found = find_data(tmp_path / "data")
    for folder in (tmp_path / "data", tmp_path / "bundle"):
        folder.mkdir(exist_ok=True)
        content = as_dataset_json(found, folder)
        (folder / "dataset.json").write_text(json.dumps(content))
        read = load_dataset(folder)
        assert [c.image.resolve() for c in (*read.training, *read.validation, *read.test)] == [e.images[0] for e in found.entries]
        assert (
            find_data(folder / "dataset.json").entries == found.entries
            if folder.name == "bundle"
            else content["training"][0] == {"id": "a", "image": "train/images/a.nii", "label": "train/labels/a.nii"}
        )


def test_channels_labels_and_groups_are_written(tmp_path: Path) -> None:
    found = find_data(nnunet(tmp_path), group=r"case_(\d)")
    content = as_dataset_json(found, tmp_path)
    assert content["modality"] == {"0": "FLAIR", "1": "T1"}
    assert content["labels"] == {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    images = ["imagesTr/case_1_0000.nii.gz", "imagesTr/case_1_0001.nii.gz"]
    assert content["training"][0] == {"id": "case_1", "image": images, "label": "labelsTr/case_1.nii.gz", "group": "1"}
    again = find_data(write(tmp_path, content))
    assert (again.entries, again.channels, again.labels) == (found.entries, found.channels, found.labels)


def test_layouts_need_neither_torch_nor_monai() -> None:
    code = "import sys, types, stseg3d; package = types.ModuleType('stseg3d.planning'); "
    code += "package.__path__ = [stseg3d.__path__[0] + '/planning']; sys.modules['stseg3d.planning'] = package; "
    code += "import stseg3d.planning.layouts; sys.exit(any(name in sys.modules for name in ('torch', 'monai', 'SimpleITK')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
