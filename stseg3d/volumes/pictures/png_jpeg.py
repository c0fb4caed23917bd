"""PNG and JPEG: decoded by SimpleITK, and by Pillow where SimpleITK cannot or would make colours of a palette."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from io import SEEK_CUR
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from stseg3d.volumes.file import check_capacity, library_errors
from stseg3d.volumes.pictures.picture import ORIENTATION, Picture
from stseg3d.volumes.sitk import MAX_UNPACKED, image_reader, load_sitk, stored_dtype
from stseg3d.volumes.volume import Array

JPEG_END, TAIL_BYTES = b"\xff\xd9", 1024
PNG_SIGNATURE_BYTES = 8
# Chunks whose content is read, and the largest that is: EXIF without a thumbnail takes a few hundred bytes.
CHUNKS_READ, MAX_CHUNK = (b"IHDR", b"eXIf"), 1 << 20
# https://www.w3.org/TR/png-3/#3colourTypesAndValues
GREY, PALETTE, GREY_ALPHA = 0, 3, 4


def open_jpeg(path: Path, label: bool) -> Picture:
    """Grey or RGB picture in a JPEG.

    Raises:
        ValueError: If it is broken or cut.
    """
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - TAIL_BYTES, 0))
        tail = file.read()
    if JPEG_END not in tail:  # ITK silently fills the rest with grey
        msg = f"{path}: file must be a whole JPEG, got one without an end mark"
        raise ValueError(msg)
    return _decoded_by_sitk(path, orientation=_jpeg_orientation(path), lossy=True)


def open_png(path: Path, label: bool) -> Picture:
    """Picture in a PNG; the indices of a palette if it is a label.

    Raises:
        ValueError: If it is broken, or grey of 16 bits with alpha.
    """
    chunks = dict(_chunks(path))
    header = chunks.get(b"IHDR", b"")
    if len(header) != 13:
        msg = f"{path}: file must be a whole PNG, got one without a header"
        raise ValueError(msg)
    width, height, bits, kind = (int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big"), header[8], header[9])
    orientation = _exif_orientation(chunks.get(b"eXIf", b""))
    step = 255 // ((1 << bits) - 1) if kind == GREY and bits in (1, 2, 4) else 1
    # ITK (5.4) refuses grey with transparency.
    if not (kind == GREY_ALPHA or (kind == GREY and b"tRNS" in chunks) or (kind == PALETTE and label)):
        return _decoded_by_sitk(path, orientation=orientation, step=step)
    if kind == GREY_ALPHA and bits > 8:  # Pillow (13) would round it to 8
        msg = f"{path}: grey with alpha must have 8 bits, got {bits}: save it without alpha"
        raise ValueError(msg)
    channels, stored = 2 if kind == GREY_ALPHA else 1, np.dtype(np.uint16 if bits > 8 else np.uint8)
    check_capacity(path, width * height * channels * stored.itemsize, path.stat().st_size, MAX_UNPACKED)
    load = partial(_load_with_pillow, path, (channels, width, height, 1), stored)
    return Picture((width, height, 1), stored, channels, load, orientation=orientation, step=step)


def _decoded_by_sitk(path: Path, **found: Any) -> Picture:
    reader = image_reader(path)
    shape = (*reader.GetSize(), 1)[:3]
    channels = reader.GetNumberOfComponents()
    stored = stored_dtype(reader.GetPixelID(), path)
    spacing = (*reader.GetSpacing(), 1.0)[:3]
    check_capacity(path, prod(shape) * channels * stored.itemsize, path.stat().st_size, MAX_UNPACKED)
    return Picture(shape, stored, channels, partial(load_sitk, path, (channels, *shape)), spacing, **found)


def _load_with_pillow(path: Path, shape: tuple[int, ...], stored: np.dtype[Any]) -> Array:
    from PIL.PngImagePlugin import PngImageFile

    with library_errors(path, "a sound PNG"), PngImageFile(path) as image:
        array = np.asarray(image)
    array = array.astype(np.uint8) * 255 if array.dtype == np.bool_ else array
    return array.reshape(*shape[2:0:-1], shape[0]).T.reshape(shape).astype(stored, copy=False)


def _chunks(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Chunks of a PNG by name, with the content of those that are read.

    Raises:
        ValueError: If one claims to extend beyond the end of the file: libpng would allocate up to 2 GiB.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(PNG_SIGNATURE_BYTES)
        while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
            length, name = int.from_bytes(head[:4], "big"), head[4:]
            if length > size - file.tell():
                msg = f"{path}: file must be a whole PNG, got one of {size} bytes with a chunk of {length}"
                raise ValueError(msg)
            read = length if name in CHUNKS_READ and length <= MAX_CHUNK else 0
            yield name, file.read(read)
            file.seek(length - read + 4, SEEK_CUR)  # and its checksum


def _exif_orientation(exif: bytes) -> int:
    """Orientation in EXIF data; 1 if there is none, or they are broken, as viewers have it."""
    from PIL.Image import Exif

    found = Exif()
    try:
        found.load(exif)
        return int(found.get(ORIENTATION, 1))
    except Exception:  # as for files
        return 1


def _jpeg_orientation(path: Path) -> int:
    from PIL.JpegImagePlugin import JpegImageFile

    try:
        with JpegImageFile(path) as image:
            return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # ITK will tell if more than the EXIF is broken
        return 1
