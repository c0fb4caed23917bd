"""Headers of MetaImage and NRRD, read before ITK reads them: it crashes on some, and believes whatever size they claim."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

# A header is text of some kB; what is still none after this is something else.
HEADER_BYTES = 1 << 20
# Axes of an image: of space, perhaps of time or channels, and in NRRD the colours.
AXES = range(2, 6)
# Axes that ITK looks at (2.5): with 65536 of them SimpleITK ends in a segmentation fault.
AXIS_COUNT = re.compile(r"[1-9]\d{0,3}")
# Text takes two bytes a number at least, which may stand for eight.
TEXT_RATIO = 4


@dataclass(frozen=True)
class Capacity:
    """What a file can hold.

    Args:
        n_bytes: Of the file with the voxels.
        packed: Whether they are compressed.
    """

    n_bytes: int
    packed: bool


def check_header(path: Path) -> Capacity | None:
    """What the voxels of a MetaImage or NRRD file can be at most; None where their files are a list or a pattern, and for other formats.

    Raises:
        ValueError: If there is no such header, or the number of its axes makes no sense, or its data are in no regular file.
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
    """Fields of the header, by name in small letters; of a doubled one the last, as in ITK. It ends with ``last`` or an empty line."""
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
