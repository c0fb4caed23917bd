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
    """Path in a plan, given as JSON, of an entry with this path there or this id in a config."""
    if key.split("#", maxsplit=1)[0] in content:
        return key
    for start, path in PLAN_PATHS.items():
        if key == start or key.startswith(f"{start}#"):
            return path + key.removeprefix(start)
    return f"training#{key}"


def find_entry(content: Any, key: str, problem: str, *, has_components: bool = False) -> tuple[Any, Any]:
    """The container of an entry, and its key or index there.

    Args:
        content: A plan or a config, as JSON; keys of overlays such as ``validate#dataset`` stand for themselves.
        key: Path of the entry.
        problem: Message of the error.
        has_components: Whether objects with a ``name`` may be given further entries, their arguments.

    Raises:
        ValueError: If there is no such entry.
    """
    if isinstance(content, dict) and key in content:
        return content, key
    holder, parts = content, key.split("#")
    for n, part in enumerate(parts, start=1):
        index: Any = int(part) if isinstance(holder, list) and part.isdigit() else part
        there = index in (range(len(holder)) if isinstance(holder, list) else holder if isinstance(holder, dict) else ())
        if n == len(parts) and (there or (has_components and isinstance(holder, dict) and "name" in holder)):
            return holder, index
        if not there:
            break
        holder = holder[index]
    raise ValueError(problem)
