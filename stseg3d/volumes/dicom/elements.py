"""Elements of a DICOM file, which pydicom reads, and a check that the file holds the voxels that they promise."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from math import isfinite, prod
from mmap import ACCESS_READ, mmap
from pathlib import Path
from struct import unpack
from typing import Any

from stseg3d.volumes.file import check_capacity, check_memory, library_errors

SHAPE = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")
# What pixel data may be declared as; their length then takes four bytes (DICOM PS3.5, 7.1.2).
PIXEL_GROUP, PIXEL_KINDS = 0x7FE0, (b"OB", b"OW", b"UN")
UNDEFINED = 0xFFFFFFFF
# Transfer syntaxes without compressed voxels (PS3.5, annex A): implicit, explicit, big-endian, deflated, and one of GE.
PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99", "1.2.840.113619.5.2")
# pydicom unpacks all of a deflated file; a byte becomes 1032 at most.
META_BYTES, DEFLATED, MAX_DEFLATED = 1024, "1.2.840.10008.1.2.1.99", 1032
# PackBits, of RLE, repeats a byte 128 times for two (PS3.5, annex G); GDCM sets aside what the header claims.
RLE, MAX_RLE = "1.2.840.10008.1.2.5", 64


@contextmanager
def sound(path: Path) -> Iterator[None]:
    """Context in which errors of pydicom become one sentence on the file, and its warnings are silent."""
    with library_errors(path, "sound DICOM"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def mapped(path: Path) -> Iterator[Any]:
    """Map of a file, which reads no more than there is, and in which what lies beyond its end is an error."""
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as whole:
        yield whole


def read_elements(path: Path, names: Sequence[str] = ()) -> Any:
    """Data set of a file with voxels, without them.

    Args:
        path: The file.
        names: Keywords of the elements that are needed; by default all are read.

    Raises:
        ValueError: If it is not sound DICOM, or holds fewer voxels than it says.
    """
    import pydicom

    wanted = [tag(name) for name in (*SHAPE, "NumberOfFrames", "PhotometricInterpretation", *names)] if names else None
    with sound(path), mapped(path) as whole:
        if whole.find(DEFLATED.encode(), 0, META_BYTES) > 0:
            check_memory(path, len(whole) * MAX_DEFLATED)
        content: Any = pydicom.dcmread(whole, stop_before_pixels=True, force=True, specific_tags=wanted)
        held, fragments = _held(content, content.buffer)
        syntax = str(content.file_meta.get("TransferSyntaxUID", ""))
    _check_pixels(path, content, (syntax, held, fragments))
    return content


def sop_class(path: Path) -> str | None:
    """SOP class UID of a DICOM file, empty if it has none; None if the file does not begin as DICOM."""
    from pydicom.filereader import read_partial

    if not begins_as_dicom(path):
        return None
    try:
        with sound(path), mapped(path) as whole:
            return str(read_partial(whole, stop_when=lambda *_: True).file_meta.get("MediaStorageSOPClassUID", ""))
    except ValueError:  # broken: read_elements will tell
        return ""


def begins_as_dicom(path: Path) -> bool:
    """Whether the file's first bytes are those of DICOM."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


@cache
def tag(name: str) -> Any:
    """Tag of a keyword, which pydicom would look up for each file."""
    from pydicom.tag import Tag

    return Tag(name)


def raw(content: Any, name: str) -> Any:
    """Value of an element as it stands in the file; None if it is missing, long or a sequence."""
    value = getattr(content.get_item(tag(name), keep_deferred=True), "value", None)
    return value if isinstance(value, bytes) else None


def text(content: Any, name: str) -> str:
    """Value of an element as text, empty if it is missing."""
    value = raw(content, name) or b""
    if name == "NominalPercentageOfCardiacPhase" or not value.isascii():  # binary, or in another character set
        return str(content.get(name, "")).strip(" \0")
    return value.decode().strip(" \0")


def integer(content: Any, name: str) -> int:
    """Value of a binary element of two bytes; 0 if it is missing or of another length."""
    value = raw(content, name) or b""
    return int.from_bytes(value, "little" if content.original_encoding[1] else "big") if len(value) == 2 else 0


def numbers(content: Any, name: str, count: int) -> tuple[float, ...] | None:
    """Values of an element of that many decimal numbers; None if it is missing or wrong."""
    try:
        values = tuple(float(part) for part in text(content, name).split("\\"))
    except ValueError:
        return None
    return values if len(values) == count and all(map(isfinite, values)) else None


def frames_of(content: Any) -> int:
    """Number of frames that a file says it has; 1 if it does not say."""
    found = text(content, "NumberOfFrames")
    return int(found) if found.isdecimal() and len(found) < 10 and int(found) else 1


def _held(content: Any, file: Any) -> tuple[int, int]:
    """Bytes of the pixel data, before which the file stands, and number of fragments, 0 if they are not compressed."""
    from pydicom.encaps import parse_fragments

    implicit, little = content.original_encoding  # which pydicom corrects as it reads, but does not tell
    head, order = file.read(8), "<" if little else ">"
    kind = head[4:6]
    if len(head) < 8 or unpack(order + "H", head[:2]) != (PIXEL_GROUP,) or (kind.isalpha() and not implicit and kind not in PIXEL_KINDS):
        msg = "no pixel data before its end, perhaps as it was cut short or an element is longer than the file"
        raise ValueError(msg)
    (length,) = unpack(order + "I", file.read(4) if kind in PIXEL_KINDS else head[4:])
    start = file.tell()
    file.seek(0, 2)
    left = file.tell() - start
    if length != UNDEFINED:
        return min(length, left), 0
    file.seek(start)
    _, offsets = parse_fragments(file)
    file.seek(offsets[-1] + 4)
    end = offsets[-1] + 8 + unpack("<I", file.read(4))[0]
    if end > start + left:
        msg = f"a fragment of pixel data that ends {end - start - left} bytes beyond the file"
        raise ValueError(msg)
    return end - start - 8 * len(offsets), len(offsets) - 1  # the first is a table


def _check_pixels(path: Path, content: Any, found: tuple[str, int, int]) -> None:
    syntax, held, fragments = found
    if lost := [name for name in SHAPE if not integer(content, name)]:
        msg = f"{path}: image must give its {', '.join(SHAPE)}, got no {', '.join(lost)}"
        raise ValueError(msg)
    if not syntax or (syntax in PLAIN) == (fragments > 0):
        msg = f"{path}: TransferSyntaxUID must say how voxels are stored, got {syntax!r} for {fragments or 'no'} compressed fragments"
        raise ValueError(msg)
    frames = frames_of(content)
    if 0 < fragments < frames:
        msg = f"{path}: pixel data must hold a fragment for each of {frames} frames, got {fragments}"
        raise ValueError(msg)
    rows, columns, samples, bits = (integer(content, name) for name in SHAPE)
    if text(content, "PhotometricInterpretation").endswith("_422"):  # two pixels share their colours
        samples = 2
    needed = -(-prod((rows, columns, samples, frames, bits)) // 8)
    if syntax in PLAIN and held < needed:
        msg = f"{path}: PixelData must hold the {needed} bytes of {columns} x {rows} x {frames} voxels of {samples * bits} bits, got {held}"
        raise ValueError(msg)
    if syntax == RLE:
        check_capacity(path, needed, held, MAX_RLE)
