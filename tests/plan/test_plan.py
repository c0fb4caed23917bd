"""A plan is one value: strict to read, frozen, and never at odds with itself."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from stseg3d.bundle import PLAN, bundle_names, find_bundle
from stseg3d.plan import STAGES, Plan, json_text, set_entries, task_entries

UNET = {"name": "UNet", "channels": [4, 8], "strides": [2]}
SMALL: dict[str, Any] = {
    "classes": ["background", "aorta"],
    "rough": {"size": [16, 16, 16], "network": UNET},
    "fine": {"size": [32, 16, 16], "network": UNET},
    "training": {
        "epochs": {"rough": 1, "fine": 2},
        "learning_rate": {"rough": 0.1, "fine": 0.2},
        "cases_a_batch": {"rough": 1, "fine": 1},
        "validate_every": {"rough": 1, "fine": 1},
    },
}


def small(**entries: Any) -> Plan:
    """The small plan with further entries, by their way."""
    content = json.loads(json.dumps(SMALL))
    for key, value in entries.items():
        *parents, last = key.split("#")
        holder = content
        for parent in parents:
            holder = holder.setdefault(parent, {})
        holder[last] = value
    return Plan.parse(json.dumps(content).encode())


@pytest.mark.parametrize("name", bundle_names())
def test_a_plan_is_written_as_it_is_read(name: str) -> None:
    content = (find_bundle(name) / PLAN).read_bytes()
    plan = Plan.parse(content)
    assert json_text(plan.as_json(json.loads(content))) == content.decode()
    assert Plan.from_json(plan.as_json()) == Plan.from_json(plan.as_json(whole=True)) == plan


def test_a_file_a_person_edits_is_short() -> None:
    assert all(len((find_bundle(name) / PLAN).read_text().splitlines()) <= 100 for name in bundle_names())


def test_what_is_not_said_has_a_default() -> None:
    plan = small()
    assert plan.image.axcodes == "RAS"
    assert plan.training.loss.name == "DiceCELoss"
    assert plan.as_json() == SMALL


def test_a_plan_is_frozen_and_needs_no_torch() -> None:
    with pytest.raises(FrozenInstanceError):
        small().classes = ()  # type: ignore[misc]
    code = "import sys, stseg3d.plan; sys.exit(any(name in sys.modules for name in ('torch', 'monai')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("entries", "rule"),
    [
        ({"classes": ["background"]}, r"classes must be background and at least one more, each once, got \['background'\]"),
        ({"regions": {"a": [1, 2]}}, r"regions#a must hold classes from 1 to 1, each once, got \[1, 2\]"),
        ({"regions": {"a": [0, 1]}}, r"regions#a must hold classes from 1 to 1, each once, got \[0, 1\]"),
        ({"regions": {"a": []}}, r"regions#a must hold classes from 1 to 1, each once, got \[\]"),
        ({"regions": {"a": [1], "b": [1]}}, r"regions must differ, got {'a': \[1\], 'b': \[1\]}"),
        ({"regions": {"background": [1]}}, "regions#background must not have the name of another class"),
        (
            {"regions": {"a": [1]}, "training#loss": {"name": "TverskyLoss"}},
            "training#loss of a plan with regions must be one of DiceCELoss, or a full dotted name, got 'TverskyLoss'",
        ),
        ({"regions": {"a": [1]}, "training#loss": {"name": "DiceCELoss", "label_smoothing": 0.1}}, "got 'label_smoothing'"),
        ({"fine#size": [16, 16]}, "rough#size and fine#size must have as many axes"),
        ({"fine#spacing_mm": 2.0}, "spacing_mm and is_binary are for the rough stage"),
        ({"fine#is_binary": True}, "are for the rough stage"),
        ({"rough#rough_channel": True}, "rough_channel for the fine one"),
        ({"rough#spacing_mm": 2.0, "training#cases_a_batch#rough": 2}, "training#cases_a_batch#rough must be 1, as sizes differ"),
        ({"image#axcodes": None, "output#number_from": "S"}, "output#number_from='S' needs image#axcodes, got null"),
        ({"policy#min_spacing_mm": 2.0, "policy#max_spacing_mm": 1.0}, "policy#min_spacing_mm must not be above policy#max_spacing_mm"),
        ({"policy#threshold": 2.0}, r"plan.json#policy: threshold must be in \[0, 1\], got 2.0"),
        ({"rough#network#strides": [32]}, r"rough#size must be divisible by \[32, 32, 32\] along the axes"),
        ({"rough#spacing_mm": 2.0, "rough#multiple": 3}, "rough#multiple must be divisible by"),
        ({"rough#network#strides": ["x"]}, "rough#network#strides must be whole numbers"),
        ({"rough#network#in_channels": 1}, "rough#network must leave in_channels to the plan"),
        ({"rough#network#spatial_dims": 2}, "rough#network#spatial_dims must be the axes of"),
        ({"rough#network": {"name": "MeanEnsemble"}}, "must list the networks of an ensemble under 'networks'"),
        ({"rough#network#name": "Unet"}, "got 'Unet'; is 'UNet' meant"),
        ({"rough#mirror_axes": [3]}, "plan.json#rough: mirror_axes must be axes longer than 1"),
        ({"training#augmentation": {"rough": {"mirror_axes": [3]}, "fine": {}}}, "training#augmentation#rough#mirror_axes must be axes"),
        ({"training#folds": 3}, "folds=3 must serve predicted_boxes or rough_channel, both are off"),
        ({"training#predicted_boxes": 0.5}, "predicted_boxes=0.5 must have folds, at least 2"),
        ({"training#folds": 1}, "folds must be 0, or from 2"),
        ({"training#ema_decay": 1.0}, "ema_decay must be at least 0 and below 1, got 1.0"),
        ({"training#negatives": 2.0}, r"negatives must be in \[0, 1\], got 2.0"),
        ({"training#epochs": {"rough": 0, "fine": 1}}, r"epochs#rough must be in \[1, inf\], got 0"),
        ({"training#target": "object"}, "target must be one of"),
        ({"training#crops": "windows"}, "crops must be one of"),
        ({"output#kind": "label"}, "output must be one of"),
        ({"output#largest_only": ["organ"]}, r"output#largest_only and output#min_volume_mm3 must name foreground or classes of"),
        ({"output#min_volume_mm3": {"foreground": 0.0}}, "min_volume_mm3 must be above 0 for each class"),
        (
            {"classes": ["background", "foreground", "a"], "output#largest_only": ["foreground"]},
            "classes must not have 'foreground' among several",
        ),
        ({"execution#runtime": "onnx"}, "runtime must be one of"),
        ({"image#channels": 0}, r"channels must be in \[1, 1000\], got 0"),
        ({"image#channels": 2**31}, r"channels must be in \[1, 1000\], got 2147483648"),
        ({"image#axcodes": "RAR"}, "axcodes must name a direction of each axis"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused_in_one_sentence(entries: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule) as caught:
        small(**entries)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("entries", "rule"),
    [
        ({"policyy": {}}, "plan.json has no entry 'policyy'; is 'policy' meant?"),
        ({"policy#thresholdd": 1}, "plan.json#policy has no entry 'thresholdd'; is 'threshold' meant?"),
        ({"policy#threshold": "0.5"}, 'plan.json#policy#threshold must be a number, got "0.5"'),
        ({"policy#merge": 1}, "plan.json#policy#merge must be true or false, got 1"),
        ({"policy#connectivity": 6.0}, "plan.json#policy#connectivity must be a whole number, got 6.0"),
        ({"rough#size": 16}, "plan.json#rough#size must be a list, got 16"),
        ({"rough#size": [16, 16, True]}, "plan.json#rough#size#2 must be a whole number, got true"),
        ({"policy": []}, "plan.json#policy must be an object, got \\[\\]"),
        ({"rough#network": {"channels": []}}, 'plan.json#rough#network must be an object with a "name"'),
        ({"classes": [1, 2]}, "plan.json#classes#0 must be a word, got 1"),
        ({"training": {}}, "plan.json#training must have the entry 'epochs'"),
        ({"overrides": {"train.json": 1}}, "plan.json#overrides#train.json must be an object, got 1"),
    ],
)
def test_a_typing_mistake_is_told_with_its_place(entries: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        small(**entries)


def test_whole_numbers_do_where_numbers_are_asked_for() -> None:
    assert small(**{"policy#margin_mm": 3}).policy.margin_mm == 3.0


@pytest.mark.parametrize(
    ("key", "value", "way"),
    [
        ("training#ema_decay", 0.5, "training#ema_decay"),
        ("ema_decay", 0.5, "training#ema_decay"),
        ("epochs#fine", 7, "training#epochs#fine"),
        ("rough_channel", True, "fine#rough_channel"),
        ("fine_stage#size", [16, 16, 16], "fine#size"),
        ("rough_network_def#channels", [2, 4], "rough#network#channels"),
        ("fine_network_def", {"name": "HighResNet"}, "fine#network"),
        ("displayable_configs#batch_size", 3, "fine_policy#batch_size"),
        ("displayable_configs#threshold", 0.25, "policy#threshold"),
        ("inferer#output", "instances", "output#kind"),
        ("inferer#runtime", "openvino", "execution#runtime"),
        ("fine#network#dropout", 0.5, "fine#network#dropout"),
    ],
)
def test_an_entry_is_set_by_its_way_or_by_its_id_in_a_config(key: str, value: Any, way: str) -> None:
    plan = small()
    changed = set_entries(plan, {key: value})
    assert changed.get(way) == changed.get(key) == value
    assert plan == small()
    assert not changed.overrides


def test_an_entry_that_the_plan_has_not_becomes_an_override() -> None:
    changed = set_entries(small(), {"lr_scheduler#power": 0.5, "training#seed": 3})
    assert changed.overrides == {"train.json": {"lr_scheduler#power": 0.5}}
    assert changed.training.seed == 3
    with pytest.raises(ValueError, match="plan and configs must have the entry 'nothing#x' to set it"):
        set_entries(small(), {"nothing#x": 1})
    with pytest.raises(ValueError, match="plan must have the entry 'policy#x'"):
        small().set({"policy#x": 1})


def test_what_inference_must_know_is_told_from_what_training_alone_does() -> None:
    entries = {"rough_channel": True, "ema_decay": 0.5, "policy#threshold": 0.2, "lr_scheduler#power": 1.0}
    assert task_entries(small(), entries) == {"rough_channel": True, "policy#threshold": 0.2}


def test_what_networks_see_is_told_from_what_is_done_with_it() -> None:
    plan = small()
    assert plan.set({"policy#threshold": 0.2, "rough#mirror_axes": [0], "training#seed": 4}).seen_by(*STAGES) == plan.seen_by(*STAGES)
    for key, value in {"image#colour": True, "fine#rough_channel": True, "normalization": [{"name": "ScaleIntensity"}]}.items():
        assert plan.set({key: value}).seen_by(*STAGES) != plan.seen_by(*STAGES)
    assert plan.set({"fine#rough_channel": True}).seen_by("rough") == plan.seen_by("rough")


def test_a_plan_with_regions_is_data_whatever_their_names() -> None:
    plan = small(classes=["background", "a", "b"], regions={"$whole #1": [1, 2], "b": [2]})
    assert list(plan.code()) == []
    assert plan.as_json()["regions"] == {"$whole #1": [1, 2], "b": [2]}
    assert Plan.from_json(plan.as_json(whole=True)) == plan
    assert plan.set({"regions": {}}).regions == {}
