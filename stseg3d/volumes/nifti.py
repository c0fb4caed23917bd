"""NIfTI files: ``.nii`` memory-mapped, ``.nii.gz`` inflated once, both checked to the last byte."""

from __future__ import annotations

import struct
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stseg3d.volumes.file import FileVolume, check_capacity, check_memory, grid_of_file
from stseg3d.volumes.inflate import GzipVoxels
from stseg3d.volumes.volume import Array

# Deflate cannot shrink data further than this: https://zlib.net/zlib_tech.html
MAX_DEFLATE = 1032
# Size of a NIfTI-2 header; and the largest offset of the voxels: nibabel reads extensions before them into memory.
NIFTI2_BYTES, MAX_OFFSET = 540, 1 << 26
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
    header, affine, slope_inter = _read_header(path)
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
    _check_size(path, offset, n_bytes)
    where = (path, offset, stored, (*grid.shape, channels))
    load, inflate = partial(_mapped, *where), None
    if is_gzip(path):
        load, inflate = partial(_inflated, *where), partial(GzipVoxels, *where)
    return FileVolume(path, grid, stored=stored, channels=channels, load=load, inflate=inflate, slope_inter=slope_inter, header=header)


def _read_header(path: Path) -> tuple[Any, Any, tuple[float, float]]:
    """Header, affine, and slope and intercept of the stored values."""
    import nibabel as nib
    from nibabel.openers import ImageOpener

    try:
        _check_offset(path, ImageOpener)
        image: Any = nib.load(path)
        with ImageOpener(path) as file:
            unmended = type(image.header).from_fileobj(file, check=False)
        # Nibabel removes the scaling from the image's header; the header on disk has it.
        slope, inter = image.dataobj.slope, image.dataobj.inter
        header, affine = image.header.copy(), image.affine.copy()
        header["vox_offset"] = image.dataobj.offset
    except Exception as error:  # for broken headers nibabel raises many kinds of errors, such as OverflowError and AttributeError
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        msg = f"{path}: file must be a sound NIfTI file, got: {reason}"
        raise ValueError(msg) from error
    if not isinstance(header, nib.Nifti1Header):
        msg = f"{path}: file must be a NIfTI file, got {type(image).__name__}"
        raise ValueError(msg)
    spacing, shape = unmended["pixdim"][1:4].tolist(), (*header.get_data_shape(), 1, 1)
    if header["sform_code"] == 0 and any(s == 0 and n > 1 for s, n in zip(spacing, shape, strict=False)):  # nibabel would use 1 mm
        msg = f"{path}: pixdim must not be 0 along an axis, got {tuple(spacing)}"
        raise ValueError(msg)
    unit = UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    affine[:3] *= unit
    return header, affine, (float(slope), float(inter))


def is_gzip(path: Path) -> bool:
    """Whether the file's name is that of a compressed file."""
    return path.suffix.lower() == ".gz"


def _check_size(path: Path, offset: int, n_bytes: int) -> None:
    """Refuse a file that cannot hold what its header asks for, before anything is read."""
    packed = is_gzip(path)
    check_capacity(path, offset + n_bytes, path.stat().st_size, MAX_DEFLATE if packed else 1)
    if packed:
        check_memory(path, n_bytes)


def _check_offset(path: Path, opener: Any) -> None:
    """Refuse a header whose offset is invalid, or so large that nibabel would read gigabytes of extensions."""
    with opener(path) as file:
        head = file.read(NIFTI2_BYTES)
    for size, at, kind in ((348, 108, "f"), (NIFTI2_BYTES, 168, "q")):
        for order in "<>":
            if len(head) >= size and struct.unpack_from(f"{order}i", head)[0] == size:
                offset = struct.unpack_from(order + kind, head, at)[0]
                if not 0 <= offset <= MAX_OFFSET:
                    msg = f"vox_offset must be 0 to {MAX_OFFSET}, got {offset:g}"
                    raise ValueError(msg)


def _mapped(path: Path, offset: int, stored: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    data: Array = np.memmap(path, dtype=stored, mode="r", offset=offset, shape=shape, order="F")
    return np.moveaxis(data, -1, 0)


def _inflated(path: Path, offset: int, stored: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    return GzipVoxels(path, offset, stored, shape).inflate()
