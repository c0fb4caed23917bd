"""Record of a stage's options, beside its log: a stage can only be resumed with the same ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stseg3d.bundle.trust import first_difference
from stseg3d.machine.files import atomic_write_text
from stseg3d.plan import Plan


def remember(plan: Plan, stage: str, chosen: Mapping[str, Any], path: Path, *, going_on: bool) -> None:
    """Record the entries that were chosen for a stage's training, which the plan has already, in a JSON file.

    Raises:
        ValueError: If the stage is gone on with, and was begun with other options.
    """
    text = json.dumps({"options": dict(chosen), "sees": plan.seen_by(stage)})
    if going_on and path.is_file():
        before, now = json.loads(path.read_text(encoding="utf-8")), json.loads(text)  # both as JSON has it: a tuple is a list
        if before.get("options") != now["options"]:
            msg = f"{path}: a stopped stage must go on with the options it was begun with, {before.get('options')}, got {now['options']}"
            raise ValueError(msg)
        ensure_same(plan, stage, path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, f"{text}\n")


def ensure_same(plan: Plan, stage: str, path: Path) -> None:
    """Refuse the weights of a stage if the plan has since changed how networks see images.

    That is known from the file that :func:`remember` has written; nothing is checked without it.

    Raises:
        ValueError: If an entry has changed.
    """
    before = json.loads(path.read_text(encoding="utf-8")).get("sees") if path.is_file() else None
    entry = before and first_difference(before, json.loads(json.dumps(plan.seen_by(stage))))
    if entry:
        msg = f"{path}: {entry} in plan.json must be what the stage was trained with; set it back, or remove the stage's files"
        raise ValueError(msg)
