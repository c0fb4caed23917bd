"""Trained bundles of one task, such as those of several folds or seeds, joined into one bundle."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from stseg3d.bundle import WEIGHTS, load_network, open_bundle, read_weights, remember_trained, save_weights, write_plan
from stseg3d.plan import STAGES, Component, Plan
from stseg3d.plan.components import ENSEMBLE, members
from stseg3d.plan.json_values import dump

# Entries that members must have in common.
SHARED_ENTRIES = ("classes", "image", "normalization", "output", "execution")


def ensemble_bundles(bundles: Sequence[Path], out: Path, *, stages: Sequence[str] = STAGES, trust: bool = False) -> Path:
    """Write a bundle whose networks are :class:`stseg3d.networks.MeanEnsemble` of those of others.

    It is a copy of the first bundle with another plan. It cannot be trained itself, only its members one by one.

    Args:
        bundles: Folders of trained bundles for the same inputs and classes; architectures may differ.
        out: Folder of the new bundle; must not exist.
        stages: Stages whose networks become ensembles, as far as the plan has them; the other network is that of the first bundle.
        trust: Accept bundles that are more than data, see :func:`stseg3d.bundle.read_bundle`.

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
    plans = [open_bundle(bundle, trust=trust).require_plan() for bundle in bundles]
    for bundle, plan in zip(bundles, plans, strict=True):
        load_network(bundle, trust=trust)  # raises if the bundle cannot be used
        _ensure_alike(plan, plans[0], bundle, bundles[0])
    states = [read_weights(bundle / WEIGHTS) for bundle in bundles]
    try:
        shutil.copytree(bundles[0], out, ignore=shutil.ignore_patterns("models", "logs"))
        joined = _joined_plan(plans, stages)
        write_plan(out, joined)
        weights = save_weights(_joined(states, stages), out / WEIGHTS)
        remember_trained(out, joined)
        load_network(out, trust=trust)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)  # all of it or nothing
        raise
    return weights


def _joined_plan(plans: Sequence[Plan], stages: Sequence[str]) -> Plan:
    """The first plan, with the networks of all of them in these stages."""
    changes = {}
    for name in set(stages) & set(plans[0].stages):
        networks = [dump(network) for plan in plans for network in members(getattr(plan, name).network)]
        changes[name] = replace(getattr(plans[0], name), network=Component(ENSEMBLE, {"networks": networks}))
    return plans[0].replace(**changes)


def _ensure_alike(plan: Plan, first: Plan, bundle: Path, first_bundle: Path) -> None:
    ours, theirs = plan.as_json(whole=True), first.as_json(whole=True)
    for content in (ours, theirs):
        content.update({f"{name} input": {k: v for k, v in (content[name] or {}).items() if k != "network"} for name in STAGES})
    for key in (*SHARED_ENTRIES, *(f"{name} input" for name in STAGES)):
        if ours[key] != theirs[key]:
            msg = f"{bundle}: {key} of an ensemble's members must be that of {first_bundle}, {theirs[key]}, got {ours[key]}"
            raise ValueError(msg)


def _joined(states: Sequence[dict[str, Tensor]], stages: Sequence[str]) -> dict[str, Tensor]:
    joined = {name: tensor for name, tensor in states[0].items() if name.split(".")[0] not in stages}
    for n, state in enumerate(states):
        for name, tensor in state.items():
            stage, _, rest = name.partition(".")
            if stage in stages:
                joined[f"{stage}.networks.{n}.{rest}"] = tensor
    return joined
