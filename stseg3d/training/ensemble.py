"""Trained bundles of one task, such as those of several folds or seeds, as one bundle that asks them all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from torch import Tensor

from stseg3d.bundle import INFERENCE, WEIGHTS, load_network, read_weights, save_weights
from stseg3d.networks.composite import STAGES
from stseg3d.training.options import config_text

# What members must have in common: what their networks are shown, and how many classes they tell apart.
SHARED = (*(f"{name}_stage" for name in STAGES), "intensity", "rough_channel", "inferer")


def ensemble_bundles(bundles: Sequence[Path], out: Path, *, stages: Sequence[str] = STAGES) -> Path:
    """Write a bundle whose networks are :class:`stseg3d.networks.MeanEnsemble` of those of others.

    It is a copy of the first without its training configs: an ensemble is trained one by one.

    Args:
        bundles: Folders of trained bundles for the same inputs and classes; their networks of these stages may be of any architectures.
        out: Folder of the new one; must not exist.
        stages: Which networks become ensembles; the other one is that of the first bundle.

    Returns:
        Path of the weights.

    Raises:
        FileExistsError: If ``out`` exists.
        FileNotFoundError: If a bundle has no weights.
        ValueError: If there is no bundle, stages see different inputs, networks give different classes, or weights do not fit.
    """
    if not bundles:
        msg = "bundles must name at least one bundle, got none"
        raise ValueError(msg)
    if out.exists():
        msg = f"{out}: folder of the ensemble must not exist yet"
        raise FileExistsError(msg)
    states = [_state(bundle, bundles[0]) for bundle in bundles]
    try:
        _write_config(bundles, out, stages)
        weights = save_weights(_joined(states, stages), out / WEIGHTS)
        load_network(out, trust=True)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)  # all of it or nothing
        raise
    return weights


def _write_config(bundles: Sequence[Path], out: Path, stages: Sequence[str]) -> None:
    """A copy of the first bundle, without weights, whose networks of these stages are ensembles."""
    shutil.copytree(bundles[0], out, ignore=shutil.ignore_patterns("train*.json", "models", "logs"))
    parser = ConfigParser(_config(out))
    for name in (f"{stage}_network_def" for stage in stages):
        # Written out for each member: a reference would be one and the same network, however often it is named.
        parser[name] = {"_target_": "stseg3d.networks.MeanEnsemble", "networks": [_config(bundle)[name] for bundle in bundles]}
    (out / INFERENCE).write_text(config_text(parser.get()), encoding="utf-8")


def _config(bundle: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((bundle / INFERENCE).read_text(encoding="utf-8"))
    return config


def _state(bundle: Path, first: Path) -> dict[str, Tensor]:
    load_network(bundle, trust=True)  # says what is wrong with a bundle that cannot be used
    ours, theirs = _config(bundle), _config(first)
    for key in SHARED:
        if ours.get(key) != theirs.get(key):
            msg = f"{bundle}: {key} of an ensemble's members must be that of {first}, {theirs.get(key)}, got {ours.get(key)}"
            raise ValueError(msg)
    return read_weights(bundle / WEIGHTS)


def _joined(states: Sequence[dict[str, Tensor]], stages: Sequence[str]) -> dict[str, Tensor]:
    joined = {name: tensor for name, tensor in states[0].items() if name.split(".")[0] not in stages}
    for n, state in enumerate(states):
        for name, tensor in state.items():
            stage, _, rest = name.partition(".")
            if stage in stages:
                joined[f"{stage}.networks.{n}.{rest}"] = tensor
    return joined
