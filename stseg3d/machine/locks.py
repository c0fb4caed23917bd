"""Locks on open files, released when their process ends, even if it is killed.

They hold between processes, also on different machines if the file system has such locks (NFS and SMB do). Locking a byte, even past the
end of the file, takes no space and 1.5 µs; the library ``filelock`` leaves a file for each lock and takes 150 µs.
"""

from __future__ import annotations

import os
import time
from importlib import import_module
from typing import Any

try:
    import fcntl
except ImportError:  # Windows has msvcrt instead
    fcntl = None  # type: ignore[assignment]

# Stands for the whole file. It lies past all content because on Windows no other process can read a locked byte.
FILE_BYTE = 1 << 62
WAIT_S = 0.05  # between two tries, where the system call does not wait


def lock_file(file: int) -> None:
    """Lock a file, open for writing, until it is closed; waits while another process holds the lock.

    Raises:
        OSError: If the file system has no locks.
    """
    if fcntl:
        fcntl.flock(file, fcntl.LOCK_EX)
        return
    while not lock_byte(file, FILE_BYTE):
        time.sleep(WAIT_S)


def lock_byte(file: int, offset: int) -> bool:
    """Lock one byte, 0 to 2**62, of a file open for writing, which may end before it; False if another process holds the lock.

    Raises:
        OSError: If the file system has no locks.
    """
    try:
        if fcntl:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
        else:
            _msvcrt_locking(file, "LK_NBLCK", offset)
    except (BlockingIOError, PermissionError):  # POSIX allows either, Windows raises the latter
        return False
    return True


def unlock_byte(file: int, offset: int) -> None:
    """Unlock a byte that this process has locked."""
    if fcntl:
        fcntl.lockf(file, fcntl.LOCK_UN, 1, offset)
    else:
        _msvcrt_locking(file, "LK_UNLCK", offset)


def _msvcrt_locking(file: int, mode: str, offset: int) -> None:
    msvcrt: Any = import_module("msvcrt")
    os.lseek(file, offset, os.SEEK_SET)  # it locks from the current position, with all 64 bits since Windows' universal C runtime
    msvcrt.locking(file, getattr(msvcrt, mode), 1)
