"""Claims, with which several runs on one folder do each case only once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from stseg3d.machine.files import open_regular
from stseg3d.machine.locks import lock_byte, unlock_byte

CLAIMS_NAME = ".claims"


class Claims:
    """Locks, one a case: a byte each of the empty file ``OUT/.claims`` (:mod:`stseg3d.machine.locks`).

    The locks of a process vanish when it ends, even if it is killed. They need no clock and no disk space. They hold between processes,
    not between objects of one process.

    Args:
        folder: The output folder.

    Raises:
        OSError: If the file cannot be created, or is a link or a pipe.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / CLAIMS_NAME
        self._file = open_regular(self.path, os.O_RDWR | os.O_CREAT)

    def take(self, case: str) -> bool:
        """Claim the case; False if another process has claimed it.

        Raises:
            OSError: If the file system has no locks.
        """
        try:
            return lock_byte(self._file, _byte(case))
        except OSError as error:
            msg = f"{self.path}: output folder must be on a file system with locks, got: {error.strerror or error}"
            raise OSError(msg) from error

    def release(self, case: str) -> None:
        """Release the case."""
        unlock_byte(self._file, _byte(case))

    def close(self) -> None:
        """Release all cases."""
        os.close(self._file)


def _byte(case: str) -> int:
    """Offset of a case's lock: 62 bits of the hash of its name."""
    return int.from_bytes(hashlib.sha256(case.encode(errors="surrogateescape")).digest()[:8]) >> 2
