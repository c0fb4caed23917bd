"""Names of cases: one rule for files, folders and lists, and a check that outputs of that name stay in their folder."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from stseg3d.volumes.open import Source, volume_suffix

SEPARATOR = "__"
# File systems take 255 bytes; the rest is for `_seg.nii.gz` and for temporary names.
MAX_NAME_BYTES = 220
SHORTENED_BYTES = 180
ALL_PARTS = 10_000  # more parts than any path has

# Windows keeps these for devices, with any suffix: https://learn.microsoft.com/windows/win32/fileio/naming-a-file
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE | re.DOTALL)
# The channel at the end of a file's name, as nnU-Net has it.
NUMBERED = re.compile(r"(.+)_(\d{4})", re.DOTALL)
# Ends of lines and other control characters; and bytes that are not UTF-8, which Python has as lone surrogates.
CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
FORBIDDEN = re.compile(rf"[/\\{CONTROL}]")
FORBIDDEN_ON_WINDOWS = re.compile(rf"[/\\{CONTROL}<>:\"|?*]")  # a colon there starts the name of a stream


@dataclass(frozen=True)
class Place:
    """Place of a case that has no name yet.

    Args:
        image: File, or folder of a DICOM series; or several, one for each channel.
        label: File with the ground truth.
        id: Name that a list gives it; empty if there is none.
        parts: Number of parts of the image's path that its name is made of, at least.
    """

    image: Source
    label: Path | None = None
    id: str = ""
    parts: int = 1

    @cached_property
    def images(self) -> tuple[Path, ...]:
        """Absolute paths of all its files; not resolved, as a link keeps its own name."""
        return tuple(Path(os.path.abspath(path)) for path in paths_of(self.image))

    @cached_property
    def way(self) -> tuple[str, ...]:
        """Parts of the path of its first file, the last one without the suffix of a volume and, of several files, without the number."""
        first = self.images[0]
        numbered = NUMBERED.fullmatch(stem(first)) if len(self.images) > 1 else None
        return (*first.parent.parts[1:], numbered[1] if numbered else stem(first))

    def name(self, parts: int | None = None) -> str:
        """Its id, or the last ``parts`` parts of its path."""
        return self.id or shortened(SEPARATOR.join(self.way[-(parts or self.parts) :]))


def paths_of(image: Source) -> tuple[Path, ...]:
    """Path of each file of an image."""
    return image if isinstance(image, tuple) else (image,)


def stem(path: Path) -> str:
    """Last part of a path, without the suffix of a volume if it is a file."""
    return path.name if path.is_dir() else path.name.removesuffix(volume_suffix(path))


def case_id(path: Path | str) -> str:
    """Name of a case that is alone: its last part without the suffix of a volume."""
    return Place(Path(path)).name()


def told_apart(places: Sequence[Place]) -> list[Place]:
    """The places with as many parts in their names as can tell them apart; those of one path stay alike."""
    found = list(places)
    while True:
        alike: dict[str, set[str]] = {}
        for place in found:  # some file systems ignore case
            alike.setdefault(place.name().casefold(), set()).add(place.name(ALL_PARTS).casefold())
        longer = [
            k for k, place in enumerate(found) if len(alike[place.name().casefold()]) > 1 and place.name() != place.name(place.parts + 1)
        ]
        if not longer:
            return found
        for k in longer:
            found[k] = replace(found[k], parts=found[k].parts + 1)


def shortened(name: str) -> str:
    """The name; if too long for a file system, its beginning and a hash."""
    content = name.encode(errors="surrogateescape")
    if len(content) <= SHORTENED_BYTES:
        return name
    mark = hashlib.sha256(content).hexdigest()[:8]
    return f"{content[: SHORTENED_BYTES - 9].decode(errors='ignore')}-{mark}"


def output_name(case: str, suffix: str = "seg") -> str:
    """File name of a case's output, ``<case>_<suffix>.nii.gz``.

    Raises:
        ValueError: If the name is not safe in a folder, see :func:`ensure_file_name`.
    """
    return f"{ensure_file_name(case)}_{suffix}.nii.gz"


def ensure_file_name(name: str) -> str:
    """The name of a case, after checking that its files stay in their folder: no path, not hidden, no option, no device.

    Args:
        name: Name of a case, such as ``patient_7``.

    Raises:
        ValueError: If it is not such a name.
    """
    found = (FORBIDDEN_ON_WINDOWS if os.name == "nt" else FORBIDDEN).search(name)
    if found:
        why = f"without {found[0]!r}"
    elif not name or name[0] in ".-":
        why = "of at least one letter, and begin with neither '.' nor '-'"
    elif RESERVED.fullmatch(name):
        why = "that is no device of Windows"
    elif len(name.encode()) > MAX_NAME_BYTES:
        why = f"of at most {MAX_NAME_BYTES} bytes"
    else:
        return name
    msg = f"case must have a name {why}, for its files to stay in their folder, got {name[:100]!r}"
    raise ValueError(msg)
