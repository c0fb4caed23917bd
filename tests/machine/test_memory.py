"""Memory, as each system tells it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from stseg3d.machine import memory

MIB = 1 << 20


def test_this_process_has_taken_some_and_some_is_free() -> None:
    before = memory.peak_memory_bytes()
    assert 10 * MIB < before < 2**50
    held = np.ones(MIB * 64, np.uint8)
    assert memory.peak_memory_bytes() >= before
    assert MIB < (memory.available_bytes() or 0) < 2**50
    assert held[-1]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").is_file(), reason="Linux alone lets the peak begin anew")
def test_the_peak_begins_anew() -> None:
    held = np.ones(256 * MIB, np.uint8)
    peak = memory.peak_memory_bytes()
    del held
    memory.reset_peak_memory()
    assert memory.peak_memory_bytes() < peak - 128 * MIB


@pytest.mark.parametrize(("free", "has_room"), [(400, True), (399, False), (None, False)])
def test_there_is_room_where_four_times_as_much_is_free(free: int | None, has_room: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: free)
    assert memory.has_room(100) is has_room


def peak_without_proc(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(memory, "Path", lambda _: SimpleNamespace(is_file=lambda: False))
    return memory.peak_memory_bytes()


@pytest.mark.parametrize(("platform", "unit"), [("darwin", 1), ("freebsd14", 1024)])
def test_without_proc_the_peak_is_that_of_getrusage(platform: str, unit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda _: SimpleNamespace(ru_maxrss=7))
    monkeypatch.setitem(sys.modules, "resource", fake)
    monkeypatch.setattr(sys, "platform", platform)
    assert peak_without_proc(monkeypatch) == 7 * unit


def test_where_nothing_tells_the_peak_is_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_without_proc(monkeypatch) == 0


# --- as on Windows -----------------------------------------------------------


def test_without_resource_psutil_tells_the_peak_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=5 * MIB)))
    assert peak_without_proc(monkeypatch) == 5 * MIB


def test_what_is_available_is_that_of_the_machine_or_of_a_smaller_container(monkeypatch: pytest.MonkeyPatch) -> None:
    def limit(text: str) -> int | None:
        found = {"max": text, "current": str(2 * MIB)}
        monkeypatch.setattr(memory, "Path", lambda path: SimpleNamespace(read_text=lambda encoding: found[path.rpartition(".")[2]]))
        return memory.available_bytes()

    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=7 * MIB))
    assert [limit("max"), limit(str(20 * MIB)), limit(str(5 * MIB))] == [7 * MIB, 7 * MIB, 3 * MIB]
