from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

torch = pytest.importorskip("torch")
monai_data = pytest.importorskip("monai.data")
from monai.bundle import ConfigParser  # noqa: E402
from monai.transforms import Compose, EnsureChannelFirstd, EnsureTyped, Flipd, Invertd  # noqa: E402

from stseg3d.volumes import as_volume, open_volume  # noqa: E402
from stseg3d.volumes.monai_io import LoadImageVolumed, SaveImageLabelsd, collate_alone  # noqa: E402

AFFINE = np.array([[0, 0, -2.0, 9], [-1, 0, 0, 8], [0, 1.5, 0, 7], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("stored", "dtype"),
    [("uint8", torch.uint8), ("int16", torch.int16), ("uint16", torch.int32), ("uint32", torch.int64), ("float64", torch.float32)],
)
def test_an_image_comes_in_its_own_type_with_affine_and_name(write_nifti, stored, dtype):
    array = np.arange(60).reshape(3, 4, 5).astype(stored)
    path = write_nifti("a.nii.gz", array, AFFINE)
    image = LoadImageVolumed("image")({"image": path, "other": 1})["image"]
    assert isinstance(image, monai_data.MetaTensor)
    assert image.dtype == dtype
    assert image.shape == (1, 3, 4, 5)
    assert image.meta["filename_or_obj"] == str(path)
    np.testing.assert_array_equal(image.affine, AFFINE)
    np.testing.assert_array_equal(image[0], array)


def test_a_loaded_image_is_the_volume_of_its_file(write_nifti):
    path = write_nifti("a.nii.gz", np.arange(60, dtype=np.int16).reshape(3, 4, 5), AFFINE)
    volume, loaded = open_volume(path), as_volume(LoadImageVolumed("image")({"image": path})["image"])
    assert volume.grid == loaded.grid
    assert volume.dtype == loaded.dtype
    np.testing.assert_array_equal(volume.read(), loaded.read())


def test_it_works_in_a_data_loader_and_before_other_transforms(write_nifti, tmp_path):
    paths = [write_nifti(f"{x}.nii.gz", np.full((3, 4, 5), i, np.uint8), AFFINE) for i, x in enumerate("ab")]
    load = Compose([LoadImageVolumed(["image", "label"], allow_missing_keys=True), EnsureChannelFirstd("image")])
    dataset = monai_data.Dataset([{"image": str(p)} for p in paths], load)
    (batch,) = monai_data.DataLoader(dataset, batch_size=2)
    assert batch["image"].shape == (2, 1, 3, 4, 5)
    save = SaveImageLabelsd("image", tmp_path / "out")
    for item in monai_data.decollate_batch(batch):
        save(item)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a_seg.nii.gz", "b_seg.nii.gz"]
    assert nib.load(tmp_path / "out" / "b_seg.nii.gz").get_fdata().min() == 1


@pytest.mark.parametrize("shape", [(6, 5, 4), (6, 5, 1), (6, 5)])
@pytest.mark.parametrize("kind", [torch.uint8, torch.bool, torch.int64, torch.float32])
def test_labels_are_saved_on_the_grid_of_the_image(write_nifti, tmp_path, shape, kind):
    path = write_nifti("ct.nii.gz", np.zeros(shape, np.int16), AFFINE, qform_code=2, sform_code=4, xyzt_units=10)
    data = LoadImageVolumed("image")({"image": path})
    data["pred"] = (torch.rand(data["image"].shape) > 0.5).to(kind).as_subclass(monai_data.MetaTensor)
    data["pred"] = monai_data.MetaTensor(data["pred"].as_tensor(), meta=data["image"].meta)
    out = SaveImageLabelsd("pred", str(tmp_path / "out"), suffix="labels")(data | {"id": "p1__ct"})
    saved, source = nib.load(tmp_path / "out" / "p1__ct_labels.nii.gz"), nib.load(path)
    assert out.keys() == data.keys() | {"id"}
    assert saved.shape == shape
    assert saved.get_data_dtype() == np.uint8
    for key in ("qform_code", "sform_code", "xyzt_units", "pixdim"):
        np.testing.assert_array_equal(saved.header[key], source.header[key])
    np.testing.assert_array_equal(saved.affine, source.affine)
    np.testing.assert_array_equal(np.asarray(saved.dataobj), data["pred"].numpy().reshape(shape))


def test_probabilities_are_saved_in_four_dimensions(write_nifti, tmp_path):
    path = write_nifti("ct.nii.gz", np.zeros((3, 4, 5), np.int16), AFFINE)
    image = LoadImageVolumed("image")({"image": path})["image"]
    pred = monai_data.MetaTensor(torch.rand(3, 3, 4, 5), meta=image.meta)
    SaveImageLabelsd("pred", tmp_path, suffix="probabilities")({"pred": pred})
    saved = nib.load(tmp_path / "ct_probabilities.nii.gz")
    assert saved.shape == (3, 4, 5, 3)
    assert saved.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.moveaxis(saved.get_fdata(dtype=np.float32), -1, 0), pred.numpy())


def test_a_prediction_that_was_turned_is_refused_until_it_is_turned_back(write_nifti, tmp_path):
    path = write_nifti("ct.nii.gz", np.arange(60, dtype=np.uint8).reshape(3, 4, 5), AFFINE)
    turn = Compose([LoadImageVolumed("image"), Flipd("image", spatial_axis=0)])
    data = turn({"image": path})
    data["pred"] = data["image"]
    with pytest.raises(ValueError, match=r"pred must be on the grid of .*ct.nii.gz, \(3, 4, 5\) PSL, got \(3, 4, 5\) ASL"):
        SaveImageLabelsd("pred", tmp_path / "out")(data)
    assert not (tmp_path / "out").exists()
    SaveImageLabelsd("pred", tmp_path / "out")(Invertd("pred", turn, orig_keys="image")(data))
    np.testing.assert_array_equal(nib.load(tmp_path / "out" / "ct_seg.nii.gz").get_fdata().ravel(), np.arange(60))


def test_what_cannot_be_saved_is_refused(write_nifti, tmp_path):
    path = write_nifti("ct.nii.gz", np.zeros((3, 4, 5), np.int16))
    image = LoadImageVolumed("image")({"image": path})["image"]
    save = SaveImageLabelsd("pred", tmp_path / "out")
    with pytest.raises(ValueError, match=r"pred must be a MetaTensor whose meta data name the file .* got None"):
        save({"pred": torch.zeros(1, 3, 4, 5)})
    with pytest.raises(ValueError, match=r"pred must hold whole numbers to be written as labels, got float32 from 0.5 to 0.5"):
        save({"pred": monai_data.MetaTensor(torch.full((1, 3, 4, 5), 0.5), meta=image.meta)})
    with pytest.raises(ValueError, match=r"labels must be integers from 0 .*, got -1 to -1"):
        save({"pred": monai_data.MetaTensor(torch.full((1, 3, 4, 5), -1), meta=image.meta)})
    assert list(tmp_path.rglob("*seg*")) == []


def test_a_config_names_them_by_target(write_nifti, tmp_path):
    path = write_nifti("ct.nii.gz", np.ones((3, 4, 5), np.uint8))
    config = {
        "load": {"_target_": "stseg3d.volumes.monai_io.LoadImageVolumed", "keys": ["image"]},
        "save": {"_target_": "stseg3d.volumes.monai_io.SaveImageLabelsd", "keys": "image", "output_dir": str(tmp_path / "out")},
    }
    parser = ConfigParser(json.loads(json.dumps(config)))
    data = parser.get_parsed_content("load")({"image": str(path)})
    parser.get_parsed_content("save")(EnsureTyped("image")(data))
    assert (tmp_path / "out" / "ct_seg.nii.gz").is_file()


def test_monai_label_and_deploy_know_them_by_name():
    assert "LoadImage" in LoadImageVolumed.__name__
    assert "SaveImage" in SaveImageLabelsd.__name__


def test_a_picture_of_colours_has_channels(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((5, 7, 3), np.uint8), isVector=True), str(tmp_path / "a.png"))
    assert LoadImageVolumed("image")({"image": tmp_path / "a.png"})["image"].shape == (3, 7, 5, 1)


# --- a batch of one ----------------------------------------------------------


def same(one: object, other: object) -> bool:
    """Whether two collated things are equal, meta data and all."""
    if isinstance(one, monai_data.MetaTensor):
        kept = {key: value for key, value in vars(one).items() if key != "_meta"}
        assert isinstance(other, monai_data.MetaTensor)
        assert kept == {key: value for key, value in vars(other).items() if key != "_meta"}
        return same(dict(one.meta), dict(other.meta)) and same(one.as_tensor(), other.as_tensor())
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return one == other


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 1), (4, 5, 6, 3)])
@pytest.mark.parametrize("size", [1, 2])
def test_a_batch_is_collated_as_by_monai(write_nifti, rng, shape, size):
    paths = [write_nifti(f"{n}.nii.gz", rng.integers(-99, 99, shape).astype(np.int16)) for n in range(size)]
    batch = [LoadImageVolumed("image")({"image": path, "name": path.name, "age": 9}) for path in paths]
    assert same(collate_alone(batch), monai_data.list_data_collate(batch))


def test_a_batch_of_one_is_not_copied(write_nifti, rng):
    data = LoadImageVolumed("image")({"image": write_nifti("a.nii.gz", rng.integers(-99, 99, (4, 5, 6)).astype(np.int16))})
    image = collate_alone([data])["image"]
    assert image.data_ptr() == data["image"].data_ptr()
    (alone,) = monai_data.decollate_batch(image)
    assert alone.meta["filename_or_obj"] == data["image"].meta["filename_or_obj"]
    torch.testing.assert_close(alone.affine, data["image"].affine)
