"""Configs are rendered from a plan, whole, and are known again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from stseg3d.bundle import METADATA, PLAN, bundle_names, find_bundle
from stseg3d.plan import Plan, is_intact, render, with_formats
from tests.plan.test_plan import small


@pytest.fixture(params=bundle_names())
def bundle(request: pytest.FixtureRequest) -> Path:
    return find_bundle(request.param)


def plan_of(bundle: Path) -> Plan:
    return Plan.parse((bundle / PLAN).read_bytes())


def test_the_files_of_a_bundle_are_what_its_plan_renders_to(bundle: Path) -> None:
    found = {
        path.name: path.read_bytes().decode() for path in (bundle / "configs").iterdir() if path.name not in (PLAN.name, METADATA.name)
    }
    assert render(plan_of(bundle)) == found


def test_the_metadata_say_of_the_networks_what_the_plan_does(bundle: Path) -> None:
    metadata = json.loads((bundle / METADATA).read_text())
    assert with_formats(metadata, plan_of(bundle)) == metadata
    channel = with_formats(metadata, plan_of(bundle).set({"fine#rough_channel": True, "training#cases_a_batch#rough": 1}))
    image = channel["network_data_format"]["inputs"]["image"]
    assert image["num_channels"] == plan_of(bundle).image.channels + 1
    assert list(image["channel_def"].values())[-1] == "rough probability"


def test_a_config_stands_on_its_own() -> None:
    """No macro, and no reference to what it has not, but in the overlays."""
    for name in ("inference.json", "train.json"):
        text = render(small())[name]
        assert '"%' not in text
        ConfigParser(json.loads(text)).parse()


def test_a_file_that_was_edited_is_known_and_one_of_an_earlier_plan_is_intact() -> None:
    now, before = render(small()), render(small(**{"policy#threshold": 0.1}))
    assert now["inference.json"] != before["inference.json"]
    for text in (*now.values(), *before.values()):
        assert is_intact(text)
        assert not is_intact(text.replace("stderr", "stdout").replace("true", "false") + " ")
        assert not is_intact(text.partition("\n")[2])
    assert not is_intact("")


def test_an_override_is_an_entry_of_a_config_whatever_it_is() -> None:
    wanted: dict[str, Any] = {"train#trainer#amp": True, "run": ["$1"], "train#handlers#3#max_norm": 1.0}
    texts = render(small(overrides={"train.json": wanted, "evaluate.json": {"validate#dataset": {}}}))
    train = json.loads(texts["train.json"])
    assert train["train"]["trainer"]["amp"] is True
    assert train["train"]["handlers"][3]["max_norm"] == 1.0
    assert train["run"] == ["$1"]
    assert json.loads(texts["evaluate.json"])["validate#dataset"] == {}
    assert texts["inference.json"] == render(small())["inference.json"]


def test_channels_and_classes_reach_the_networks() -> None:
    plan = small(classes=["background", "a", "b"], **{"image#channels": 2, "fine#rough_channel": True})
    train = json.loads(render(plan)["train.json"])
    assert (train["rough_network_def"]["in_channels"], train["rough_network_def"]["out_channels"]) == (2, 3)
    assert train["fine_network_def"]["in_channels"] == 3
    assert train["open_case"]["foreground"] is False
    assert train["open_case"]["out_channels"] == train["rough_sample"]["out_channels"] == 3
    assert train["train"]["postprocessing"]["transforms"][1]["to_onehot"] == 3


def test_a_rough_network_may_tell_objects_from_background_only() -> None:
    texts = render(small(classes=["background", "a", "b"], **{"rough#is_binary": True}))
    train = json.loads(texts["train.json"])
    assert (train["rough_network_def"]["out_channels"], train["fine_network_def"]["out_channels"]) == (2, 3)
    assert "out_channels" not in train["rough_sample"]
    assert json.loads(texts["train_rough.json"])["train#postprocessing#transforms#1#to_onehot"] == 2


def test_a_flat_network_is_shown_flat_images() -> None:
    flat = {"name": "BasicUNet", "spatial_dims": 2}
    plan = small(**{"rough#size": [16, 16, 1], "rough#network": flat, "fine#size": [16, 16, 1], "fine#network": flat})
    made = json.loads(render(plan)["inference.json"])["fine_network_def"]
    assert made["_target_"] == "stseg3d.networks.SqueezeDepth"
    assert made["network"]["spatial_dims"] == 2


def test_patches_for_a_sliding_window_need_no_rough_network() -> None:
    text = render(small(**{"training#crops": "patches"}))["train.json"]
    assert "RandPatchesd" in text
    assert "FineBoxesd" not in text
    assert "SlidingWindow" in text


def test_rules_for_components_are_rendered_with_the_names_of_the_classes_and_only_if_there_are_any() -> None:
    config = json.loads(render(small())["inference.json"])
    assert "largest_only" not in config["output"]
    assert "classes" not in config["inferer"]
    plan = small(**{"output#largest_only": ["foreground"], "output#min_volume_mm3": {"foreground": 3}})
    config = json.loads(render(plan)["inference.json"])
    assert (config["output"]["largest_only"], config["output"]["min_volume_mm3"]) == (["foreground"], {"foreground": 3.0})
    assert config["inferer"]["classes"] == list(plan.classes)
    assert Plan.from_json(plan.as_json()) == plan


def test_a_loss_is_taken_of_regions_and_of_classes_that_they_do_not_tell_apart() -> None:
    classes = [f"c{n}" for n in range(7)]
    regions = {"whole": [1, 2, 3, 4, 5], "core": [2, 3], "rim": [4]}  # 1 and 5, 2 and 3 are alike to them; 6 is in none, as is background
    options = {"classes": classes, "regions": regions, "training#loss": {"name": "DiceCELoss", "lambda_ce": 0.5}}
    texts = render(small(**options, **{"rough#is_binary": True}))
    loss = {"_target_": "stseg3d.training.RegionLoss", "regions": [[1, 2, 3, 4, 5], [2, 3], [4], [1], [2], [3], [5], [6]], "lambda_ce": 0.5}
    train = json.loads(texts["train.json"])
    assert train["loss"] == loss
    assert train["train"]["loss"] == {"_target_": "stseg3d.training.HeadsLoss", "loss": "@loss"}
    assert json.loads(texts["train_rough.json"])["loss"]["_target_"] == "DiceCELoss"  # two classes, which no region tells of
    plain = render(small(classes=classes))
    assert [name for name in plain if "RegionLoss" in plain[name]] == []
    assert "loss" not in json.loads(plain["train_rough.json"])
