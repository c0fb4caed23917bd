"""Whether a bundle is data alone: its configs are what its plan renders to, byte for byte, and the plan holds no code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stseg3d.bundle.files import METADATA, read_metadata
from stseg3d.bundle_folders import PLAN
from stseg3d.plan import Plan, code_in_overrides, is_intact, render
from stseg3d.plan.components import code_in
from stseg3d.plan.render import MARK

CONFIGS = Path("configs")
FREE_KEY = re.compile(r"(?![_$%]).*", re.DOTALL)
# Files that MONAI or Python would read as a config or a program.
CONFIG_SUFFIXES = (".json", ".yaml", ".yml", ".conf", ".cfg", ".ini", ".toml", ".py")


class UntrustedError(ValueError):
    """A bundle is more than data, and its user has not chosen to trust it."""


@dataclass(frozen=True)
class OpenBundle:
    """A bundle that may be run."""

    folder: Path  # its folder
    plan: Plan | None  # its plan; None if the configs are run as they are, on trust
    texts: Mapping[str, str]  # text of its configs, by file name; this is run, even if the files change later
    stale: tuple[str, ...] = ()  # names of files on disk that are not what the plan renders to

    def require_plan(self) -> Plan:
        """The plan.

        Raises:
            ValueError: If the bundle has none, or its configs differ from it.
        """
        if self.plan is None:
            msg = f"bundle {self.folder} must have {PLAN.as_posix()} and configs that are rendered from it: `stseg3d plan --render`"
            raise ValueError(msg)
        return self.plan


def read_bundle(folder: Path, *, trust: bool = False) -> OpenBundle:
    """A bundle's plan and configs, read as data, each file once; with ``trust``, configs that differ from the plan are run as they are.

    Files that were rendered from an earlier version of the plan, and not edited since, count as what the plan renders to now.

    Raises:
        OSError: If a file cannot be read.
        UntrustedError: If it is more than data, and ``trust`` is off; the message names what differs, and where.
        ValueError: If the plan is invalid.
    """
    found = _files(folder / CONFIGS)
    if PLAN.name not in found:
        _refuse(folder, f"it has no {PLAN.as_posix()}", trust=trust)
        return OpenBundle(folder, None, _texts(found))
    plan = Plan.parse(found[PLAN.name], f"{folder / PLAN}")
    rendered = render(plan)
    stale = tuple(name for name, text in rendered.items() if found.get(name) != text.encode())
    edited = [name for name in stale if name in found and not is_intact(_text(found[name]))]
    for reason in _reasons(folder, plan, found, rendered, edited):
        _refuse(folder, reason, trust=trust)
    if edited:
        return OpenBundle(folder, None, _texts(found), tuple(edited))
    return OpenBundle(folder, plan, rendered, stale)


def first_difference(one: Any, other: Any, way: str = "") -> str:
    """Id of the first entry in which two parsed configs differ; empty if they are equal."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [*one, *(key for key in other if key not in one)]
        missing = next((key for key in keys if key not in one or key not in other), None)
        if missing is not None:
            return f"{way}#{missing}".lstrip("#")
        found = (first_difference(one[key], other[key], f"{way}#{key}") for key in keys)
        return next((entry for entry in found if entry), "")
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        found = (first_difference(a, b, f"{way}#{n}") for n, (a, b) in enumerate(zip(one, other, strict=True)))
        return next((entry for entry in found if entry), "")
    return "" if one == other else way.lstrip("#")


def _reasons(folder: Path, plan: Plan, found: Mapping[str, bytes], rendered: Mapping[str, str], edited: list[str]) -> Iterator[str]:
    """Reasons why the bundle is more than data."""
    yield from plan.code()
    yield from code_in_overrides(plan)
    for name in edited:
        yield f"{CONFIGS / name} differs from what {PLAN.name} renders to{_where(found[name], rendered[name])}"
    known = {*rendered, PLAN.name, METADATA.name}
    yield from (f"it has {CONFIGS / name}, which is not rendered from {PLAN.name}" for name in found if name not in known)
    yield from (f"{path.relative_to(folder)} is a link" for path in (folder / CONFIGS, *_inside(folder / CONFIGS)) if path.is_symlink())
    if METADATA.name in found:
        # Free text, which may begin with a reference but not with what MONAI would evaluate or make.
        yield from code_in(read_metadata(folder, found[METADATA.name]), METADATA.name, ("$", "%"), FREE_KEY)


def _refuse(folder: Path, reason: str, *, trust: bool) -> None:
    if trust:
        return
    msg = f"bundle {folder} must be data alone to be run without trust, but {reason}; a bundle is a program: "
    msg += "if you would run one from where it came, give --trust (in Python trust=True)"
    raise UntrustedError(msg)


def _where(text: bytes, due: str) -> str:
    """The first entry that differs, if the file can be read as data."""
    try:
        here, there = ({**json.loads(one), MARK: ""} for one in (text, due))
    except (ValueError, TypeError, RecursionError):
        return ""
    entry = first_difference(here, there)
    return f", first at {entry!r}" if entry else ""


def _inside(configs: Path) -> list[Path]:
    return sorted(configs.rglob("*")) if configs.is_dir() else []


def _files(configs: Path) -> dict[str, bytes]:
    """Content of each file that MONAI could read as a config, by its path in the folder."""
    paths = [path for path in _inside(configs) if path.suffix.lower() in CONFIG_SUFFIXES and not path.is_dir()]
    for path in paths:
        if not path.is_file():
            msg = f"{path} must be a file, got something else"
            raise ValueError(msg)
    return {path.relative_to(configs).as_posix(): path.read_bytes() for path in paths}


def _text(content: bytes) -> str:
    return content.decode("utf-8", errors="replace")


def _texts(found: Mapping[str, bytes]) -> dict[str, str]:
    return {name: _text(content) for name, content in found.items() if name not in (PLAN.name, METADATA.name)}
