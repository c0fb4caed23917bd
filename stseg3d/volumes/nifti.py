"""NIfTI files: plain ones memory-mapped, compressed ones inflated once, both checked to the last byte."""

from __future__ import annotations

import logging
import struct
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from stseg3d.volumes.file import FileVolume, check_capacity, check_memory, grid_of_file, library_errors
from stseg3d.volumes.inflate import GzipVoxels, first_bytes
from stseg3d.volumes.volume import Array

logger = logging.getLogger(__name__)

# Deflate cannot shrink data further than this: https://zlib.net/zlib_tech.html
MAX_DEFLATE = 1032
# Size of a NIfTI-2 header; and the largest offset of the voxels: nibabel reads extensions before them into memory.
NIFTI2_BYTES, MAX_OFFSET = 540, 1 << 26
# The first bytes of a gzip file; and the marks of headers whose voxels are in another file.
GZIP, PAIRS = b"\x1f\x8b", {b"ni1", b"ni2", b"\0\0\0"}
# A quaternion may be this much longer than 1 by rounding, as ITK and FSL take any: it is half a turn, uncertain by a third of a degree.
LONG_QUATERNION = 5e-6
# Millimetres of the spatial units of NIfTI (metre, mm, micrometre); a unit not given is mm.
UNIT_MM = {1: 1000.0, 2: 1.0, 3: 0.001}


def open_nifti(path: Path, *, channels_last: bool = False) -> FileVolume:
    """Image in a ``.nii`` or ``.nii.gz`` file, of 1 to 3 dimensions.

    Args:
        path: The file.
        channels_last: Whether dimensions after the third are channels.

    Raises:
        ValueError: If it is not a NIfTI file, has a fourth dimension without ``channels_last``, or header and data do not fit.
    """
    packed = _first_bytes(path, len(GZIP)) == GZIP  # what it is named does not change what is in it
    header, affine, slope_inter = _read_header(path, packed=packed)
    shape = tuple(int(n) for n in header.get_data_shape())
    if not shape or min(shape) < 1:
        msg = f"{path}: header must give at least one voxel on each axis, got {shape}"
        raise ValueError(msg)
    extra = shape[3:]
    channels = int(np.prod(extra, dtype=object))
    if channels > 1 and not channels_last:
        msg = f"{path}: image must be 3-D, got {len(shape)}-D {shape}"
        raise ValueError(msg)
    grid = grid_of_file(shape[:3], affine, path)
    stored, offset = header.get_data_dtype(), int(header["vox_offset"])
    n_bytes = int(np.prod(shape, dtype=object)) * stored.itemsize
    check_capacity(path, offset + n_bytes, path.stat().st_size, MAX_DEFLATE if packed else 1)
    if packed:
        check_memory(path, n_bytes)
    where = (path, offset, stored, (*grid.shape, channels))
    load, inflate = partial(_mapped, *where), None
    if packed:
        load, inflate = partial(_inflated, *where), partial(GzipVoxels, *where)
    if packed != (path.suffix.lower() == ".gz"):
        logger.warning("%s: file is %s, whatever its name says", path, "compressed" if packed else "not compressed")
    return FileVolume(path, grid, stored=stored, channels=channels, load=load, inflate=inflate, slope_inter=slope_inter, header=header)


def _read_header(path: Path, *, packed: bool) -> tuple[Any, Any, tuple[float, float]]:
    """Header, affine, and slope and intercept of the stored values."""
    with library_errors(path, "a sound NIfTI file"):
        kind, offset = _kind_of(_first_bytes(path, NIFTI2_BYTES, packed=packed))
        header = kind.from_fileobj(BytesIO(_first_bytes(path, max(offset, NIFTI2_BYTES), packed=packed)), check=False)
        spacing = header["pixdim"][1:4].tolist()  # nibabel makes 0 to 1, and drops signs
        header.check_fix()
        if header["sform_code"] == 0:
            _check_spacing(spacing, header.get_data_shape())
            if header["qform_code"] != 0:
                _mend_quaternion(header)
        affine, (slope, inter) = header.get_best_affine(), header.get_slope_inter()
        header["vox_offset"] = header.get_data_offset()
    unit = UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    affine[:3] *= unit
    return header, affine, (1.0 if slope is None else float(slope), 0.0 if inter is None else float(inter))


def _first_bytes(path: Path, count: int, *, packed: bool = False) -> bytes:
    if packed:
        return first_bytes(path, count)
    with path.open("rb") as file:
        return file.read(count)


def _kind_of(head: bytes) -> tuple[Any, int]:
    """Nibabel's class of the header, and the offset of the voxels.

    Raises:
        ValueError: If it is none of a single NIfTI file, or its voxels begin nowhere, or so late that nibabel would read gigabytes.
    """
    import nibabel as nib

    if head[:2] == GZIP:
        msg = "file must be compressed once, got one that is compressed twice: unpack it once, by gunzip"
        raise ValueError(msg)
    for kind, size, at, code in ((nib.Nifti1Header, 348, 108, "f"), (nib.Nifti2Header, NIFTI2_BYTES, 168, "q")):
        for order in "<>":
            if len(head) >= size and struct.unpack_from(f"{order}i", head)[0] == size:
                offset = struct.unpack_from(order + code, head, at)[0]
                if not 0 <= offset <= MAX_OFFSET:
                    msg = f"vox_offset must be 0 to {MAX_OFFSET}, got {offset:g}"
                    raise ValueError(msg)
                magic = head[344:347] if size == 348 else head[4:7]
                if magic not in {b"n+1", b"n+2"}:
                    pair = " of a pair .hdr and .img, or of an Analyze file: make one NIfTI file of both" if magic in PAIRS else ""
                    msg = f"header must have the mark n+1 or n+2, got {magic!r}{pair}"
                    raise ValueError(msg)
                return kind, int(offset)
    msg = f"file must begin with a header of 348 or 540 bytes, got {len(head)} bytes, {head[:16]!r}"
    raise ValueError(msg)


def _check_spacing(spacing: list[float], shape: tuple[int, ...]) -> None:
    """Refuse a spacing of which each library makes something else; that of an axis of one voxel may be 0."""
    if any(not 0 <= mm < np.inf or (mm == 0 and n > 1) for mm, n in zip(spacing, (*shape, 1, 1), strict=False)):
        msg = f"pixdim must be above 0 along each axis, got {tuple(spacing)}"
        raise ValueError(msg)


def _mend_quaternion(header: Any) -> None:
    """Shorten the qform's quaternion to 1 if rounding made it longer, which nibabel refuses."""
    quaternion = np.array([header[f"quatern_{axis}"] for axis in "bcd"], dtype=np.float64)
    length = float(np.linalg.norm(quaternion))
    if not length <= 1 + LONG_QUATERNION:
        msg = f"qform must have a quaternion (quatern_b, _c, _d) no longer than 1, got {quaternion.tolist()}, of length {length:.7g}"
        raise ValueError(msg)
    if length > 1:
        for axis, value in zip("bcd", quaternion / length, strict=True):
            header[f"quatern_{axis}"] = value


def _mapped(path: Path, offset: int, stored: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    data: Array = np.memmap(path, dtype=stored, mode="r", offset=offset, shape=shape, order="F")
    return np.moveaxis(data, -1, 0)


def _inflated(path: Path, offset: int, stored: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    return GzipVoxels(path, offset, stored, shape).inflate()
