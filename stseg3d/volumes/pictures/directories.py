"""Check of the chain of directories in a TIFF before a library follows it: libraries follow a loop without end."""

from __future__ import annotations

import os
import struct
from pathlib import Path

# NIfTI holds no more along an axis, so a deeper stack could not be written.
MAX_PAGES = 32767
# Directories have one entry a tag, of which a few hundred are known.
MAX_ENTRIES = 4096


def check_directories(path: Path) -> None:
    """Refuse a TIFF whose chain of directories is broken, endless, or longer than NIfTI's axes.

    The format: TIFF 6.0, section 2; BigTIFF: https://www.awaresystems.be/imaging/tiff/bigtiff.html

    Raises:
        ValueError: If it is.
    """
    with path.open("rb") as file:
        head = file.read(16)
        size = file.seek(0, os.SEEK_END)
        order = "<" if head[:2] == b"II" else ">"
        big = head[2:4] in (b"+\0", b"\0+")
        count, entry, link = (order + "Q", 20, order + "Q") if big else (order + "H", 12, order + "I")
        seen: set[int] = set()
        where = _unpacked(link, head[8:16] if big else head[4:8])
        while where:
            file.seek(where)
            n = _unpacked(count, file.read(struct.calcsize(count)))
            if n is None or not 0 < n <= MAX_ENTRIES:
                msg = f"{path}: file must be a whole TIFF, got no directory at byte {where} of {size}"
                raise ValueError(msg)
            seen.add(where)
            file.seek(n * entry, os.SEEK_CUR)
            where = _unpacked(link, file.read(struct.calcsize(link)))
            if where in seen or len(seen) > MAX_PAGES:
                got = "directories in a loop" if where in seen else "more"
                msg = f"{path}: file must have at most {MAX_PAGES} pages, one after the other, got {got}"
                raise ValueError(msg)
        if where is None or not seen:
            msg = f"{path}: file must be a whole TIFF, got a chain of {len(seen)} directories that breaks off"
            raise ValueError(msg)


def _unpacked(kind: str, content: bytes) -> int | None:
    """Number in the bytes; None if they are too few."""
    return int(struct.unpack(kind, content)[0]) if len(content) == struct.calcsize(kind) else None
