"""Check of MetaImage and NRRD headers before ITK reads them: ITK crashes on some, and trusts any size they claim."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# A header is a few kB of text; a file without one in this many bytes is no image.
HEADER_BYTES = 1 << 20
# Axes of an image: space, perhaps time or channels, and colours in NRRD.
AXES = range(2, 6)
# Number of axes in a header; 65536 end SimpleITK (2.5) in a segmentation fault.
AXIS_COUNT = re.compile(r"[1-9]\d{0,3}")
# A number takes at least two bytes as text, and at most eight as a voxel.
TEXT_RATIO = 4


@dataclass(frozen=True)
class Capacity:
    """Room for voxels in a file.

    Args:
        n_bytes: Bytes of the file with the voxels.
        packed: Whether they are compressed.
    """

    n_bytes: int
    packed: bool


def check_header(path: Path) -> Capacity | None:
    """Room for voxels in a MetaImage or NRRD file; None if a list or pattern of files holds them, and for other formats.

    Raises:
        ValueError: If there is no such header, its number of axes is invalid, or its data are not in a regular file.
    """
    suffix = path.suffix.lower()
    if suffix in {".mha", ".mhd"}:
        return _check_meta(path)
    if suffix in {".nrrd", ".nhdr"}:
        return _check_nrrd(path)
    return None


def _check_meta(path: Path) -> Capacity | None:
    # The header ends with the line that names the data: https://itk.org/Wiki/MetaIO/Documentation
    fields = _fields(path, r"\s*=\s*", last="elementdatafile")
    if "elementdatafile" not in fields:
        msg = f"{path}: file must be a sound image, got a header without ElementDataFile"
        raise ValueError(msg)
    _check_axes(fields.get("ndims", ""), "NDims", path)
    packed = fields.get("compresseddata", "").lower() in {"true", "1"}
    name = fields["elementdatafile"]
    if name.upper().startswith("LIST") or "%" in name:
        return None
    text = fields.get("binarydata", "true").lower() in {"false", "0"}
    return _capacity(path, path if name.upper() == "LOCAL" else path.parent / name, packed=packed, text=text)


def _check_nrrd(path: Path) -> Capacity | None:
    fields = _fields(path, r"\s*:=?\s*", last="")
    _check_axes(fields.get("dimension", ""), "dimension", path)
    encoding = fields.get("encoding", "raw").lower()
    name = fields.get("data file", fields.get("datafile", ""))
    if name.upper().startswith("LIST") or "%" in name:
        return None
    packed = encoding not in {"raw", "txt", "text", "ascii", "hex"}
    return _capacity(path, path.parent / name if name else path, packed=packed, text=not packed and encoding != "raw")


def _fields(path: Path, separator: str, last: str) -> dict[str, str]:
    """Fields of the header by name in lower case, the last of duplicates, as in ITK; it ends with ``last`` or an empty line."""
    with path.open("rb") as file:
        text = file.read(HEADER_BYTES).decode("latin-1")
    fields: dict[str, str] = {}
    for line in text.split("\n"):
        if not last and not line.strip():
            break
        parts = re.split(separator, line.strip(), maxsplit=1)
        if len(parts) == 2:
            name = parts[0].lower()
            fields[name] = parts[1]
            if name == last:
                break
    return fields


def _check_axes(value: str, name: str, path: Path) -> None:
    if not AXIS_COUNT.fullmatch(value) or int(value) not in AXES:
        msg = f"{path}: {name} must be {AXES[0]} to {AXES[-1]}, got {value[:40]!r}"
        raise ValueError(msg)


def _capacity(path: Path, data: Path, *, packed: bool, text: bool) -> Capacity:
    if not data.is_file():
        msg = (
            f"{path}: file must name a file that holds its voxels, got {data.name!r}, which is {'no file' if data.exists() else 'missing'}"
        )
        raise ValueError(msg)
    return Capacity(data.stat().st_size * (TEXT_RATIO if text else 1), packed)
