"""Several channels a case, each in its own file: what comes out is what a file of four dimensions gives, bit for bit."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from stseg3d import cli
from stseg3d.bundle import config_parser, open_bundle, save_weights
from stseg3d.geometry import Box
from stseg3d.plan import ImageView
from stseg3d.training import OpenCased
from stseg3d.volumes import find_cases, list_cases, load_dataset, open_volume
from stseg3d.volumes.monai_io import LoadImageVolumed, SaveImageLabelsd
from tests.tiny import tiny_bundle

SHAPE = (20, 18, 16)
AFFINE = np.diag([-1.0, 1, 2, 1])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two channels in, untrained weights that find something."""
    root = tiny_bundle(tmp_path_factory.mktemp("bundles") / "two", **{"image#channels": 2, "policy#threshold": 0.05})
    torch.manual_seed(0)
    network = config_parser(open_bundle(root), ["inference.json"]).get_parsed_content("network_def")
    save_weights(network.state_dict(), root / "models" / "model.pt")
    return root


def channel(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 900, SHAPE).astype(np.int16)


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two cases: a file a channel as nnU-Net has it, and in folders as BraTS; the same in four dimensions; and labels."""
    entries = []
    for name in ("a", "b"):
        channels = [channel(ord(name)), channel(ord(name) + 10)]
        for n, kind in enumerate(("t1", "flair")):
            save(tmp_path / "numbered" / f"{name}_{n:04}.nii.gz", channels[n])
            save(tmp_path / "folders" / name / f"{kind}.nii", channels[n])
        save(tmp_path / "whole" / f"{name}.nii.gz", np.stack(channels, axis=-1))
        label = (channels[0] > 700).astype(np.uint8)
        save(tmp_path / "labels" / f"{name}.nii.gz", label)
        entries.append({"image": [f"folders/{name}/t1.nii", f"folders/{name}/flair.nii"], "label": f"labels/{name}.nii.gz"})
    (tmp_path / "dataset.json").write_text(json.dumps({"training": entries[:1], "validation": entries[1:]}))
    return tmp_path


def test_files_of_one_grid_are_the_channels_of_one_volume(data: Path) -> None:
    paths = [data / f"folders/a/{kind}.nii" for kind in ("t1", "flair")]
    volume, whole = open_volume(paths), open_volume(data / "whole/a.nii.gz", channels_last=True)
    assert (volume.channels, volume.dtype, volume.name) == (2, np.int16, str(paths[0]))
    assert volume.grid.is_close(whole.grid)
    for box in (None, Box((3, 2, 1), (9, 5, 16))):
        np.testing.assert_array_equal(volume.read(box), whole.read(box))
    assert open_volume(paths[:1]).channels == 1


@pytest.mark.parametrize(
    ("one", "other", "both"), [(np.uint8, np.int16, np.int16), (np.int16, np.uint16, np.int32), (np.uint8, np.float64, np.float32)]
)
def test_the_type_holds_the_voxels_of_all_files(one: Any, other: Any, both: Any, tmp_path: Path) -> None:
    arrays = [np.full((2, 3, 4), 200, one), np.full((2, 3, 4), np.iinfo(np.int16).max, other)]
    volume = open_volume([save(tmp_path / f"{n}.nii", array) for n, array in enumerate(arrays)])
    assert volume.read().dtype == volume.dtype == both
    assert volume.read()[:, 0, 0, 0].tolist() == [200, 32767]


@pytest.mark.parametrize(
    ("shape", "affine", "got"), [((4, 4, 5), AFFINE, r"shape \(4, 4, 4\) and \(4, 4, 5\)"), ((4, 4, 4), np.eye(4), "other affines")]
)
def test_files_of_several_grids_are_refused(shape: tuple[int, ...], affine: np.ndarray, got: str, tmp_path: Path) -> None:
    paths = [save(tmp_path / "a.nii", np.zeros((4, 4, 4), np.int16)), save(tmp_path / "b.nii", np.zeros(shape, np.int16), affine)]
    with pytest.raises(ValueError, match=rf"b\.nii: channels of a case must lie on the grid of .*a\.nii, got {got}"):
        open_volume(paths)


def test_numbered_files_are_one_case_if_the_networks_take_as_many_channels(data: Path) -> None:
    folder = data / "numbered"
    files = tuple(folder / f"a_{n:04}.nii.gz" for n in (0, 1))
    assert [case.id for case in list_cases([folder])] == ["a_0000", "a_0001", "b_0000", "b_0001"]
    for cases in (list_cases([folder], channels=2), list_cases(sorted(folder.iterdir()), channels=2), find_cases([folder], channels=2)):
        assert [case.id for case in cases] == ["a", "b"]
        assert cases[0].image == files
    assert [case.id for case in list_cases([data], channels=2)][4:8] == ["labels__a", "labels__b", "numbered__a", "numbered__b"]
    assert [case.id for case in list_cases([folder], channels=3)] == ["a_0000", "a_0001", "b_0000", "b_0001"]
    save(folder / "a_0002.nii.gz", channel(0))
    (folder / "b_0001.nii.gz").unlink()
    assert [case.id for case in list_cases([folder], channels=2)] == ["a_0000", "a_0001", "a_0002", "b_0000"]


def test_lists_name_several_files(data: Path) -> None:
    (data / "list.csv").write_text(
        "id,image_0,image_1\np,folders/a/t1.nii,folders/a/flair.nii\n,numbered/b_0000.nii.gz,numbered/b_0001.nii.gz\n"
    )
    listed = list_cases([data / "list.csv"])
    assert [(case.id, [path.name for path in case.images]) for case in listed] == [
        ("p", ["t1.nii", "flair.nii"]),
        ("b", ["b_0000.nii.gz", "b_0001.nii.gz"]),
    ]
    dataset = load_dataset(data)
    assert [case.id for case in dataset.training + dataset.validation] == ["a__t1", "b__t1"]
    (data / "folders/b/flair.nii").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 6 missing, the first .*flair\.nii"):
        load_dataset(data)


def test_a_list_of_files_gives_the_labels_of_a_file_of_four_dimensions(
    data: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def segment(source: str, out: str) -> int:
        return cli.main(["segment", str(data / source), "--bundle", str(bundle), "-o", str(data / out), "--device", "cpu"])

    def labels(out: str, name: str) -> np.ndarray:
        return np.asarray(nib.load(data / out / f"{name}_seg.nii.gz").dataobj)

    assert [segment(source, out) for source, out in (("whole", "w"), ("numbered", "n"), ("dataset.json", "d"))] == [0, 0, 0]
    for name in ("a", "b"):
        assert labels("w", name).any()
        np.testing.assert_array_equal(labels("n", name), labels("w", name))
        np.testing.assert_array_equal(labels("d", f"{name}__t1"), labels("w", name))
    notes = json.loads((data / "d" / "a__t1_seg.json").read_text())
    assert notes["channels"] == [str(data / f"folders/a/{kind}.nii") for kind in ("t1", "flair")]
    assert cli.main(["evaluate", str(data / "d"), str(data / "dataset.json"), "-o", str(data / "rows.csv")]) == 0
    with (data / "rows.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["case"] == "b__t1"

    capsys.readouterr()
    assert segment("numbered", "n") == 0
    assert "2 of 2 cases were done before" in capsys.readouterr().err
    save(data / "numbered" / "b_0001.nii.gz", channel(5))
    assert segment("numbered", "n") == 1
    assert "made of another image" in capsys.readouterr().err


def test_training_opens_the_same_case(data: Path) -> None:
    case, whole = load_dataset(data).training[0], open_volume(data / "whole/a.nii.gz", channels_last=True)
    opened = OpenCased(ImageView(channels=2, axcodes="RAS"))(case.as_dict())["case"]
    np.testing.assert_array_equal(opened.image.read(), whole.read()[:, ::-1])


def test_monai_transforms_load_and_save_it(data: Path) -> None:
    loaded = LoadImageVolumed("image")(load_dataset(data).training[0].as_dict())
    assert loaded["image"].shape == (2, *SHAPE)
    loaded["pred"] = MetaTensor(torch.ones(1, *SHAPE), meta=loaded["image"].meta)
    SaveImageLabelsd("pred", data / "out")(loaded)
    assert nib.load(data / "out" / "a__t1_seg.nii.gz").shape == SHAPE


def test_a_bundle_of_several_channels_finds_them_in_its_folder(data: Path, bundle: Path) -> None:
    parser = config_parser(open_bundle(bundle), ["inference.json"])
    parser["dataset_dir"] = str(data / "numbered")
    assert [item["image"].shape for item in parser.get_parsed_content("dataset")] == [(2, *SHAPE)] * 2
