"""Claims: several runs on one folder, and each case in one of them only."""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path

CLAIMS_NAME = ".claims"


class Claims:
    """Locks, one a case: a byte each of the empty file ``OUT/.claims``.

    They are locks of the kernel on places in a file that need not be there (``fcntl``), so that a process that ends, however it ends,
    leaves none, no clock is asked, and a million of them take no space. They hold between processes, also on different machines where the
    file system has such locks (NFS does), not between objects of one process.

    Args:
        folder: The folder of outputs.

    Raises:
        OSError: If the file cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / CLAIMS_NAME
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def take(self, case: str) -> bool:
        """Claim the case; False if another process has.

        Raises:
            OSError: If the file system has no locks.
        """
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _byte(case))
        except (BlockingIOError, PermissionError):  # POSIX allows either
            return False
        except OSError as error:
            msg = f"{self.path}: output folder must be on a file system with locks, got: {error.strerror or error}"
            raise OSError(msg) from error
        return True

    def release(self, case: str) -> None:
        """Give the case back."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _byte(case))

    def close(self) -> None:
        """Give all cases back."""
        os.close(self._file)


def _byte(case: str) -> int:
    """A place of its own for each name: 62 bits of its hash."""
    return int.from_bytes(hashlib.sha256(case.encode()).digest()[:8]) >> 2
