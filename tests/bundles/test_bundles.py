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
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, verify_metadata, verify_net_in_out
from monai.utils import set_determinism

from stseg3d.bundle import WEIGHTS, bundle_names, find_bundle, load_network

BUNDLES = bundle_names()
SCHEMA = Path(__file__).with_name("meta_schema_20240725.json")
SHARED = ("rough_network_def", "fine_network_def", "intensity", "rough_stage", "fine_stage")


@pytest.fixture(params=BUNDLES)
def bundle(request: pytest.FixtureRequest) -> Path:
    return find_bundle(request.param)


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


def test_both_bundles_are_there() -> None:
    assert BUNDLES == ["aorta_ct_segmentation", "vertebrae_mr_segmentation"]


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


def test_weights_load_strictly_and_are_small(bundle: Path) -> None:
    load_network(bundle)
    assert (bundle / WEIGHTS).stat().st_size < 8e6
    state = torch.load(bundle / WEIGHTS, weights_only=True)
    assert {key.split(".")[0] for key in state} == {"rough", "fine"}


def test_no_other_file_lies_beside_the_weights(bundle: Path) -> None:
    # MONAI Label offers every models/*.pt to its user as a model.
    assert [p.name for p in (bundle / "models").glob("*.pt")] == ["model.pt"]


def test_training_and_inference_use_the_same_networks_and_inputs(bundle: Path) -> None:
    inference, train = config(bundle, "inference.json"), config(bundle, "train.json")
    assert {key: inference[key] for key in SHARED} == {key: train[key] for key in SHARED}


def test_training_boxes_come_from_the_policy_of_inference(bundle: Path) -> None:
    inference, train = ConfigParser(config(bundle, "inference.json")), ConfigParser(config(bundle, "train.json"))
    assert inference.get_parsed_content("policy") == train.get_parsed_content("policy")


def test_evaluation_runs_the_inferer_of_inference(bundle: Path) -> None:
    inference = ConfigParser(config(bundle, "inference.json"))
    evaluate = ConfigParser(config(bundle, "train.json") | config(bundle, "evaluate.json"))
    assert inference.get_parsed_content("fine_policy") == evaluate.get_parsed_content("fine_policy")
    assert config(bundle, "inference.json")["inferer"] == config(bundle, "evaluate.json")["inferer"]


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
    assert not kept
    for transform in parser.get_parsed_content("postprocessing").transforms:
        assert "SaveImage" in type(transform).__name__
    return parser.get_parsed_content("inferer")(image[None], network)


def test_monai_label_gets_labels_on_the_image_grid(bundle: Path) -> None:
    from monai.data import MetaTensor

    affine = torch.diag(torch.tensor([-1.0, 1.0, 2.0, 1.0], dtype=torch.float64))
    image = MetaTensor(torch.rand(1, 40, 48, 32), affine=affine)
    pred = label_contract(bundle, image)
    assert isinstance(pred, MetaTensor)
    assert pred.shape == (1, 1, 40, 48, 32)
    assert pred.dtype == torch.uint8


def test_monai_deploy_calls_by_keyword(bundle: Path) -> None:
    network, parser = load_network(bundle)
    out = parser.get_parsed_content("inferer")(inputs=torch.rand(1, 1, 32, 32, 24), network=network)
    assert out.shape == (1, 1, 32, 32, 24)
