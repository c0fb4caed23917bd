"""Each room imports itself and what stands above it; own imports are absolute and never hidden in functions."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "stseg3d"
# From the ground up. `bundle` stands above `inference`: a bundle is looked up and loaded before it is used, and knows nothing of its use.
ROOMS = [
    *("moved", "bundle_folders", "machine", "geometry", "volumes", "ops", "plan", "networks", "metrics", "evaluate", "results", "bundle"),
    *("compute", "inference", "planning", "synthesis", "training", "batch", "selection", "report", "compare", "demo", "cli", "__main__"),
]
# The one exception to "never in functions": `stseg3d --help` answers without torch and MONAI (tests/test_cli.py), so it
# imports on demand.
LAZY = {"cli"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def room(module: str) -> str:
    """``stseg3d.ops.boxes`` -> ``ops``; ``stseg3d`` itself, which holds the version only, has none."""
    return [*module.split("."), ""][1]


def dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST, *, inside_function: bool = False) -> Iterator[tuple[str, int, bool]]:
    """Dotted name, number of leading dots and whether in a function, of each import; ``from stseg3d import x`` names ``stseg3d.x``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0, inside_function) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [f"{module}.{a.name}" for a in node.names] if module == "stseg3d" else [module]
            yield from ((name, node.level, inside_function) for name in names)
        nested = inside_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from imports(node, inside_function=nested)


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_point_upwards(path: Path) -> None:
    here = room(dotted(path))
    own = [name for name, _, _ in imports(parse(path)) if name.split(".")[0] == "stseg3d" and room(name) in ROOMS]
    allowed = ROOMS[: ROOMS.index(here) + 1] if here else ["moved"]
    assert [name for name in own if room(name) not in allowed] == []


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_own_imports_are_absolute_and_in_the_open(path: Path) -> None:
    hidden_allowed = room(dotted(path)) in LAZY
    for name, level, inside in imports(parse(path)):
        assert level == 0, f"relative import of {name}"
        assert hidden_allowed or not inside or name.split(".")[0] != "stseg3d", f"{name} is imported inside a function"


@pytest.mark.parametrize("path", [p for p in MODULES if room(dotted(p)) == "geometry"], ids=dotted)
def test_geometry_needs_numpy_only(path: Path) -> None:
    foreign = {name.split(".")[0] for name, _, _ in imports(parse(path))} - set(sys.stdlib_module_names) - {"stseg3d"}
    assert foreign <= {"numpy"}


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_only_the_command_line_prints_or_exits(path: Path) -> None:
    if room(dotted(path)) in {"cli", "__main__"}:
        return
    # Modules that run on their own (`python -m`) print in a function `main`.
    own_main = [node for node in parse(path).body if not (isinstance(node, ast.FunctionDef) and node.name == "main")]
    calls = [node.func for top in own_main for node in ast.walk(top) if isinstance(node, ast.Call)]
    assert [call.lineno for call in calls if isinstance(call, ast.Name) and call.id in {"print", "exit", "quit"}] == []
    assert [call.lineno for call in calls if isinstance(call, ast.Attribute) and ast.unparse(call) == "sys.exit"] == []


def test_the_page_about_the_house_has_the_rooms_in_their_order() -> None:
    page = (PACKAGE / "README.md").read_text(encoding="utf-8").partition("## Words")[0]
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == ROOMS


def test_rooms_down_to_bundles_need_neither_torch_nor_monai() -> None:
    rooms = [name for name in ROOMS[: ROOMS.index("bundle") + 1] if name != "networks"]
    code = "import importlib, sys; [importlib.import_module('stseg3d.' + r) for r in sys.argv[1:]]; "
    code += "sys.exit(any(name in sys.modules for name in ('torch', 'monai')))"
    assert subprocess.run([sys.executable, "-c", code, *rooms], check=False).returncode == 0


def test_every_room_is_on_the_list() -> None:
    assert {room(dotted(path)) for path in MODULES} - {""} <= set(ROOMS)


def test_a_wrong_direction_would_be_seen() -> None:
    tree = ast.parse("from stseg3d.cli import main\ndef f():\n    from stseg3d import ops\n    from . import x\n")
    assert list(imports(tree)) == [("stseg3d.cli", 0, False), ("stseg3d.ops", 0, True), ("", 1, True)]
