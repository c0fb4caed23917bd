"""Check of MetaImage and NRRD headers before ITK reads them: ITK crashes on some, and trusts any size they claim."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stseg3d.volumes.data_files import data_files

# A header is a few kB of text; a file without one in this many bytes is no image.
HEADER_BYTES = 1 << 20
# Axes of an image: space, perhaps time or channels, and colours in NRRD.
AXES = range(2, 6)
# Number of axes in a header; 65536 end SimpleITK (2.5) in a segmentation fault.
AXIS_COUNT = re.compile(r"[1-9]\d{0,3}")
# A number takes at least two bytes as text, and at most eight as a voxel.
TEXT_RATIO = 4
# What ends a line for some readers, and not for others.
AMBIGUOUS = re.compile(r"\r(?!\n)|\0")
# Characters of a line that SimpleITK (2.5) has room for: it crashes beyond 900 in NRRD, and in MetaImage beyond 255 of a Name, and cuts
# its own fields after 500, to read the rest as another field. Metadata of other names may be longer.
NRRD_LINE, META_NAME, META_LINE = 700, 200, 480
META_NAMES = re.compile(
    r"Comment|Object(Sub)?Type(Name)?|Transform(Type|Matrix)|NDims|Name|ID|Parent(ID|Name)|(Compress|Binary|Header|Element|Dim|Distance)\w*|Color|"
    r"Position|Origin|Offset|Rotation|Orientation|CenterOfRotation|AnatomicalOrientation|Modality|Sequence(ID|Name)|AcquisitionDate|EndHeader"
)
META_FIELD = re.compile(r"[ \t]*(\w+)[ \t]*[=:][ \t]*(.*?)\s*")
NRRD_KEY = re.compile(r"[^:]*:=")


@dataclass(frozen=True)
class Capacity:
    """Room for voxels in a file.

    Args:
        n_bytes: Bytes of the files with the voxels.
        packed: Whether they are compressed.
    """

    n_bytes: int
    packed: bool


def check_header(path: Path) -> Capacity | None:
    """Room for voxels in a MetaImage or NRRD file; None for other formats.

    Raises:
        ValueError: If there is no such header, its number of axes is invalid, or its data are not in regular files of its folder.
    """
    suffix = path.suffix.lower()
    if suffix in {".mha", ".mhd"}:
        return _check_meta(path)
    if suffix in {".nrrd", ".nhdr"}:
        return _check_nrrd(path)
    return None


def _check_meta(path: Path) -> Capacity:
    # The header ends with the line that names the data: https://itk.org/Wiki/MetaIO/Documentation
    with path.open("rb") as file:
        head, name, rest = file.read(HEADER_BYTES).decode("latin-1").partition("ElementDataFile")
    line, _, listed = rest.partition("\n")
    last = META_FIELD.fullmatch(name + line)
    if not last or head.rstrip(" \t")[-1:] not in {"", "\n"} or AMBIGUOUS.search(head + line + "\n") or name in rest:
        msg = f"{path}: file must be a sound image, got a header without one line ElementDataFile, its last"
        raise ValueError(msg)
    found = [match.groups() for match in map(META_FIELD.fullmatch, head.split("\n")) if match]
    _check_lengths(
        path, {f"{a} = {b}": META_NAME if a == "Name" else META_LINE for a, b in (*found, last.groups()) if META_NAMES.fullmatch(a)}
    )
    fields = _by_name(path, found)
    axes = _axes(path, "NDims", fields.get("NDims", ""))
    packed = fields.get("CompressedData", "").lower() in {"true", "1"}
    text = fields.get("BinaryData", "true").lower() in {"false", "0"}
    local = last[2] in {"LOCAL", "Local", "local"}
    names = [name.rstrip() for name in listed.rstrip().split("\n")] if listed.strip() else []
    files = [path] if local else data_files(path, last[2], names, _sizes(path, "DimSize", fields, axes))
    n_bytes = sum(file.stat().st_size for file in set(files))
    skipped = max(_whole(path, "HeaderSize", fields, -1, n_bytes), 0) * len(files)
    _whole(path, "CompressedDataSize", fields, 0, n_bytes)
    return Capacity((n_bytes - skipped) * (TEXT_RATIO if text else 1), packed)


def _check_nrrd(path: Path) -> Capacity:
    # https://teem.sourceforge.net/nrrd/format.html
    with path.open("rb") as file:
        text = file.read(HEADER_BYTES).decode("latin-1")
    head = re.split(r"\n\r?\n", text, maxsplit=1)[0]
    if len(head) == HEADER_BYTES or AMBIGUOUS.search(head + "\n"):
        msg = f"{path}: file must be a sound image, got a header of more than {HEADER_BYTES} bytes, or with bytes that are no text"
        raise ValueError(msg)
    lines = head.replace("\r\n", "\n").removesuffix("\r").split("\n")
    end = next((n + 1 for n, line in enumerate(lines) if re.match(r"data ?file: +LIST", line, re.IGNORECASE)), len(lines))
    _check_lengths(path, {line: NRRD_LINE for line in lines if not re.match(r"#|content: |[^:]*:=", line)})
    parts = [line.partition(": ") for line in lines[1:end] if not line.startswith("#") and not NRRD_KEY.match(line)]
    fields = _by_name(path, ((name.lower().replace(" ", ""), value.lstrip()) for name, _, value in parts))
    axes = _axes(path, "dimension", fields.get("dimension", ""))
    encoding, value = fields.get("encoding", "raw").strip().lower(), fields.get("datafile", "")
    files = data_files(path, value, [n for n in lines[end:] if n], _sizes(path, "sizes", fields, axes)) if value else [path]
    n_bytes = sum(file.stat().st_size for file in set(files))
    skipped = max(_whole(path, "byteskip", fields, -1, n_bytes), 0) * len(files)
    _whole(path, "lineskip", fields, 0, n_bytes)
    packed = encoding not in {"raw", "txt", "text", "ascii", "hex"}
    ratio = 1 if packed or encoding == "raw" else TEXT_RATIO
    return Capacity((n_bytes if packed else n_bytes - skipped) * ratio, packed)


def _check_lengths(path: Path, lines: dict[str, int]) -> None:
    """Refuse a line longer than its limit."""
    for line, most in lines.items():
        if len(line) > most:
            msg = f"{path}: line of the header must have at most {most} characters, got {len(line)} of {line[:40]!r}"
            raise ValueError(msg)


def _by_name(path: Path, fields: Iterable[Sequence[str]]) -> dict[str, str]:
    """Fields by name; which of two counts, depends on the reader."""
    found: dict[str, str] = {}
    for name, value in fields:
        if found.setdefault(name, value) != value:
            msg = f"{path}: header must give each field once, got {name[:40]!r} again"
            raise ValueError(msg)
    return found


def _axes(path: Path, name: str, value: str) -> int:
    if not AXIS_COUNT.fullmatch(value.strip()) or int(value) not in AXES:
        msg = f"{path}: {name} must be {AXES[0]} to {AXES[-1]}, got {value[:40]!r}"
        raise ValueError(msg)
    return int(value)


def _sizes(path: Path, name: str, fields: dict[str, str], axes: int) -> list[int]:
    values = fields.get(name, "").split()
    if len(values) != axes or not all(re.fullmatch(r"[1-9]\d{0,9}", value) for value in values):
        msg = f"{path}: {name} must be {axes} numbers of voxels, got {fields.get(name, '')[:60]!r}"
        raise ValueError(msg)
    return [int(value) for value in values]


def _whole(path: Path, name: str, fields: dict[str, str], low: int, high: int) -> int:
    value = fields.get(name, "0").strip()
    if not re.fullmatch(r"-?\d{1,18}", value) or not low <= int(value) <= high:
        msg = f"{path}: {name} must be a whole number from {low} to {high}, the bytes with voxels, got {value[:40]!r}"
        raise ValueError(msg)
    return int(value)
