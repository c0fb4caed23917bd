"""Numbers of the box policy in a bundle's plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from stseg3d.bundle import PLAN, open_bundle, write_plan
from stseg3d.machine.json_files import read_json


def margin_name(bundle: Path) -> str:
    """Name of the margin that the bundle's policy sets: ``margin_mm`` if ``plan.json`` has it, else ``margin_rough_voxels``."""
    path = bundle / PLAN
    policy = read_json(path.read_bytes(), str(path)).get("policy", {}) if path.is_file() else {}
    return "margin_mm" if "margin_mm" in policy else "margin_rough_voxels"


def write_policy(bundle: Path, numbers: Mapping[str, float], *, trust: bool = False) -> list[Path]:
    """Write numbers into the fields of the policy in ``plan.json``, and into all files rendered from it.

    Returns:
        Files written.

    Raises:
        UntrustedError: If the bundle is more than data, and ``trust`` is off.
        ValueError: If the bundle has no plan from which its configs are rendered, or a number is out of range.
    """
    plan = open_bundle(bundle, trust=trust).require_plan()
    return write_plan(bundle, plan.replace(policy=replace(plan.policy, **dict[str, Any](numbers))))
