"""Volumes below a folder, with what their paths say of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stseg3d.planning.layouts.words import Role, folder_words, is_label_name
from stseg3d.volumes.dicom.kinds import DICOM_SUFFIXES, is_dicom
from stseg3d.volumes.open import volume_suffix

LEFT_OUT = {"__MACOSX"}
# Files without a suffix that are looked into, to learn whether a folder holds a DICOM series.
LOOKED_INTO = 3


@dataclass(frozen=True)
class Named:
    """A volume, and what its path says.

    Args:
        path: The file, or the folder of a DICOM series.
        folders: Names of the folders between the searched folder and it, but for those that only say a role or a part.
        stem: Its name without suffix.
        role: What the nearest folder that says so says that it is.
        part: Part that the folders say.
    """

    path: Path
    folders: tuple[str, ...]
    stem: str
    role: Role = ""
    part: str = ""

    @property
    def says_label(self) -> bool:
        """Whether its own name says that it is a label."""
        return is_label_name(self.stem) or ".seg." in volume_suffix(self.path).lower()

    @property
    def label_path(self) -> Path:
        """Path as a label: a DICOM segmentation is one file, and read as such where it is alone in its folder."""
        files = [p for p in self.path.iterdir() if volume_suffix(p).lower() in DICOM_SUFFIXES] if self.path.is_dir() else []
        return files[0] if len(files) == 1 else self.path


def volumes_below(root: Path) -> list[Named]:
    """Volumes in the folder and all below, in order of path; hidden ones are left out, and a folder reached twice is searched once.

    DICOM files are images of their own in the folder itself, and a series in a folder below. A file is one volume.
    """
    if root.is_file():
        return [_named(root, root.parent)] if volume_suffix(root) else []
    return [_named(path, root) for path in _paths_below(root)]


def _paths_below(root: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for at, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(at)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in LEFT_OUT) if real not in seen else []
        if real in seen:
            continue
        seen.add(real)
        folder = Path(at)
        paths = [folder / name for name in sorted(files) if not name.startswith(".")]
        yield from (path for path in paths if volume_suffix(path) and (folder == root or volume_suffix(path).lower() not in DICOM_SUFFIXES))
        if folder != root and _is_series(paths):
            yield folder


def _is_series(files: list[Path]) -> bool:
    if any(volume_suffix(path).lower() in DICOM_SUFFIXES for path in files):
        return True
    nameless = [path for path in files if not path.suffix or path.suffix[1:].isdigit()]
    return any(is_dicom(path) for path in nameless[:LOOKED_INTO] if path.is_file())


def _named(path: Path, root: Path) -> Named:
    folders = path.relative_to(root).parts[:-1]
    words = [folder_words(name) for name in folders]
    said = [word for word in words if word is not None]
    return Named(
        path,
        tuple(name for name, word in zip(folders, words, strict=True) if word is None),
        path.name.removesuffix(volume_suffix(path)),
        role=next((role for role, _ in reversed(said) if role), ""),
        part=next((part for _, part in reversed(said) if part), ""),
    )
