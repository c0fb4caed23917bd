"""Decoding of a TIFF's pages: mapped from the disk, or by SimpleITK, Pillow or tifffile, each where it gives the stored values.

* Pages that are uncompressed and contiguous are mapped.
* SimpleITK (2.5) is right for strips of grey or RGB(A), of whole bytes, upright. It silently rounds tiled and planar pages of 16 bits
  to 8, and takes the alpha of grey for pixels.
* Pillow (13) is right for pages of 8 bits or fewer, and for one channel of 16 or 32. It rounds RGB of 16 bits.
* Tifffile alone reads any that is uncompressed; with imagecodecs, which takes 80 MB and is not required, any at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from stseg3d.volumes.file import library_errors
from stseg3d.volumes.pictures.picture import ORIENTATION
from stseg3d.volumes.sitk import sitk_errors
from stseg3d.volumes.volume import Array

Load = Callable[[], Array]

# TIFF 6.0, tag 262; 1 is grey whose zero is black.
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
GREY = (WHITE_IS_ZERO, BLACK_IS_ZERO)
# Tag 259: none, LZW, JPEG, deflate, PackBits.
UNCOMPRESSED, JPEG = 1, 7
SITK_COMPRESSIONS = (UNCOMPRESSED, 5, 8, 32946, 32773)
SITK_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32")
# Pillow's method of Image.transpose that undoes each orientation of EXIF.
TURNED_BACK = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
PILLOW_COMPRESSIONS = (*SITK_COMPRESSIONS, JPEG, 2, 3, 4, 34925, 50000)  # and of faxes, LZMA, Zstandard
PILLOW_TYPES = ("uint16", "uint32", "int32", "float32")


@dataclass(frozen=True)
class Stack:
    """Pages of one image.

    Args:
        path: The file.
        pages: Its pages, as tifffile has them, in the order of ``axes``; one alone may stand for contiguous pages after it.
        subfiles: Values of NewSubfileType of all pages in the file, in its order; None where a page has none.
        shape: Shape of all pixels.
        axes: Letter of each axis, as tifffile has them.
        stored: Type of the pixels, in the byte order of the file.
        offset: Where the pixels begin, if all are contiguous after one page; None: see each page.
    """

    path: Path
    pages: tuple[Any, ...]
    subfiles: tuple[int | None, ...]
    shape: tuple[int, ...]
    axes: str
    stored: np.dtype[Any]
    offset: int | None = None

    @property
    def indices(self) -> tuple[int, ...]:
        """Number of each page in the file."""
        return tuple(page.index for page in self.pages)


def load_of(stack: Stack) -> Load:
    """Function that returns the pixels of a stack, of ``stack.shape``, as stored: not upright, zero white where the file has it so.

    Pixels of fewer than 8 bits are an exception: they are spread over 0 to 255, zero is black, and indices of palettes stay. CMYK and YCbCr
    become RGB.

    Raises:
        ValueError: If no library reads them right.
    """
    page, shape = stack.pages[0], stack.shape
    is_plain = page.photometric in (*GREY, RGB, PALETTE) and page.bitspersample == 8 * stack.stored.itemsize
    offset = _offset(stack) if is_plain else None
    if offset is not None:
        return partial(_mapped, stack.path, offset, stack.stored, shape)
    if prod(shape) == prod(page.shape) * len(stack.pages) or page.photometric == CMYK:
        if is_plain and _sitk_reads(stack):
            return partial(_load_with_sitk, stack.path, stack.indices, shape)
        by_tifffile = partial(_load_with_tifffile, stack.path, stack.indices, shape)
        if is_plain and all(p.compression == UNCOMPRESSED for p in stack.pages):
            return by_tifffile
        if _pillow_reads(stack):
            return partial(_load_with_pillow, stack.path, stack.indices, page.axes, shape, stack.stored.newbyteorder("="))
        if is_plain and find_spec("imagecodecs"):
            return by_tifffile
    packing, colours = (getattr(kind, "name", kind) for kind in (page.compression, page.photometric))
    kind = f"{page.samplesperpixel} x {page.bitspersample} bits, {'tiles' if page.is_tiled else 'strips'}"
    kind += f", compression {packing}, colours {colours}"
    msg = f"{stack.path}: TIFF must be of a kind that can be read right, got {kind}"
    msg += ": save it uncompressed and in whole bytes, or `pip install imagecodecs`"
    raise ValueError(msg)


def orientation_of(page: Any) -> int:
    """EXIF's orientation of a page; 1 if it has none."""
    found = page.tags.get(ORIENTATION)
    return int(found.value) if found is not None and isinstance(found.value, int) else 1


def _offset(stack: Stack) -> int | None:
    """Where the pixels begin, if all are uncompressed and contiguous."""
    if stack.offset is not None:
        return stack.offset
    first = stack.pages[0]
    if prod(stack.shape) != prod(first.shape) * len(stack.pages) or not first.dataoffsets:
        return None
    start = int(first.dataoffsets[0])
    contiguous = all(p.is_final and p.dataoffsets[0] == start + n * first.nbytes for n, p in enumerate(stack.pages))
    return start if contiguous else None


def _sitk_reads(stack: Stack) -> bool:
    page = stack.pages[0]
    samples = page.samplesperpixel
    colours = (page.photometric in GREY and samples == 1) or (page.photometric == RGB and samples in (3, 4) and page.axes == "YXS")
    packed = all(p.compression in SITK_COMPRESSIONS or (p.compression == JPEG and samples == 1) for p in stack.pages)
    upright = orientation_of(page) == 1 and not any(p.is_tiled for p in stack.pages)
    # ITK miscounts the pages of a file that marks only some as copies, and writes beyond its buffer.
    selected = len(set(stack.indices)) == len(stack.subfiles) and len(set(stack.subfiles)) == 1
    return colours and packed and upright and selected and stack.stored.name in SITK_TYPES


def _pillow_reads(stack: Stack) -> bool:
    if not all(p.compression in PILLOW_COMPRESSIONS for p in stack.pages):
        return False
    page = stack.pages[0]
    bits, samples, name = page.bitspersample, page.samplesperpixel, str(page.dtype)
    if page.axes == "SYX" and (page.photometric != RGB or samples != 3):  # Pillow 13 leaves out a plane of alpha
        return False
    if bits <= 8:
        return name in ("bool", "uint8", "None") and samples <= 4 and page.photometric in (*GREY, RGB, PALETTE, CMYK, YCBCR)
    little = stack.stored.str[0] != ">" or name == "uint16"  # Pillow 13 does not swap the bytes of others
    return name in PILLOW_TYPES and bits == 8 * page.dtype.itemsize and samples == 1 and page.photometric in GREY and little


def _mapped(path: Path, offset: int, stored: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    with library_errors(path, "a sound TIFF"):  # it may have become shorter
        return np.memmap(path, dtype=stored, mode="r", offset=offset, shape=shape)


def _load_with_sitk(path: Path, indices: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    import SimpleITK

    with sitk_errors(path):
        array: Array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    if array.size != prod(shape):
        msg = f"{path}: file must be a sound TIFF, got {array.size} values for {prod(shape)}"
        raise ValueError(msg)
    array = array if list(indices) == sorted(indices) else array[list(indices)]
    return array.reshape(shape)


def _load_with_pillow(path: Path, indices: tuple[int, ...], axes: str, shape: tuple[int, ...], stored: np.dtype[Any]) -> Array:
    from PIL.TiffImagePlugin import TiffImageFile

    with library_errors(path, "a sound TIFF"), TiffImageFile(path) as image:
        pages = np.stack([_page_of(image, index, axes) for index in indices]).reshape(shape)
        return pages.view(stored) if pages.itemsize == stored.itemsize else pages.astype(stored)


def _page_of(image: Any, index: int, axes: str) -> Array:
    """One page as stored, its samples where ``axes`` has them."""
    image.seek(index)
    orientation = image.getexif().get(ORIENTATION, 1)
    image.load()  # which turns it upright
    turned = image.transpose(TURNED_BACK[orientation]) if orientation in TURNED_BACK else image
    array = np.asarray(turned.convert("RGB") if turned.mode in ("CMYK", "YCbCr") else turned)
    array = array.astype(np.uint8) * 255 if array.dtype == np.bool_ else array.astype(array.dtype.newbyteorder("="), copy=False)
    return np.moveaxis(array, -1, 0) if axes == "SYX" else array


def _load_with_tifffile(path: Path, indices: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    import tifffile

    with library_errors(path, "a sound TIFF"), tifffile.TiffFile(path, _multifile=False) as tiff:
        return np.stack([tiff.pages[index].asarray() for index in indices]).reshape(shape)
