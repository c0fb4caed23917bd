"""Memory, as each system tells it."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from stseg3d.machine import memory, windows

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
    with monkeypatch.context() as context:
        context.setattr(memory.os, "name", "posix")
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


@pytest.mark.parametrize("works", [True, False])
def test_on_windows_its_own_library_tells(works: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def process_memory(handle: ctypes.c_void_p, found: object, size: int) -> bool:
        counters = found._obj  # type: ignore[attr-defined]
        assert (handle.value, counters.cb, size) == (ctypes.c_void_p(-1).value, size, size)
        counters.PeakWorkingSetSize = 5 * MIB
        return works

    def machine_memory(found: object) -> bool:
        status = found._obj  # type: ignore[attr-defined]
        assert status.dwLength == 64
        status.ullAvailPhys = 2**34
        return works

    fake = SimpleNamespace(K32GetProcessMemoryInfo=process_memory, GlobalMemoryStatusEx=machine_memory)
    monkeypatch.setattr(windows, "_kernel32", lambda: fake)
    with monkeypatch.context() as context:
        context.setattr(memory.os, "name", "nt")
        found = memory.peak_memory_bytes(), memory.available_bytes()
    assert found == ((5 * MIB, 2**34) if works else (0, None))


def test_what_windows_fills_in_is_as_large_as_its_headers_say() -> None:
    assert ctypes.sizeof(windows.MachineMemory) == 64
    assert ctypes.sizeof(windows.ProcessMemory) == 8 + 8 * ctypes.sizeof(ctypes.c_size_t)
