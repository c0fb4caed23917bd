"""Entries set from outside, as by ``--set KEY=JSON``: of the plan where it has them, else of a rendered config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stseg3d.plan.ids import plan_id
from stseg3d.plan.plan import Plan
from stseg3d.plan.render import configs, find_entry

FILES = ("train.json", "inference.json")


def set_entries(plan: Plan, entries: Mapping[str, Any], files: Iterable[str] = FILES) -> Plan:
    """The plan with other entries; those that it has not become overrides of the configs that have them.

    Args:
        plan: The plan.
        entries: By their way in the plan, such as ``training#ema_decay``, or their id in a config, such as ``loss#softmax``.
        files: Configs whose entries may be overridden.

    Raises:
        ValueError: If neither has an entry, or the plan then contradicts itself.
    """
    own = {key: value for key, value in entries.items() if has_entry(plan, key)}
    changed = plan.set(own) if own else plan
    overrides = {name: dict(found) for name, found in changed.overrides.items()}
    rendered = configs(changed) if len(own) < len(entries) else {}
    for key, value in entries.items():
        if key in own:
            continue
        holders = [name for name in files if _has(rendered[name], key)]
        if not holders:
            msg = f"plan and configs must have the entry {key!r} to set it"
            raise ValueError(msg)
        for name in holders:
            overrides.setdefault(name, {})[key] = value
    return changed if overrides == changed.overrides else changed.replace(overrides=overrides)


def has_entry(plan: Plan, key: str) -> bool:
    """Whether a plan has an entry of this way, or of this id in the configs."""
    try:
        plan.get(key)
    except ValueError:
        return False
    except KeyError:
        return True  # an argument that a component may be given
    return True


def task_entries(plan: Plan, entries: Mapping[str, Any]) -> dict[str, Any]:
    """Entries that are of the plan, and not of its training alone: what inference must know as well."""
    content = plan.as_json(whole=True)
    return {key: v for key, v in entries.items() if has_entry(plan, key) and not plan_id(key, content).startswith("training#")}


def _has(config: Any, key: str) -> bool:
    try:
        find_entry(config, key, "config")
    except ValueError:
        return False
    return True
