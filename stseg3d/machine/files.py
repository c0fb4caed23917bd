"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path``, with its suffix, that takes its place at the end and is removed on failure.

    It is empty at first, and has the permissions of any new file (the umask). Whoever writes to it must have closed it at the end.

    Raises:
        FileNotFoundError: If the folder does not exist.
        OSError: If the file cannot be made, or cannot take its place; on Windows that is so while somebody has ``path`` open.
    """
    if not path.parent.is_dir():
        msg = f"{path}: output folder must exist, got none"
        raise FileNotFoundError(msg)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    # A file of our own: whatever lies there, such as a link into another folder, is removed and not written through.
    temporary.unlink(missing_ok=True)
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write_text(path: Path, text: str) -> Path:
    r"""Write a text file, whole or not at all: UTF-8, with the line ends of the text (``\n``) on every system.

    Raises:
        OSError: As :func:`atomic_write`.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
    return path


def remove_temporary_files(folder: Path, names: re.Pattern[str]) -> None:
    """Remove what killed processes left of files in a folder whose whole names match; none if there is no such folder."""
    for path in folder.iterdir() if folder.is_dir() else ():
        left = re.fullmatch(r"\.\d+\.(.+)", path.name)
        if left and names.fullmatch(left[1]):
            path.unlink(missing_ok=True)
