"""Entries set by the user, as with ``--set KEY=JSON``: in the plan if it has them, else in a rendered config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stseg3d.plan.ids import find_entry, plan_id
from stseg3d.plan.plan import Plan
from stseg3d.plan.render import configs

FILES = ("train.json", "inference.json")


def set_entries(plan: Plan, entries: Mapping[str, Any], files: Iterable[str] = FILES) -> Plan:
    """The plan with other entries; those that only the configs have become overrides.

    Args:
        plan: The plan.
        entries: Values by key: a path in the plan, such as ``training#ema_decay``, or an id in a config, such as ``loss#softmax``.
        files: Configs whose entries may be overridden.

    Raises:
        ValueError: If neither the plan nor a config has an entry, or the plan then contradicts itself.
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
    """Whether a plan has an entry at this path, or with this id in the configs."""
    try:
        plan.get(key)
    except ValueError:
        return False
    return True


def task_entries(plan: Plan, entries: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of the plan outside its training part, which inference must know as well."""
    content = plan.as_json(whole=True)
    return {key: v for key, v in entries.items() if has_entry(plan, key) and not plan_id(key, content).startswith("training#")}


def _has(config: Any, key: str) -> bool:
    try:
        find_entry(config, key, "config")
    except ValueError:
        return False
    return True
