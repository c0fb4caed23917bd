"""Bundles on disk: opened, and written when their plan has changed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from stseg3d.bundle.files import METADATA, read_metadata
from stseg3d.bundle.trust import CONFIGS, OpenBundle, read_bundle
from stseg3d.bundle_folders import PLAN
from stseg3d.machine.files import atomic_write_text
from stseg3d.machine.json_files import read_json
from stseg3d.plan import Plan, is_intact, json_text, render, with_formats

logger = logging.getLogger(__name__)


def open_bundle(folder: Path, *, trust: bool = False) -> OpenBundle:
    """The bundle in a folder, see :func:`stseg3d.bundle.trust.read_bundle`; configs of an earlier plan are rendered anew, with a warning.

    Raises:
        OSError: If a file cannot be read.
        UntrustedError: If the bundle is more than data, and ``trust`` is off.
        ValueError: If the plan is invalid.
    """
    found = read_bundle(folder, trust=trust)
    if found.plan is None and found.stale:
        logger.warning("%s: configs are run as they are, and differ from %s: %s", folder, PLAN.name, ", ".join(found.stale))
    elif found.stale:
        with suppress(OSError):  # it is run as rendered, whether or not it can be written
            _write(folder, {name: found.texts[name] for name in found.stale})
            _write_formats(folder, found.require_plan())
            logger.warning("%s: rendered anew from %s: %s", folder, PLAN.name, ", ".join(found.stale))
    return found


def render_bundle(folder: Path) -> list[Path]:
    """Render a bundle's configs from its plan; files that were edited by hand are kept under another name.

    Returns:
        Files that were written; none if all were up to date.

    Raises:
        OSError: If a file cannot be read or written.
        ValueError: If the plan is invalid.
    """
    plan = Plan.parse((folder / PLAN).read_bytes(), f"{folder / PLAN}")
    texts = render(plan)
    for name in _changed(folder, texts):
        path = folder / CONFIGS / name
        if path.is_file() and not is_intact(_read(path)):
            kept = path.with_name(f"{name}.edited")
            path.replace(kept)
            logger.warning("%s was edited by hand: it is kept as %s; put what you need of it into %s", path, kept.name, PLAN.name)
    _remove_old(folder, texts)
    return [*_write(folder, _changed(folder, texts)), *_write_formats(folder, plan)]


def write_plan(folder: Path, plan: Plan) -> list[Path]:
    """Replace a bundle's plan, and the configs that are rendered from it.

    Returns:
        Files that were written.
    """
    path = folder / PLAN
    like = read_json(path.read_bytes(), str(path)) if path.is_file() else None
    # The plan first, so that stale configs are known as such.
    texts = {PLAN.name: json_text(plan.as_json(like)), **render(plan)}
    _remove_old(folder, texts)
    return [*_write(folder, _changed(folder, texts)), *_write_formats(folder, plan)]


def _changed(folder: Path, texts: Mapping[str, str]) -> dict[str, str]:
    """Texts that differ from the files."""
    return {name: text for name, text in texts.items() if _read(folder / CONFIGS / name) != text}


def _remove_old(folder: Path, texts: Mapping[str, str]) -> None:
    """Remove what an earlier plan rendered to and this one does not, such as ``train_rough.json`` of a bundle that had two stages."""
    for path in (folder / CONFIGS).glob("*.json"):
        if path.name not in (*texts, PLAN.name, METADATA.name) and is_intact(_read(path)):
            path.unlink()


def _write(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    (folder / CONFIGS).mkdir(parents=True, exist_ok=True)
    return [atomic_write_text(folder / CONFIGS / name, text) for name, text in texts.items()]


def _write_formats(folder: Path, plan: Plan) -> list[Path]:
    """Write the networks' inputs and outputs into the metadata, for MONAI's ``verify_net_in_out``."""
    if not (folder / METADATA).is_file():
        return []
    before = read_metadata(folder)
    if (after := with_formats(before, plan)) == before:
        return []
    return _write(folder, {METADATA.name: json_text(after)})


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", errors="replace") if path.is_file() else ""
