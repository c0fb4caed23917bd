"""Check of the elements of a DICOM file, at any depth, before GDCM reads them.

GDCM (SimpleITK 2.5.7) reads what it cannot understand once more by other rules, and then sets aside any length that an element claims, up
to 4 GiB. pydicom does not look into sequences that nobody asks for, nor behind the pixel data.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import SEEK_CUR, BufferedReader
from itertools import islice
from pathlib import Path

# DICOM PS3.5, 6.2 and 7.1.2: value representations whose length takes four bytes, and two.
LONG_KINDS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
SHORT_KINDS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
UNDEFINED = 0xFFFFFFFF
ITEMS, END_OF_SEQUENCE, PIXELS, META = 0xFFFE, 0xE0DD, (0x7FE0, 0x0010), 0x0002
IMPLICIT, TRANSFER_SYNTAX = b"1.2.840.10008.1.2", (0x0002, 0x0010)
# Transfer syntaxes whose elements are big-endian or compressed.
UNSUPPORTED_SYNTAXES = (b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99")
# Tolerance for errors of writers that GDCM corrects; and the number of elements that are checked.
SLACK_BYTES, MAX_ELEMENTS = 1 << 20, 1 << 17


def is_overrun(path: Path) -> bool:
    """Whether an element claims to extend far beyond the end of the file, has an unknown kind, or is wrong as the first one.

    Files that cannot be checked, such as big-endian ones, count as sound: GDCM will report errors.
    """
    size, behind = path.stat().st_size, False
    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            return False
        for n, (group, kind, length, at) in enumerate(islice(_elements(file), MAX_ELEMENTS)):
            if n == 0 and group != META:
                return True
            if kind and kind not in LONG_KINDS | SHORT_KINDS:
                # Others are known mistakes of scanners, but not behind the voxels, where zeros may fill a block of a tape or disc.
                return group == META or (kind.isalpha() and kind.isupper()) or (behind and any(kind))
            behind = behind or group == PIXELS[0]
            if length != UNDEFINED and length > size - at + SLACK_BYTES:
                return True
    return False


def _elements(file: BufferedReader) -> Iterator[tuple[int, bytes, int, int]]:
    """Group, value representation (empty where the syntax has none), length and position of each element, including those in sequences."""
    implicit = packed = False
    while len(head := file.read(8)) == 8:
        group, element, length = struct.unpack("<HHI", head)
        kind = head[4:6] if group == META or not (implicit or group == ITEMS) else b""
        if kind:
            length = int.from_bytes(file.read(4), "little") if kind in LONG_KINDS else length >> 16
        yield group, kind, length, file.tell()
        if (group, element) == TRANSFER_SYNTAX:
            syntax = file.read(length).rstrip(b"\0 ")
            if syntax in UNSUPPORTED_SYNTAXES:
                return
            implicit = syntax == IMPLICIT
        elif group == ITEMS:
            packed = packed and element != END_OF_SEQUENCE
            file.seek(length if packed and length != UNDEFINED else 0, SEEK_CUR)  # a fragment of pixels; other items hold elements
        elif length == UNDEFINED or kind == b"SQ":
            packed = (group, element) == PIXELS
        else:
            file.seek(length, SEEK_CUR)
