"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Temporary file beside ``path``, with the same suffix, that replaces it at the end and is removed on failure.

    It is empty at first, with the permissions of any new file (the umask). Close it before the end of the context.

    Raises:
        FileNotFoundError: If the folder does not exist.
        OSError: If the file cannot be made or cannot replace ``path``, as on Windows while a program has it open.
    """
    if not path.parent.is_dir():
        msg = f"{path}: output folder must exist, got none"
        raise FileNotFoundError(msg)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    # A new file: anything already there, such as a link into another folder, is removed and not written through.
    temporary.unlink(missing_ok=True)
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write_text(path: Path, text: str) -> Path:
    r"""Write a text file, whole or not at all: UTF-8, with the line ends of the text (``\n``) on every system.

    Bytes of a file name that are not UTF-8 are written as escapes, such as ``\udcff``.

    Raises:
        OSError: If the file cannot be written.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
    return path


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """Descriptor of a regular file. Nothing else is opened: a pipe may wait for ever, and a device may do anything.

    Args:
        path: The file.
        flags: Those of ``os.open``. A link is followed only to read, so that no file elsewhere is written.

    Raises:
        OSError: If it is not a regular file or cannot be opened; the message names it.
    """
    writes = flags != os.O_RDONLY
    try:
        mode = os.lstat(path).st_mode if writes else os.stat(path).st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG if flags & os.O_CREAT else 0
    kinds = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFDIR: "a folder", stat.S_IFSOCK: "a socket", 0: "none"}
    if not stat.S_ISREG(mode):
        msg = f"{path}: file must be a regular file, got {kinds.get(stat.S_IFMT(mode), 'a device')}"
        raise OSError(msg)
    return os.open(path, flags | getattr(os, "O_BINARY", 0) | (getattr(os, "O_NOFOLLOW", 0) if writes else 0), 0o666)


def visible_files(folder: Path) -> list[Path]:
    """Files in a folder itself, in order, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def remove_temporary_files(folder: Path, names: re.Pattern[str]) -> None:
    """Remove temporary files that killed processes left in a folder, of files whose full names match; the folder may be missing."""
    for path in folder.iterdir() if folder.is_dir() else ():
        left = re.fullmatch(r"(?:\.\d+\.)+(.+)", path.name)  # also a temporary file of a temporary file
        if left and names.fullmatch(left[1]):
            path.unlink(missing_ok=True)
