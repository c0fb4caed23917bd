"""TIFF: which pages belong together, and as what, by tifffile; :mod:`stseg3d.volumes.pictures.pages` reads their pixels."""

from __future__ import annotations

import logging
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from stseg3d.volumes.file import check_capacity, library_errors
from stseg3d.volumes.pictures.directories import check_directories
from stseg3d.volumes.pictures.pages import CMYK, PALETTE, WHITE_IS_ZERO, Load, Stack, load_of, orientation_of
from stseg3d.volumes.pictures.picture import Picture
from stseg3d.volumes.pictures.scale import spacing_of
from stseg3d.volumes.volume import Array

logger = logging.getLogger(__name__)

# TIFF 6.0, tag 259: JPEG old and new, then WebP and JPEG 2000, which may be lossless, but do not say so.
LOSSY = (6, 7, 33003, 33004, 33005, 34712, 34892, 50001)
# Bytes that one byte unpacks to at most: as stored, LZW (about 1400: 4095 values in 12 bits by 2), JPEG, deflate, PackBits.
MAX_UNPACKED = {1: 1, 5: 2048, 7: 2048, 8: 1032, 32946: 1032, 32773: 64}
MAX_UNPACKED_OTHERS = 1 << 16  # Zstandard: a block of 128 KiB in 4 bytes
FAX = (2, 3, 4)  # a white row takes one bit at least
# tifffile's letters of axes: channels and samples; slices, and pages of no stated meaning, which are taken for slices.
CHANNELS, SLICES, TIME = "CS", "ZIQ", "T"
# Kinds of series that tifffile groups by the likeness of pages alone.
BY_LIKENESS = ("uniform", "generic")


def open_tiff(path: Path, label: bool) -> Picture:
    """Image in a TIFF: the first of its metadata, if they are ImageJ's, OME's or another scheme's, else all pages as slices.

    Reduced copies, as in pyramids, are left out; smaller images that OME lists after the first are left out with a warning.

    Args:
        path: The file.
        label: Whether palettes give their indices.

    Raises:
        ValueError: If it is broken; holds several images, pages of several sizes, or several time points; or cannot be decoded.
    """
    import tifffile

    check_directories(path)
    with library_errors(path, "a sound TIFF"), tifffile.TiffFile(path, _multifile=False) as tiff:
        stack = _stack(path, tiff)
        _check_size(stack)
        page = stack.pages[0]
        load = load_of(stack)
        channels, shape = _arrangement(stack)
        stored, arranged = stack.stored.newbyteorder("="), partial(_arranged, load, stack.axes, (channels, *shape))
        if page.photometric == PALETTE and not label:
            colours = np.asarray(page.colormap)
            stored = np.dtype(np.uint8 if colours.max() < 256 else np.uint16)  # as ITK has it: old files have colours of 8 bits
            channels, arranged = len(colours), partial(_coloured, arranged, colours.astype(stored))
        few = page.bitspersample < 8 and page.photometric != PALETTE
        return Picture(
            shape,
            stored,
            channels,
            arranged,
            spacing_mm=spacing_of(path, tiff, page, shape[2]),
            orientation=orientation_of(page),
            lossy=any(p.compression in LOSSY for p in stack.pages),
            white_is_zero=not few and _is_white_zero(path, page),
            step=255 // ((1 << page.bitspersample) - 1) if few else 1,
        )


def _stack(path: Path, tiff: Any) -> Stack:
    """Pages of the first image."""
    pages = list(tiff.pages)
    whole = [p for p in pages if not (p.is_reduced or p.is_mask)] or pages
    series = tiff.series[0] if tiff.series else None
    described = (tiff.imagej_metadata or {}).get("images", 1)
    if series is None or (series.kind in BY_LIKENESS and (tiff.is_ome or (tiff.is_imagej and max(len(whole), described) > 1))):
        msg = f"{path}: file must hold the whole image that its metadata describe, got {len(pages)} pages that do not fit them"
        raise ValueError(msg)
    if series.kind in BY_LIKENESS:
        chosen, axes = whole, whole[0].axes
        shape = tuple(whole[0].shape)
        if len(whole) > 1:
            axes, shape = f"I{axes}", (len(whole), *shape)
    else:
        chosen, axes, shape = [pages[p.index] for p in series.pages], series.axes, tuple(series.shape)
        _check_others(path, whole, chosen, [p.index for level in series.levels for p in level.pages])
    page = chosen[0]
    _check_alike(path, chosen)
    if not all(isinstance(n, int) and n > 0 for n in (*shape, page.bitspersample)):
        msg = f"{path}: pages must have at least one pixel on each axis, got {shape} of {page.bitspersample} bits"
        raise ValueError(msg)
    if page.photometric == CMYK:  # Pillow makes RGB of it
        shape = tuple(3 if axis == "S" else n for axis, n in zip(axes, shape, strict=True))
    stored = np.dtype(np.uint8 if page.bitspersample < 8 else page.dtype or np.void).newbyteorder(tiff.byteorder)
    offset = series.dataoffset if len(chosen) == 1 and series.kind not in BY_LIKENESS else None
    return Stack(path, tuple(chosen), tuple(map(_subfile, pages)), shape, axes, stored, None if offset is None else int(offset))


def _subfile(page: Any) -> int | None:
    found = page.tags.get("NewSubfileType")
    return None if found is None else int(found.value)


def _check_alike(path: Path, pages: list[Any]) -> None:
    kinds = {(p.shape, str(p.dtype), p.bitspersample, p.photometric, p.axes, orientation_of(p)): p for p in pages}
    if len(kinds) > 1:
        got = " and ".join(f"{p.imagewidth} x {p.imagelength} of {p.dtype}" for p in list(kinds.values())[:2])
        msg = f"{path}: pages must be of one size and kind to be slices, got {got}: save the one that is meant"
        raise ValueError(msg)


def _check_others(path: Path, whole: list[Any], chosen: list[Any], known: list[int]) -> None:
    """Refuse a file with other images as large as the chosen one; warn of smaller ones, such as thumbnails."""
    others = [p for p in whole if p.index not in known]
    if any(prod(p.shape) >= prod(chosen[0].shape) for p in others):
        msg = f"{path}: file must hold one image, got {len(others)} further pages of its size: save each image in a file of its own"
        raise ValueError(msg)
    if others:
        logger.warning("%s: %d pages of smaller images are left out", path, len(others))


def _check_size(stack: Stack) -> None:
    """Refuse a file that cannot hold the pixels which its directories describe, before anything is allocated."""
    page, n_bytes = stack.pages[0], stack.path.stat().st_size
    ratio = page.imagewidth if page.compression in FAX else MAX_UNPACKED.get(page.compression, MAX_UNPACKED_OTHERS)
    bits = page.bitspersample * max(prod(stack.shape), prod(page.chunks))
    check_capacity(stack.path, -(-bits // 8), n_bytes, ratio)
    if stack.offset is not None:
        check_capacity(stack.path, stack.offset + -(-bits // 8), n_bytes)
        return
    for p in stack.pages:
        starts, counts = p.dataoffsets, p.databytecounts
        if len(starts) != prod(p.chunked) or len(counts) != len(starts) or min(counts) < 1:
            msg = f"{stack.path}: file must hold all strips or tiles of page {p.index}, got {np.count_nonzero(counts)} of {prod(p.chunked)}"
            raise ValueError(msg)
        check_capacity(stack.path, max(a + n for a, n in zip(starts, counts, strict=True)), n_bytes)


def _arrangement(stack: Stack) -> tuple[int, tuple[int, int, int]]:
    """Number of channels, and size along x, y and z.

    Raises:
        ValueError: If there are several time points, or an axis that is neither space nor channels.
    """
    sizes = dict.fromkeys("XYZ", 1)
    channels = 1
    for axis, n in zip(stack.axes, stack.shape, strict=True):
        key = "Z" if axis in SLICES else axis
        if axis in CHANNELS:
            channels *= n
        elif n > 1 and (key not in sizes or sizes[key] > 1):
            what = "time points must be one" if axis == TIME else "axes must be channels, slices, rows and columns"
            msg = f"{stack.path}: {what}, got {n} along {axis} of {stack.axes}: save each part in a file of its own"
            raise ValueError(msg)
        elif key in sizes:
            sizes[key] *= n
    return channels, (sizes["X"], sizes["Y"], sizes["Z"])


def _arranged(load: Load, axes: str, shape: tuple[int, ...]) -> Array:
    """Pixels of shape ``(C, x, y, z)``."""
    order = [n for key in (CHANNELS, "X", "Y") for n, axis in enumerate(axes) if axis in key]
    order += [n for n in range(len(axes)) if n not in order]
    return load().transpose(order).reshape(shape)


def _coloured(load: Load, colours: Array) -> Array:
    coloured: Array = colours[:, load()[0]]
    return coloured


def _is_white_zero(path: Path, page: Any) -> bool:
    if page.photometric != WHITE_IS_ZERO or "PhotometricInterpretation" not in page.tags:
        return False
    if page.dtype.kind != "u" or page.bitspersample != 8 * page.dtype.itemsize:
        msg = f"{path}: pixels whose zero is white must be unsigned and of whole bytes, got {page.bitspersample} bits of {page.dtype}"
        raise ValueError(msg)
    return True
