"""Pictures: PNG, TIFF and JPEG as volumes of depth 1."""

from __future__ import annotations

from io import SEEK_CUR
from pathlib import Path

from stseg3d.geometry import Grid
from stseg3d.volumes.file import FileVolume
from stseg3d.volumes.sitk import open_sitk

JPEG_END = b"\xff\xd9"
PNG_SIGNATURE_BYTES = 8


def open_picture(path: Path) -> FileVolume:
    """Picture as a volume of depth 1, its axes (x, y, 1), colours (and alpha) as channels; the pages of a TIFF are slices.

    A picture has no position in a patient: its axes are the world's, and the spacing is the file's, 1 mm if it has none.

    Raises:
        ValueError: If the file is broken.
    """
    if path.suffix.lower() in {".jpg", ".jpeg"} and JPEG_END not in _tail(path):  # ITK silently fills the rest with grey
        msg = f"{path}: file must be a whole JPEG, got one without an end mark"
        raise ValueError(msg)
    if path.suffix.lower() == ".png":
        _check_chunks(path)
    volume = open_sitk(path)
    volume.grid = Grid(volume.grid.shape, spacing_mm=volume.grid.spacing_mm)
    return volume


def _check_chunks(path: Path) -> None:
    """Refuse a PNG with a chunk that claims to extend beyond the end of the file: libpng would allocate up to 2 GiB.

    Raises:
        ValueError: If there is such a chunk.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(PNG_SIGNATURE_BYTES)
        while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
            length = int.from_bytes(head[:4], "big")
            if length > size - file.tell():
                msg = f"{path}: file must be a whole PNG, got one of {size} bytes with a chunk of {length}"
                raise ValueError(msg)
            file.seek(length + 4, SEEK_CUR)  # and its checksum


def _tail(path: Path, n_bytes: int = 1024) -> bytes:
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - n_bytes, 0))
        return file.read()
