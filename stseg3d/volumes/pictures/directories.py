"""Check of a TIFF's directories before a library follows them: libraries follow a loop without end, and believe any count."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# NIfTI holds no more along an axis, so a deeper stack could not be written.
MAX_PAGES = 32767
# Directories have one entry a tag, of which a few hundred are known.
MAX_ENTRIES = 4096
# Bytes of a value by its type: TIFF 6.0, section 2, and the types of BigTIFF; others are counted as 1.
TYPE_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


# Count of a directory's entries; an entry's tag, type, count and value; the place of the next directory. The second of BigTIFF.
CLASSIC, BIG = ("H", "HHII", "I"), ("Q", "HHQQ", "Q")  # https://www.awaresystems.be/imaging/tiff/bigtiff.html


def check_directories(path: Path) -> None:
    """Refuse a TIFF whose chain of directories is broken, endless, or longer than NIfTI's axes, or that has values larger than the file.

    Raises:
        ValueError: If it is.
    """
    seen: set[int] = set()
    with path.open("rb") as file:
        head = file.read(16)
        order = "<" if head[:2] == b"II" else ">"
        form, start = (BIG, head[8:16]) if head[2:4] in (b"+\0", b"\0+") else (CLASSIC, head[4:8])
        count, entry, link = (struct.Struct(order + kind) for kind in form)
        size = path.stat().st_size
        place = link.unpack(start)[0] if len(start) == link.size else size
        while place:
            if place in seen or len(seen) == MAX_PAGES:
                got = "directories in a loop" if place in seen else "more"
                msg = f"{path}: file must have at most {MAX_PAGES} pages, one after the other, got {got}"
                raise ValueError(msg)
            seen.add(place)
            entries, place = _directory(path, file, place, count, entry, link)
            for tag, kind, n, _ in entries:
                if n * TYPE_BYTES.get(kind, 1) > size:
                    msg = f"{path}: file must be a whole TIFF, got one of {size} bytes with {n} values of tag {tag}"
                    raise ValueError(msg)
    if not seen:
        msg = f"{path}: file must be a whole TIFF, got one without a page"
        raise ValueError(msg)


def _directory(
    path: Path, file: BinaryIO, place: int, count: struct.Struct, entry: struct.Struct, link: struct.Struct
) -> tuple[Iterator[tuple[int, ...]], int]:
    """Entries of a directory, and the place of the next; 0 after the last."""
    content = b""
    if place < path.stat().st_size:
        file.seek(place)
        head = file.read(count.size)
        n = count.unpack(head)[0] if len(head) == count.size else 0
        if 0 < n <= MAX_ENTRIES:
            content = file.read(n * entry.size + link.size)
    if not content or len(content) < n * entry.size + link.size:
        msg = f"{path}: file must be a whole TIFF, got no whole directory at byte {place}"
        raise ValueError(msg)
    return entry.iter_unpack(content[: -link.size]), link.unpack(content[-link.size :])[0]
