"""Stamps of files, by which an unchanged file is recognised: size and time first, then content."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from stseg3d.machine.files import open_regular, visible_files
from stseg3d.plan.json_values import MAX_WHOLE_NUMBER
from stseg3d.volumes.names import paths_of
from stseg3d.volumes.open import Source

SEPARATOR = " + "
# Headers whose voxels are in a file beside them, under one of these suffixes.
DETACHED = {".mhd": (".raw", ".zraw"), ".nhdr": (".raw", ".raw.gz")}


@dataclass(frozen=True)
class FileStamp:
    """A file, or the files of a series, as they were at one time.

    Attributes:
        path: File, or folder of a series; absolute, unless it says otherwise. Several of one image are joined by :data:`SEPARATOR`.
        size_bytes: Size of all files together; -1 if there was none.
        mtime_ns: Time of the newest change, according to the file system; only compared for equality.
        sha256: SHA-256 of the content; empty if it was not read.
    """

    path: str
    size_bytes: int
    mtime_ns: int
    sha256: str = ""

    @property
    def first(self) -> str:
        """Path of the first file of an image that has several."""
        return self.path.split(SEPARATOR, maxsplit=1)[0]

    def looks_like(self, other: FileStamp) -> bool:
        """Whether size and time are the same, which needs no reading."""
        return (self.size_bytes, self.mtime_ns) == (other.size_bytes, other.mtime_ns)


def stamp(path: Source, *, content: bool = False) -> FileStamp:
    """Stamp of the file or folder at ``path``.

    Args:
        path: File, or folder whose direct files count; or several.
        content: Whether to read and hash it as well.

    Raises:
        OSError: If it does not exist or cannot be read.
    """
    files = [file for each in paths_of(path) for file in _files(each)]
    found = [os.stat(file) for file in files]
    sha256 = _sha256(files) if content else ""
    newest = max((s.st_mtime_ns for s in found), default=0) % MAX_WHOLE_NUMBER  # JSON of ours holds no larger numbers
    return FileStamp(_name(path), sum(s.st_size for s in found), newest, sha256)


def stamp_if_there(path: Source, *, content: bool = False) -> FileStamp:
    """Stamp of the file or folder at ``path``, with -1 bytes if there is none."""
    try:
        return stamp(path, content=content)
    except (OSError, ValueError):  # a null byte in the path is a ValueError
        return FileStamp(_name(path), -1, -1)


def is_unchanged(path: Source, then: FileStamp) -> bool:
    """Whether ``path`` is unchanged: same path, size and time, or else the same content."""
    try:
        now = stamp(path)
        if now.looks_like(then) and now.path == then.path:
            return True
        return now.size_bytes == then.size_bytes and bool(then.sha256) and stamp(path, content=True).sha256 == then.sha256
    except OSError:
        return False


def _name(path: Source) -> str:
    return SEPARATOR.join(str(each.absolute()) for each in paths_of(path))


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return visible_files(path)
    beside = (path.with_suffix(suffix) for suffix in DETACHED.get(path.suffix.lower(), ()))
    return [path, *(file for file in beside if file.is_file())]


def _sha256(files: list[Path]) -> str:
    """SHA-256 of one file's content, or of the names and contents of several."""
    hashes = []
    for path in files:
        with open(open_regular(path), "rb") as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.sha256("".join(f"{path.name}\0{h}\n" for path, h in zip(files, hashes, strict=True)).encode()).hexdigest()
