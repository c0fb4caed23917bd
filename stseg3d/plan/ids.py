"""Paths of entries in a plan, and the ids that they have in the rendered configs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Beginnings of ids in the configs, and of the same entries' paths in the plan.
PLAN_PATHS = {
    "rough_stage": "rough",
    "fine_stage": "fine",
    "rough_network_def#network": "rough#network",  # behind the adapter of a flat network
    "fine_network_def#network": "fine#network",
    "rough_network_def": "rough#network",
    "fine_network_def": "fine#network",
    "intensity": "normalization",
    "rough_channel": "fine#rough_channel",
    "displayable_configs#batch_size": "fine_policy#batch_size",
    "displayable_configs": "policy",
    "inferer#output": "output#kind",
    "inferer#when_empty": "output#when_empty",
    "inferer#number_from": "output#number_from",
    "inferer#neck_depth_mm": "output#neck_depth_mm",
    "inferer#precision": "execution#precision",
    "inferer#runtime": "execution#runtime",
}


def plan_id(key: str, content: Mapping[str, Any]) -> str:
    """Path of an entry in a plan.

    Args:
        key: That path, or an id in a config.
        content: The plan as JSON.
    """
    if key.split("#", maxsplit=1)[0] in content:
        return key
    for start, path in PLAN_PATHS.items():
        if key == start or key.startswith(f"{start}#"):
            return path + key.removeprefix(start)
    return f"training#{key}"
