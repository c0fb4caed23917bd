"""Writing label maps and probabilities on an exact grid, whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from stseg3d.geometry import Grid
from stseg3d.machine.files import atomic_write
from stseg3d.volumes.open import lifted_affine, volume_suffix
from stseg3d.volumes.volume import LPS_RAS, Array, Volume

try:  # not on every processor
    from isal.igzip import IGzipFile as GzipFile
except ImportError:
    from gzip import GzipFile

# tests/benchmarks/bench_writing.py, an aorta on 512 x 512 x 300, processor time: isal 0.012 s, 135 kB; zlib 0.109 s, 397 kB at this level
# and 0.216 s, 97 kB at level 6; SimpleITK 0.076 s, 97 kB; a packer of our own, which wrote each piece of zeros once, 0.037 s, 148 kB.
GZIP_LEVEL = 1
WRITE_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")


def write_labels(labels: Array, path: Path | str, like: Volume | Grid) -> Path:
    """File with a label map on the grid of an image, in the smallest unsigned type that holds the labels.

    If the image is NIfTI, its shape (also of depth 1, also 2-D), qform and sform with their codes, units and description are kept.

    Args:
        labels: Integers from 0, on the grid of ``like``, in its axis order.
        path: ``.nii.gz``, ``.nii``, ``.nrrd`` or ``.mha``; written whole or not at all.
        like: The image, or its grid.

    Raises:
        ValueError: If the labels are not integers from 0 or not on that grid, or the suffix is another.
        OSError: If it cannot be written; nothing is left behind then.
    """
    labels = np.asarray(labels)
    dtype = _label_dtype(labels)
    labels = _on_grid(labels, like if isinstance(like, Grid) else like.grid, "labels")
    return _write(labels, dtype, Path(path), like)


def _label_dtype(labels: Array) -> np.dtype[Any]:
    """Smallest unsigned type that holds the labels; 8-bit labels are not searched."""
    if labels.dtype in (np.uint8, np.bool_):
        return np.dtype(np.uint8)
    integers = labels.dtype.kind in "iu"
    least, most = (int(labels.min()), int(labels.max())) if integers and labels.size else (0, 0)
    if not integers or least < 0 or most >= 2**32:
        msg = f"labels must be integers from 0 to {2**32 - 1}, got {f'{least} to {most}' if integers else labels.dtype}"
        raise ValueError(msg)
    return np.min_scalar_type(most)


def write_probabilities(probabilities: Array, path: Path | str, like: Volume | Grid) -> Path:
    """NIfTI file of 4 dimensions, float32, with one probability per class, ``(K, *S)``, on the grid of an image.

    Raises:
        ValueError: If the array is not on that grid, or the suffix is not that of NIfTI.
        OSError: If it cannot be written; nothing is left behind then.
    """
    grid = like if isinstance(like, Grid) else like.grid
    if not str(path).lower().endswith((".nii", ".nii.gz")):
        msg = f"{path}: probabilities are written as .nii.gz or .nii only"
        raise ValueError(msg)
    probabilities = np.asarray(probabilities)
    for one in probabilities:
        _on_grid(one, grid, "probabilities")
    classes_last = np.moveaxis(probabilities.reshape(-1, *grid.shape), 0, -1)
    return _write(classes_last, np.dtype(np.float32), Path(path), like)


def ensure_writable(folder: Path | str) -> Path:
    """The folder, made if needed, after checking that files can be made in it; call this before long work.

    Raises:
        OSError: If it cannot be made or written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        msg = f"{folder}: output folder must be writable, got: {error.strerror or error}"
        raise type(error)(msg) from error
    return folder


def _on_grid(array: Array, grid: Grid, name: str) -> Array:
    """Array in the grid's shape; trailing axes of one voxel may be missing or surplus."""
    array = np.asarray(array)
    shape = list(array.shape)
    while len(shape) > grid.ndim and shape[-1] == 1:
        shape.pop()
    shape += [1] * (grid.ndim - len(shape))
    if tuple(shape) != grid.shape:
        msg = f"{name} must be of shape {grid.shape}, as the image they belong to, got {array.shape}"
        raise ValueError(msg)
    return array.reshape(shape)


def _write(array: Array, dtype: np.dtype[Any], path: Path, like: Volume | Grid) -> Path:
    suffix = volume_suffix(path).lower()
    if suffix not in WRITE_SUFFIXES:
        msg = f"{path}: file type must be one of {', '.join(WRITE_SUFFIXES)}, got {suffix or path.suffix or 'none'!r}"
        raise ValueError(msg)
    with atomic_write(path) as temporary:
        if suffix in (".nrrd", ".mha"):
            _write_sitk(array.astype(dtype, copy=False), temporary, like if isinstance(like, Grid) else like.grid)
        else:
            _write_nifti(array, temporary, _header(array.shape, dtype, like), compress=suffix == ".nii.gz")
    return path


def _header(of: tuple[int, ...], dtype: np.dtype[Any], like: Volume | Grid) -> Any:
    """NIfTI header for an array of shape ``of``, in the byte order of this machine's files: little endian."""
    import nibabel as nib

    source = getattr(like, "header", None)
    if isinstance(source, nib.Nifti1Header):
        header: Any = source.as_byteswapped("<")
        shape = tuple(int(n) for n in source.get_data_shape())
        space = shape if int(np.prod(shape)) == int(np.prod(of[:3])) else shape[:3]
    else:
        grid = like if isinstance(like, Grid) else like.grid
        header, space = nib.Nifti1Header(), grid.shape
        header.set_data_shape(space)
        header.set_sform(lifted_affine(grid.affine), code=1)
        header.set_qform(lifted_affine(grid.affine), code=1)
        header.set_xyzt_units("mm")
    extra, pixdim = of[3:], header["pixdim"].copy()
    header.set_data_shape((*(*space, 1, 1)[:3], *extra) if extra else space)
    header["pixdim"] = pixdim  # setting a 2-D shape resets the other spacings to 1
    header.set_data_dtype(dtype)
    for key in ("intent_code", "cal_min", "cal_max", "glmin", "glmax", "slice_end"):
        if key in header.keys():  # noqa: SIM118  # a nibabel header is not a dict
            header[key] = 0
    header["intent_name"] = b""
    header["magic"] = b"n+1" if header["magic"].item()[:3] in (b"n+1", b"ni1") else header["magic"]
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["vox_offset"] = int(header["sizeof_hdr"]) + 4
    return header


def _write_nifti(array: Array, path: Path, header: Any, *, compress: bool) -> None:
    with path.open("wb") as file:
        if compress:
            with GzipFile(filename="", mode="wb", compresslevel=GZIP_LEVEL, fileobj=file, mtime=0) as gzip:
                _write_stream(array, gzip.write, header)
        else:
            _write_stream(array, file.write, header)


def _write_stream(array: Array, write: Callable[[Any], Any], header: Any) -> None:
    write(header.binaryblock + bytes(4))
    little = header.get_data_dtype().newbyteorder("<")  # plane by plane, without a copy of the whole in the type of the file
    for index in np.ndindex(*array.shape[:1:-1]):  # the last axis is the slowest in the file
        plane = array[(..., *index[::-1])].astype(little, copy=False)
        write(np.ascontiguousarray(plane.T).reshape(-1).view(np.uint8))


def _write_sitk(array: Array, path: Path, grid: Grid) -> None:
    import SimpleITK

    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.T))
    affine = LPS_RAS @ lifted_affine(grid.affine)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    try:
        SimpleITK.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:
        msg = f"{path}: file must be writable, got: {str(error).splitlines()[-1]}"
        raise OSError(msg) from error
