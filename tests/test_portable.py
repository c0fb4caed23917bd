"""Nothing that is imported or run needs POSIX: the package works on Windows, as far as that can be seen from here."""

from __future__ import annotations

import ast
import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from stseg3d.batch import processes
from stseg3d.volumes import open_volume
from tests.batch import fakes

REPOSITORY = Path(__file__).resolve().parents[1]


def without_posix(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, in a Python that lacks what Windows lacks."""
    command = [sys.executable, "-m", "tests.without_posix", *map(str, arguments)]
    env = os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment
    return subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, encoding="utf-8", check=False)


@pytest.mark.slow
def test_the_whole_package_is_imported_and_segments_without_posix(tmp_path: Path) -> None:
    bundle, out = fakes.make_bundle(tmp_path / "blocks_segmentation"), tmp_path / "out"
    scans = [fakes.make_scan(tmp_path / "scans" / f"{name}.nii", seed) for seed, name in enumerate(("a", "患者7"))]
    done = without_posix("segment", *scans, "--bundle", bundle, "-o", out, "--trust", "--device", "cpu", PYTHONIOENCODING="cp1252")
    assert done.returncode == 0, done.stderr
    modules = len([p for p in (REPOSITORY / "stseg3d").rglob("*.py") if p.name != "__main__.py"]) - 1  # the package itself
    first, *outputs = done.stdout.splitlines()
    assert first == f"{modules} modules"
    assert outputs == [str(out / "a_seg.nii.gz"), str(out / r"\u60a3\u80057_seg.nii.gz")]  # a pipe there may lack such letters
    for scan in scans:
        assert open_volume(out / f"{scan.stem}_seg.nii.gz").read().any()
    notes = json.loads((out / "a_seg.json").read_text(encoding="utf-8"))
    assert notes["peak_memory_bytes"] > 2**20
    assert b"\r" not in (out / "outcomes.jsonl").read_bytes() + (out / "summary.csv").read_bytes()


def test_where_signals_cannot_be_blocked_processes_are_started_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "pthread_sigmask", raising=False)
    with processes._interrupts_blocked():
        pass


@pytest.mark.parametrize("last", [None, processes.READY])
def test_a_process_that_has_ended_is_noticed_though_its_pipe_stays_open(last: str | None) -> None:
    """As on Windows, where this end holds the other one, too, until the process has taken it over; what it said before is heard."""
    messages = [last] if last else []
    worker = processes._Worker.__new__(processes._Worker)
    worker.case, worker.death, worker.is_ready, worker.deadline = None, "", False, math.inf
    worker.pipe = SimpleNamespace(poll=lambda: bool(messages), recv=messages.pop, close=list)  # type: ignore[assignment]
    worker.process = SimpleNamespace(is_alive=lambda: False, join=list, exitcode=3)  # type: ignore[assignment]
    assert worker.take(1.0) is None
    assert (worker.is_ready, worker.death) == ((True, "") if last else (False, "exit status 3"))
    worker.take(1.0)
    assert worker.death == "exit status 3"


def unencoded(call: ast.Call) -> bool:
    """Whether a call opens a text file and leaves the encoding to the system."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    modes = [a.value for a in call.args if isinstance(a, ast.Constant) and re.fullmatch(r"[rwax+]+t?", str(a.value))]
    is_text = (name == "open" and modes) or (name in {"read_text", "write_text"} and isinstance(call.func, ast.Attribute))
    return bool(is_text) and "encoding" not in {keyword.arg for keyword in call.keywords}


def test_text_files_are_opened_with_their_encoding() -> None:
    calls = [ast.parse(text).body[0].value for text in ("path.read_text()", "open(path, 'r')", "path.open('a')")]  # type: ignore[attr-defined]
    assert all(map(unencoded, calls))
    found = []
    for path in sorted((REPOSITORY / "stseg3d").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [f"{path}:{node.lineno}" for node in ast.walk(tree) if isinstance(node, ast.Call) and unencoded(node)]
    assert found == []
