"""Configs of one run of a comparison: the bundle's own, with the run's input size and one architecture in every role."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from stseg3d.bundle import read_config, read_metadata
from stseg3d.training.options import without_rough_channel

CONFIGS = ("train.json", "inference.json")

# Voxels of a batch of rough images: as many as fit beside a laptop's other work.
BATCH_VOXELS = 1 << 20
LARGEST_BATCH = 8

# Epochs of a large input are long: a budget must not end before the first validation.
VALIDATE_EVERY = 5

# Options of the recipe that need a rough network, which a sliding window has not.
OF_TWO_STAGES = ("rough_channel", "predicted_boxes", "folds", "fine_from_rough")


def run_config(bundle: Path, name: str, size: Sequence[int], overrides: Mapping[str, Any], *, sliding: bool) -> dict[str, Any]:
    """One of :data:`CONFIGS` for networks of an input size.

    Args:
        bundle: Bundle whose config is changed.
        name: ``"train.json"`` or ``"inference.json"``.
        size: Input of both networks.
        overrides: Entries to set, by id; those that this config does not have are left to the other one.
        sliding: Whether the fine network learns for a sliding window, instead of for crops.

    Raises:
        ValueError: If an override would change what all runs must agree on.
    """
    config: dict[str, Any] = json.loads((bundle / "configs" / name).read_text(encoding="utf-8"))
    if name == "train.json":
        batch = min(max(BATCH_VOXELS // prod(size), 1), LARGEST_BATCH)
        config["cases_a_batch"] = {**config["cases_a_batch"], "rough": batch}
        config["validate_every"] = {stage: min(epochs, VALIDATE_EVERY) for stage, epochs in config["validate_every"].items()}
    own = {key: value for key, value in overrides.items() if key in read_config(bundle, name)}
    for key, value in own.items():
        _set(config, key, value)
    network = config["fine_network_def"]  # one architecture in every role, as in the paper
    config["rough_network_def"] = without_rough_channel(network) if config.get("rough_channel") else network
    for stage in ("rough_stage", "fine_stage"):
        config[stage] = {k: v for k, v in config[stage].items() if k != "spacing_mm"} | {"size": list(size)}
        config[stage]["mirror_axes"] = [axis for axis in config[stage].get("mirror_axes", []) if size[axis] > 1]
    _ensure_kept(config, own)
    if sliding:
        if config.get("fine_from_rough") and "learning_rate" in config:  # that of a fine network that goes on is too gentle from nothing
            config["learning_rate"] = {**config["learning_rate"], "fine": config["learning_rate"]["rough"]}
        config |= {key: type(config[key])(0) for key in OF_TWO_STAGES if config.get(key)}
        config |= _sliding(config, bundle) if name == "train.json" else {}
    return config


def ensure_known(bundle: Path, overrides: Mapping[str, Any]) -> None:
    """Refuse an override of an entry that no config has.

    Raises:
        ValueError: If there is one.
    """
    parsers = [read_config(bundle, name) for name in CONFIGS]
    unknown = next((key for key in overrides if not any(key in parser for parser in parsers)), None)
    if unknown is not None:
        msg = f"bundle {bundle} must have the entry {unknown!r} to override it"
        raise ValueError(msg)


def run_metadata(bundle: Path, size: Sequence[int]) -> dict[str, Any]:
    """The bundle's metadata for networks of an input size."""
    metadata = read_metadata(bundle)
    for name in ("network_data_format", "rough_data_format"):
        for kind in ("inputs", "outputs"):
            for entry in metadata.get(name, {}).get(kind, {}).values():
                entry["spatial_shape"] = list(size)
    return metadata


def _ensure_kept(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> None:
    """What was overridden is still so: sizes and the rough network are not for an override to change."""
    for key, value in overrides.items():
        if _get(config, key) != value:
            msg = f"overrides must leave {key} to the comparison, which makes it {_get(config, key)}; got {value}"
            raise ValueError(msg)


def _sliding(config: Mapping[str, Any], bundle: Path) -> dict[str, Any]:
    """Changes of a training config: full-resolution patches, half of them on the object, and a sliding window to validate."""
    crops = next((t for t in config["fine_training"]["transforms"] if isinstance(t, dict) and "RandFineCropsd" in t["_target_"]), None)
    if crops is None:
        msg = f"{bundle}: fine_training must cut crops with RandFineCropsd, to be cut for a sliding window instead, got none"
        raise ValueError(msg)
    classes = {"out_channels": crops["out_channels"]} if "out_channels" in crops else {}
    whole = {"_target_": "stseg3d.compare.WholeCased", "stage": "@fine_stage", **classes}
    pad = {"_target_": "SpatialPadd", "keys": ["image", "label"], "spatial_size": "$@fine_stage.size"}
    patches = {
        "_target_": "RandCropByPosNegLabeld",
        "keys": ["image", "label"],
        "label_key": "label",
        "spatial_size": "$@fine_stage.size",
        "num_samples": crops["samples"],
    }
    training = {"_target_": "Compose", "transforms": ["@open_case", whole, pad, patches, "@fine_augmentation"]}
    validation = {"_target_": "Compose", "transforms": ["@open_case", whole]}
    slide = {"_target_": "stseg3d.compare.SlidingWindow", "stage": "@fine_stage", "precision": "@precision"}
    return {"fine_training": training, "fine_validation": validation, "validate": config["validate"] | {"inferer": slide}}


def _get(config: Any, key: str) -> Any:
    for part in key.split("#"):
        config = config[int(part) if isinstance(config, list) else part]
    return config


def _set(config: Any, key: str, value: Any) -> None:
    *parents, last = key.split("#")
    holder = _get(config, "#".join(parents)) if parents else config
    holder[int(last) if isinstance(holder, list) else last] = value
