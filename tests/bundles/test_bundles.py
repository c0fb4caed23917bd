"""Contracts of the embedded bundles, offline: what MONAI, MONAI Label and MONAI Deploy ask of a bundle."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, run, verify_metadata, verify_net_in_out
from monai.data import MetaTensor
from monai.utils import set_determinism
from scipy import ndimage

from stseg3d.bundle import WEIGHTS, bundle_names, find_bundle, load_network
from stseg3d.cli import main
from stseg3d.metrics import score_objects
from stseg3d.volumes import ArrayVolume, load_dataset, open_volume
from stseg3d.volumes.monai_io import LoadImageVolumed
from tests.phantoms import near
from tests.tiny import read_config

BUNDLES = bundle_names()
SCHEMA = Path(__file__).with_name("meta_schema_20240725.json")
SHARED = ("rough_network_def", "fine_network_def", "rough_stage", "fine_stage")


@pytest.fixture(params=BUNDLES)
def bundle(request: pytest.FixtureRequest) -> Path:
    return find_bundle(request.param)


@pytest.fixture
def trained(bundle: Path) -> Path:
    """The bundle, where it has weights."""
    if not (bundle / WEIGHTS).is_file():
        pytest.skip(f"{bundle.name} has no {WEIGHTS} yet")
    return bundle


@pytest.fixture
def nuclei(tmp_path: Path) -> Path:
    """A copy of the bundle for pictures; with weights of chance if it has none of its own."""
    copy = tmp_path / "nuclei_segmentation"
    shutil.copytree(find_bundle("nuclei_segmentation"), copy, ignore=shutil.ignore_patterns("logs", "stages"))
    if not (copy / WEIGHTS).is_file():
        (copy / WEIGHTS).parent.mkdir(exist_ok=True)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            torch.save(read_config(copy).get_parsed_content("network_def").state_dict(), copy / WEIGHTS)
    return copy


def config(bundle: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((bundle / "configs" / name).read_text())
    return content


def verify(metadata: Path, folder: Path) -> None:
    """MONAI's own check; a schema that is there already is not downloaded."""
    shutil.copy(SCHEMA, folder / "schema.json")
    digest = hashlib.md5(SCHEMA.read_bytes()).hexdigest()
    verify_metadata(meta_file=str(metadata), filepath=str(folder / "schema.json"), hash_val=digest, hash_type="md5")


def tiny_dataset(folder: Path) -> Path:
    """Four volumes of a block: training cannot be set up without cases."""
    label = np.zeros((16, 16, 16), dtype=np.uint8)
    label[4:12, 4:12, 4:12] = 1
    nib.save(nib.Nifti1Image(label, np.eye(4)), folder / "block.nii.gz")
    case = {"image": "block.nii.gz", "label": "block.nii.gz"}
    (folder / "dataset.json").write_text(json.dumps({"name": "blocks", "training": [case] * 4, "validation": [case]}))
    return folder


def test_all_bundles_are_there() -> None:
    assert BUNDLES == ["aorta_ct_segmentation", "nuclei_segmentation", "vertebrae_mr_segmentation"]


def test_metadata_obeys_the_schema(bundle: Path, tmp_path: Path) -> None:
    verify(bundle / "configs/metadata.json", tmp_path)


def test_the_schema_refuses_metadata_without_a_data_format(bundle: Path, tmp_path: Path) -> None:
    broken = config(bundle, "metadata.json")
    del broken["network_data_format"]["inputs"]["image"]["dtype"]
    (tmp_path / "metadata.json").write_text(json.dumps(broken))
    with pytest.raises(ValueError, match="Failed validating"):
        verify(tmp_path / "metadata.json", tmp_path)


def test_the_version_has_a_changelog(bundle: Path) -> None:
    metadata = config(bundle, "metadata.json")
    assert metadata["version"] in metadata["changelog"]


def test_fine_network_takes_and_gives_what_the_metadata_say(bundle: Path) -> None:
    verify_net_in_out("network_def", str(bundle / "configs/metadata.json"), str(bundle / "configs/inference.json"), device="cpu")


def test_rough_network_takes_and_gives_what_the_metadata_say(bundle: Path, tmp_path: Path) -> None:
    metadata = config(bundle, "metadata.json")
    metadata["network_data_format"] = metadata["rough_data_format"]
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    verify_net_in_out("rough_network_def", str(tmp_path / "metadata.json"), str(bundle / "configs/inference.json"), device="cpu")


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("infer", ["inference.json"]),
        ("train", ["train.json"]),
        ("train", ["train.json", "train_rough.json"]),
        ("train", ["train.json", "evaluate.json"]),
    ],
)
def test_configs_have_the_properties_monai_asks_for(bundle: Path, kind: str, files: list[str], tmp_path: Path) -> None:
    overrides = {"dataset_dir": str(tiny_dataset(tmp_path))} if kind == "train" else {}
    workflow = ConfigWorkflow(
        config_file=[str(bundle / "configs" / f) for f in files],
        meta_file=str(bundle / "configs/metadata.json"),
        workflow_type=kind,
        bundle_root=str(bundle),
        **overrides,
    )
    workflow.initialize()
    try:
        assert not workflow.check_properties()
    finally:
        set_determinism(None)  # what `initialize` has set for the whole process


def test_weights_load_strictly_and_are_small(trained: Path) -> None:
    load_network(trained)
    assert (trained / WEIGHTS).stat().st_size < 8e6
    state = torch.load(trained / WEIGHTS, weights_only=True)
    assert {key.split(".")[0] for key in state} == {"rough", "fine"}


def test_no_other_file_lies_beside_the_weights(trained: Path) -> None:
    # MONAI Label offers every models/*.pt to its user as a model.
    assert [p.name for p in (trained / "models").glob("*.pt")] == ["model.pt"]


def test_training_and_inference_use_the_same_networks_and_inputs(bundle: Path) -> None:
    inference, train = config(bundle, "inference.json"), config(bundle, "train.json")
    assert inference.get("intensity") == train.get("intensity")  # a bundle for pictures standardises the whole instead
    assert {key: inference[key] for key in SHARED} == {key: train[key] for key in SHARED}


def test_training_opens_images_as_inference_does(bundle: Path) -> None:
    assert config(bundle, "inference.json")["image"] == config(bundle, "train.json")["image"]
    assert config(bundle, "inference.json")["inferer"]["image"] == config(bundle, "train.json")["open_case"]["image"] == "@image"


def test_metadata_tell_the_sizes_of_both_stages(bundle: Path) -> None:
    inference, metadata = config(bundle, "inference.json"), config(bundle, "metadata.json")
    for stage, about in [("rough_stage", "rough_data_format"), ("fine_stage", "network_data_format")]:
        formats = metadata[about]
        sizes = [formats[side][name]["spatial_shape"] for side, name in [("inputs", "image"), ("outputs", "pred")]]
        assert sizes == [inference[stage]["size"]] * 2


def test_training_boxes_come_from_the_policy_of_inference(bundle: Path) -> None:
    inference, train = ConfigParser(config(bundle, "inference.json")), ConfigParser(config(bundle, "train.json"))
    assert inference.get_parsed_content("policy") == train.get_parsed_content("policy")


def test_evaluation_runs_the_inferer_of_inference(bundle: Path) -> None:
    inference = ConfigParser(config(bundle, "inference.json"))
    evaluate = ConfigParser(config(bundle, "train.json") | config(bundle, "evaluate.json"))
    assert inference.get_parsed_content("fine_policy") == evaluate.get_parsed_content("fine_policy")
    for entry in ("inferer", "output", "execution"):
        assert config(bundle, "inference.json")[entry] == config(bundle, "evaluate.json")[entry]


def test_a_bundle_carries_no_python_and_a_licence(bundle: Path) -> None:
    assert not list(bundle.rglob("*.py"))
    assert (bundle / "LICENSE").is_file()
    assert (bundle / "docs/README.md").is_file()


def test_keys_are_those_monai_label_hard_wires(bundle: Path) -> None:
    formats = config(bundle, "metadata.json")["network_data_format"]
    assert next(iter(formats["inputs"])) == "image"
    assert next(iter(formats["outputs"])) == "pred"


def label_contract(bundle: Path, image: Any) -> Any:
    """What MONAI Label's bundle task does: parse, drop reading and writing, load loosely, ``inferer(inputs[None], network)``."""
    parser = ConfigParser(config(bundle, "inference.json"))
    parser["bundle_root"] = str(bundle)
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(bundle / WEIGHTS, weights_only=True), strict=False)
    kept = [t for t in parser.get_parsed_content("preprocessing").transforms if "LoadImage" not in type(t).__name__]
    assert {type(t).__name__ for t in kept} <= {"EnsureChannelFirstd"}  # which leaves an image with channels as it is
    for transform in parser.get_parsed_content("postprocessing").transforms:
        assert "SaveImage" in type(transform).__name__
    return parser.get_parsed_content("inferer")(image[None], network)


def of_a_picture(bundle: Path) -> bool:
    return bool(config(bundle, "inference.json")["image"].get("colour"))


def test_monai_label_gets_labels_on_the_image_grid(trained: Path) -> None:
    affine = torch.diag(torch.tensor([-1.0, 1.0, 2.0, 1.0], dtype=torch.float64))
    space = (40, 48, 1) if of_a_picture(trained) else (40, 48, 32)
    image = MetaTensor(torch.rand(1, *space), affine=affine)
    pred = label_contract(trained, image)
    assert isinstance(pred, MetaTensor)
    assert pred.shape == (1, 1, *space)
    assert pred.dtype == torch.uint8
    torch.testing.assert_close(pred[0].affine, affine)


def test_monai_deploy_calls_by_keyword(trained: Path) -> None:
    network, parser = load_network(trained)
    space = (32, 32, 1) if of_a_picture(trained) else (32, 32, 24)
    out = parser.get_parsed_content("inferer")(inputs=torch.rand(1, 1, *space), network=network)
    assert out.shape == (1, 1, *space)


# --- pictures ----------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of one picture of bright discs, as RGBA, as RGB and, of one colour, as grey; the last is no square."""
    mask = near(np.array([[20.0, 20], [20, 34], [60, 70], [99, 40]]), 8, (110, 90))
    grey = (30 + 180 * mask).astype(np.uint8)
    alpha = np.broadcast_to(np.arange(90, dtype=np.uint8), grey.shape)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, channels in {
        "rgba.png": [grey, grey // 2, 255 - grey, alpha],
        "rgb.tif": [grey, grey // 2, 255 - grey],
        "grey.png": [grey],
    }.items():
        image = np.stack(channels, axis=-1).transpose(1, 0, 2)
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(image.squeeze(), isVector=len(channels) > 1), str(folder / name))
    return folder


def found_in(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: np.asarray(nib.load(path).dataobj) for path in sorted(folder.glob("*_seg.nii.gz"))}


@pytest.mark.slow
def test_pictures_have_the_same_labels_by_the_command_the_bundle_and_the_tensor(nuclei: Path, pictures: Path, tmp_path: Path) -> None:
    assert main(["segment", str(pictures), "--bundle", str(nuclei), "-o", str(tmp_path / "command"), "--device", "cpu"]) == 0
    paths = {"config_file": f"{nuclei}/configs/inference.json", "bundle_root": str(nuclei), "dataset_dir": str(pictures)}
    try:  # by the function behind `python -m monai.bundle run`, which is run in test_one_path.py
        run(**paths, output_dir=str(tmp_path / "bundle"), device="$torch.device('cpu')")
    finally:
        set_determinism(None)
    found = found_in(tmp_path / "command")
    assert list(found) == ["grey_seg.nii.gz", "rgb_seg.nii.gz", "rgba_seg.nii.gz"]
    np.testing.assert_array_equal(found["rgb_seg.nii.gz"], found["rgba_seg.nii.gz"])
    assert found["rgb_seg.nii.gz"].any()
    network, parser = load_network(nuclei)
    inferer = parser.get_parsed_content("inferer")
    for path in pictures.iterdir():
        due = found[f"{path.stem}_seg.nii.gz"]
        np.testing.assert_array_equal(found_in(tmp_path / "bundle")[f"{path.stem}_seg.nii.gz"], due)
        assert open_volume(tmp_path / "command" / f"{path.stem}_seg.nii.gz").grid.is_close(open_volume(path).grid)
        image = LoadImageVolumed("image")({"image": path})["image"][None]
        np.testing.assert_array_equal(inferer(image, network)[0, 0], due)
        np.testing.assert_array_equal(inferer(image[..., 0], network)[0, 0], due[..., 0])  # (B, C, H, W)


def test_monai_label_and_deploy_may_hand_over_pictures_of_two_axes(nuclei: Path) -> None:
    pred = label_contract(nuclei, MetaTensor(torch.rand(4, 50, 40), affine=torch.eye(4, dtype=torch.float64)))
    assert isinstance(pred, MetaTensor)
    assert pred.shape == (1, 1, 50, 40)
    network, parser = load_network(nuclei)
    assert parser.get_parsed_content("inferer")(inputs=torch.rand(2, 3, 50, 40), network=network).shape == (2, 1, 50, 40)


def test_evaluation_of_pictures_scores_the_foreground_of_instance_maps(nuclei: Path, pictures: Path, tmp_path: Path) -> None:
    mask = near(np.array([[20.0, 20], [20, 34], [60, 70], [99, 40]]), 8, (110, 90))
    ids = (ndimage.label(mask)[0] * 300).astype(np.uint16)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(ids.T), str(pictures / "ids.png"))
    case = {"image": "rgba.png", "label": "ids.png"}
    (pictures / "dataset.json").write_text(json.dumps({"name": "discs", "training": [case] * 4, "validation": [case]}))
    files = [str(nuclei / "configs" / name) for name in ("train.json", "evaluate.json")]
    paths = {"dataset_dir": str(pictures), "output_dir": str(tmp_path / "eval"), "device": "$torch.device('cpu')"}
    workflow = ConfigWorkflow(config_file=files, workflow_type="train", bundle_root=str(nuclei), **paths)
    workflow.initialize()
    try:
        workflow.run()
    finally:
        set_determinism(None)
    network, parser = load_network(nuclei)
    image = LoadImageVolumed("image")({"image": pictures / "rgba.png"})["image"]
    pred = np.asarray(parser.get_parsed_content("inferer")(image[None], network))[0, 0, ..., 0] > 0
    dice = 2 * (pred & mask).sum() / (pred.sum() + mask.sum())
    written = (tmp_path / "eval" / "val_mean_dice_raw.csv").read_text().splitlines()[1]
    assert float(written.split(",")[-1]) == pytest.approx(dice, abs=1e-5)


@pytest.mark.slow
def test_nuclei_of_real_pictures_are_found_whatever_is_done_to_their_colours(data_dir: Path) -> None:
    bundle = find_bundle("nuclei_segmentation")
    if not (bundle / WEIGHTS).is_file():
        pytest.skip(f"{bundle.name} has no {WEIGHTS} yet")
    network, parser = load_network(bundle)
    inferer = parser.get_parsed_content("inferer")
    scores = []
    for n, case in enumerate(load_dataset(data_dir / "nuclei_2d/dataset.json").validation[:4]):
        volume = open_volume(case.image)
        found = inferer.segment(volume, network).labels
        scores.append(score_objects(found, open_volume(case.label).read()[0])["object_f1_50"])
        if n not in (0, 3):  # one of fluorescence and one of a stain
            continue
        colours = volume.read()[:3]
        np.testing.assert_array_equal(inferer.segment(ArrayVolume(colours, volume.grid), network).labels, found)
        brighter = ArrayVolume(colours.astype(np.float32) * 16 + 100, volume.grid)
        rounded = inferer.segment(brighter, network).labels > 0
        assert np.mean(rounded == (found > 0)) > 0.999
    assert np.mean(scores) > 0.7
