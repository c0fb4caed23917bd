"""Files that a MetaImage or NRRD header names as holding its voxels: found before ITK opens any.

ITK hands a pattern of names to C's ``printf``, and waits for a pipe.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path

# One whole number in a name, at most 9 digits wide, and the first, or the first, last and step, and in NRRD the axes in a file.
PATTERN = re.compile(r"([^\s%\"\\]*%(?:0[1-9])?d[^\s%\"\\]*)[ \t]+(\d{1,9})(?:[ \t]+(\d{1,9})[ \t]+([1-9]\d{0,8})(?:[ \t]+(\d))?)?")
LIST = re.compile(r"LIST(?:[ \t]+(\d)D?)?")


def data_files(header: Path, value: str, listed: Sequence[str], sizes: Sequence[int]) -> list[Path]:
    """Regular files with the voxels, in order.

    Args:
        header: The header's path.
        value: What it gives as their name: a name, a pattern with numbers (``ct%03d.raw 1 40 1``), or ``LIST``.
        listed: Names in the list.
        sizes: Voxels along each axis.

    Raises:
        ValueError: If it is none of these, the files are not as many as the header's sizes ask for, or one is missing, is not a regular
            file, or lies outside the header's folder.
    """
    numbered = PATTERN.fullmatch(value)
    if value.startswith("LIST") and (match := LIST.fullmatch(value)):
        _check_count(header, len(listed), match[1], sizes)
        names: Sequence[str] | Iterator[str] = listed
    elif numbered:
        first = int(numbered[2])
        numbers = range(first, int(numbered[3]) + 1, int(numbered[4])) if numbered[3] else range(first, first + sizes[-1])
        _check_count(header, len(numbers), numbered[5], sizes)
        names = (numbered[1] % number for number in numbers)
    elif "%" in value or value.startswith("LIST"):
        msg = f"{header}: file must name the files with its voxels by one %d or %03d and numbers (ct%03d.raw 1 40 1), or by LIST,"
        msg += f" got {value[:60]!r}"
        raise ValueError(msg)
    else:
        names = [value]
    return [_regular_file(header, name) for name in names]


def _check_count(header: Path, count: int, axes: str | None, sizes: Sequence[int]) -> None:
    """Refuse another number of files than the axes that are not in one file ask for; NRRD may cut the last axis anyhow."""
    inside = int(axes) if axes else len(sizes) - 1
    due = prod(sizes[inside:])
    if not 1 <= inside <= len(sizes) or (not 1 <= count <= sizes[-1] if inside == len(sizes) else count != due):
        msg = f"{header}: file must name as many files with voxels as its sizes {tuple(sizes)} ask for, got {count}"
        raise ValueError(msg)


def _regular_file(header: Path, name: str) -> Path:
    try:
        real, folder = (os.path.realpath(path) for path in (header.parent / name, header.parent))
        found = os.stat(real)
    except (OSError, ValueError):  # such as a name too long or with a zero, or a link that leads to itself
        what = "missing"
    else:
        if stat.S_ISREG(found.st_mode) and Path(real).is_relative_to(folder):
            return Path(real)
        what = "outside of the header's folder" if stat.S_ISREG(found.st_mode) else "no file"
    msg = f"{header}: file must name a file that holds its voxels, got {name[:200]!r}, which is {what}"
    raise ValueError(msg)
