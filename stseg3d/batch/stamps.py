"""Stamps of files, so that the same file is known again: by size and time, then by content."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

# Headers whose voxels are in a file beside them, under one of these suffixes.
DETACHED = {".mhd": (".raw", ".zraw"), ".nhdr": (".raw", ".raw.gz")}


@dataclass(frozen=True)
class FileStamp:
    """A file, or the files of a series, as they were at one time.

    Attributes:
        path: File, or folder of a series; absolute, unless it says otherwise.
        size_bytes: Of all files together; -1 if there was none.
        mtime_ns: When the newest was changed, as the file system says; only ever asked whether it is the same.
        sha256: Of the content; empty if it was not read.
    """

    path: str
    size_bytes: int
    mtime_ns: int
    sha256: str = ""

    def looks_like(self, other: FileStamp) -> bool:
        """Whether size and time are the same: the question that costs no reading."""
        return (self.size_bytes, self.mtime_ns) == (other.size_bytes, other.mtime_ns)


def stamp(path: Path, *, content: bool = False) -> FileStamp:
    """Stamp of what is at ``path`` now.

    Args:
        path: File, or folder, of which the files directly in it count.
        content: Whether to read and hash it, too.

    Raises:
        OSError: If it is not there, or cannot be read.
    """
    files = _files(path)
    found = [os.stat(file) for file in files]
    sha256 = _sha256(files) if content else ""
    return FileStamp(str(path.absolute()), sum(s.st_size for s in found), max((s.st_mtime_ns for s in found), default=0), sha256)


def stamp_if_there(path: Path, *, content: bool = False) -> FileStamp:
    """Stamp of what is at ``path`` now, or that of nothing, of -1 bytes."""
    try:
        return stamp(path, content=content)
    except OSError:
        return FileStamp(str(path.absolute()), -1, -1)


def is_unchanged(path: Path, then: FileStamp) -> bool:
    """Whether the same is at ``path`` now: same place, size and time, or else the same content."""
    try:
        now = stamp(path)
        if now.looks_like(then) and now.path == then.path:
            return True
        return now.size_bytes == then.size_bytes and bool(then.sha256) and stamp(path, content=True).sha256 == then.sha256
    except OSError:
        return False


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    beside = (path.with_suffix(suffix) for suffix in DETACHED.get(path.suffix.lower(), ()))
    return [path, *(file for file in beside if file.is_file())]


def _sha256(files: list[Path]) -> str:
    """Of one file its content's; of several that of their names and contents."""
    hashes = []
    for path in files:
        with path.open("rb") as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.sha256("".join(f"{path.name}\0{h}\n" for path, h in zip(files, hashes, strict=True)).encode()).hexdigest()
