"""Memory: how much this process has taken, and how much is free."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from stseg3d.machine import windows

KIB = 1024
HEADROOM = 4  # free memory needed, as a multiple of what is read ahead: the networks need memory, too


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far; 0 where the system does not say."""
    if os.name == "nt":
        return windows.peak_bytes()
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux getrusage starts with the peak of the parent process
        line = next(row for row in status.read_text(encoding="utf-8", errors="replace").splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) * KIB
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * KIB


def reset_peak_memory() -> None:
    """Reset the peak where the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def has_room(n_bytes: int) -> bool:
    """Whether this much more can be held in memory; False where the system does not say."""
    free = available_bytes()
    return free is not None and n_bytes * HEADROOM <= free


def available_bytes() -> int | None:
    """Memory available without swapping, in this machine or container; None where the system does not say."""
    if os.name == "nt":
        return windows.free_bytes()
    found = []
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found += [int(line.split()[1]) * KIB for line in lines if line.startswith("MemAvailable:")]
    except OSError:
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")
        used = Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii")
        found.append(int(limit) - int(used))
    except (OSError, ValueError):  # no control group, or "max"
        pass
    return min(found, default=None)
