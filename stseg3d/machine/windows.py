"""Memory figures from Windows."""

from __future__ import annotations

import ctypes
from typing import Any


class ProcessMemory(ctypes.Structure):
    """``PROCESS_MEMORY_COUNTERS``."""

    _fields_ = (
        ("cb", ctypes.c_uint32),
        ("PageFaultCount", ctypes.c_uint32),
        ("PeakWorkingSetSize", ctypes.c_size_t),
        ("others", ctypes.c_size_t * 7),
    )


class MachineMemory(ctypes.Structure):
    """``MEMORYSTATUSEX``."""

    _fields_ = (
        ("dwLength", ctypes.c_uint32),
        ("dwMemoryLoad", ctypes.c_uint32),
        ("ullTotalPhys", ctypes.c_uint64),
        ("ullAvailPhys", ctypes.c_uint64),
        ("others", ctypes.c_uint64 * 5),
    )


def peak_bytes() -> int:
    """Largest working set of this process so far; 0 if Windows does not say."""
    size = ctypes.sizeof(ProcessMemory)
    found = ProcessMemory(cb=size)
    this_process = ctypes.c_void_p(-1)
    return int(found.PeakWorkingSetSize) if _kernel32().K32GetProcessMemoryInfo(this_process, ctypes.byref(found), size) else 0


def free_bytes() -> int | None:
    """Physical memory that is free; None if Windows does not say."""
    found = MachineMemory(dwLength=ctypes.sizeof(MachineMemory))
    return int(found.ullAvailPhys) if _kernel32().GlobalMemoryStatusEx(ctypes.byref(found)) else None


def _kernel32() -> Any:
    return ctypes.WinDLL("kernel32")  # type: ignore[attr-defined]  # on Windows only
