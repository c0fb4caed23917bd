"""Memory: how much this process has taken, and how much is free."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

KIB = 1024
HEADROOM = 4  # free memory needed, as a multiple of what is read ahead: the networks need memory, too


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far; 0 where the system does not say."""
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux getrusage starts with the peak of the parent process
        line = next(row for row in status.read_text(encoding="utf-8", errors="replace").splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) * KIB
    try:
        import resource
    except ImportError:
        import psutil

        return getattr(psutil.Process().memory_info(), "peak_wset", 0)  # on Windows
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
    import psutil

    found = []
    with suppress(OSError, RuntimeError, NotImplementedError):
        found.append(int(psutil.virtual_memory().available))
    with suppress(OSError, ValueError):  # no control group, or "max"
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text(encoding="ascii")) for name in ("max", "current"))
        found.append(limit - used)
    return min(found, default=None)
