"""Opening pictures: as images, and as label maps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from stseg3d.volumes.file import FileVolume, check_memory
from stseg3d.volumes.pictures.picture import Picture
from stseg3d.volumes.pictures.png_jpeg import open_jpeg, open_png
from stseg3d.volumes.pictures.tiff import open_tiff
from stseg3d.volumes.volume import Array

PICTURE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
# First bytes of each kind, which count more than the file's name: ITK and Pillow look at them, too.
KINDS = {b"\x89PNG": open_png, b"\xff\xd8": open_jpeg, **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), open_tiff)}
WHITE = 255


def open_picture(path: Path, *, label: bool = False, binary: bool = False) -> FileVolume:
    """Picture as a volume, its axes (x, y, z), upright as viewers show it, with colours (and alpha) as channels.

    The spacing is the file's, 1 mm if it has none. Depth is that of a TIFF's pages, else 1.

    Args:
        path: The file.
        label: Whether it is a label map: it then has one channel, in which palettes give their indices and few bits their stored values.
        binary: Whether a label map of 0 and 255 alone marks object 1.

    Raises:
        ValueError: If the file is broken, or of a kind that cannot be read; for a label map, if it is compressed with loss; on reading,
            if its colours differ or its pixels are transparent.
    """
    with path.open("rb") as file:
        head = file.read(4)
    reader = next((reader for start, reader in KINDS.items() if head.startswith(start)), None)
    if reader is None:
        msg = f"{path}: file must be a PNG, TIFF or JPEG, got one that begins with {head!r}"
        raise ValueError(msg)
    picture = reader(path, label)
    grid = picture.grid
    check_memory(path, grid.box.voxels * picture.channels * picture.stored.itemsize)
    if label:
        _check_label(path, picture)
        load: Callable[[], Array] = partial(_load_label, path, picture.load_upright, picture.step, binary)
        return FileVolume(path, grid, stored=picture.stored, channels=1, load=load)
    scaling = (-1.0, float(np.iinfo(picture.stored).max)) if picture.white_is_zero else (1.0, 0.0)
    return FileVolume(path, grid, stored=picture.stored, channels=picture.channels, load=picture.load_upright, slope_inter=scaling)


def _check_label(path: Path, picture: Picture) -> None:
    if picture.lossy:
        msg = f"{path}: a label must be stored without loss, got a JPEG, whose compression makes up values: save it as PNG"
        raise ValueError(msg)
    if picture.white_is_zero:  # ImageJ's inverted masks mark objects with the stored 255, which is shown black
        msg = f"{path}: a label must be stored with 0 as black, got 0 as white, of which programs take either as object: save it as PNG"
        raise ValueError(msg)


def _load_label(path: Path, load: Callable[[], Array], step: int, binary: bool) -> Array:
    array = load()
    colours = len(array) - (len(array) in (2, 4))
    if any((alpha != np.iinfo(alpha.dtype).max).any() for alpha in array[colours:]):
        msg = f"{path}: a label must be opaque, got transparent pixels: which of them are objects is not clear"
        raise ValueError(msg)
    if any((colour != array[0]).any() for colour in array[1:colours]):
        msg = f"{path}: a label must have one channel, or equal ones, got {colours} that differ: turn its colours into ids first"
        raise ValueError(msg)
    labels = array[:1] // step if step > 1 else array[:1]
    if binary and labels.any() and np.isin(labels, (0, WHITE)).all():
        labels = labels // WHITE
    return labels
