"""Images that SimpleITK reads: NRRD, MetaImage, single DICOM files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from stseg3d.volumes.file import FileVolume, check_capacity, check_memory, grid_of_file
from stseg3d.volumes.text_headers import check_header
from stseg3d.volumes.volume import LPS_RAS, Array

DIMENSIONS = range(2, 6)
# Deflate, of NRRD, MetaImage and PNG, unpacks a byte to 1032 at most; JPEG to about 1400.
MAX_UNPACKED = 2048
# By name, not by content, which ITK would go by: the header is checked as that of its name.
READERS = {".mha": "MetaImageIO", ".mhd": "MetaImageIO", ".nrrd": "NrrdImageIO", ".nhdr": "NrrdImageIO"}


def open_sitk(path: Path, *, channels_last: bool = False) -> FileVolume:
    """Image in a file that SimpleITK reads.

    Args:
        path: The file.
        channels_last: Whether the fourth dimension counts channels.

    Raises:
        ValueError: If the file is broken, or has more than three dimensions.
    """
    reader = image_reader(path)
    size = reader.GetSize()
    extra = int(np.prod(size[3:], dtype=object))
    if extra > 1 and not channels_last:
        msg = f"{path}: image must be 3-D, got {len(size)}-D {tuple(size)}"
        raise ValueError(msg)
    grid = grid_of_file(tuple(size[:3]), itk_affine(reader), path)
    components = reader.GetNumberOfComponents()
    stored = stored_dtype(reader.GetPixelID(), path)
    check_memory(path, grid.box.voxels * components * extra * stored.itemsize)
    load = partial(load_sitk, path, (components * extra, *grid.shape))
    return FileVolume(path, grid, stored=stored, channels=components * extra, load=load)


def image_reader(path: Path) -> Any:
    """SimpleITK's reader of the file, its header read.

    Raises:
        ValueError: If it cannot be read, is too short for the size in its header, or its voxels are no numbers.
    """
    import SimpleITK

    held = check_header(path)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(READERS.get(path.suffix.lower(), ""))
    with sitk_errors(path):
        reader.ReadImageInformation()
    size = reader.GetSize()
    if len(size) not in DIMENSIONS or min(size) < 1:
        msg = f"{path}: file must have {DIMENSIONS[0]} to {DIMENSIONS[-1]} axes of at least one voxel, got {tuple(size)}"
        raise ValueError(msg)
    needed = prod(size) * reader.GetNumberOfComponents() * stored_dtype(reader.GetPixelID(), path).itemsize
    if held:
        check_capacity(path, needed, held.n_bytes, MAX_UNPACKED if held.packed else 1)
    return reader


@contextmanager
def sitk_errors(path: Path) -> Iterator[None]:
    """Context in which errors of SimpleITK become one sentence on the file.

    Raises:
        ValueError: On a ``RuntimeError``.
    """
    try:
        yield
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        # ITK guesses the system's reason: for a truncated MetaImage it says that there is no such file.
        telling = [line for line in lines if line and not line.startswith("Reason:")]
        msg = f"{path}: file must be a sound image, got: {telling[-1] if telling else 'no reason'}"
        raise ValueError(msg) from error


def itk_affine(image: Any, direction: Any = None) -> Array:
    """Affine, RAS+ and of three axes, of a reader or image of SimpleITK; or of an image of ITK, whose ``direction`` has another type."""
    spacing = np.array(image.GetSpacing())
    n = len(spacing)
    affine = np.eye(max(n, 3) + 1)
    affine[:n, :n] = np.reshape(image.GetDirection() if direction is None else direction, (n, n)) * spacing
    affine[:n, -1] = image.GetOrigin()
    keep = [0, 1, 2, max(n, 3)]
    lifted: Array = LPS_RAS @ affine[np.ix_(keep, keep)]
    return lifted


def stored_dtype(pixel_id: int, path: Path) -> np.dtype[Any]:
    """Numpy type of a SimpleITK pixel type.

    Raises:
        ValueError: If the voxels are complex or run-length encoded labels.
    """
    import SimpleITK

    kinds = ("UInt8", "Int8", "UInt16", "Int16", "UInt32", "Int32", "UInt64", "Int64", "Float32", "Float64")
    names = {getattr(SimpleITK, f"sitk{vector}{kind}"): kind.lower() for kind in kinds for vector in ("", "Vector")}
    if pixel_id not in names:
        msg = f"{path}: voxels must be integers or real numbers, got {SimpleITK.GetPixelIDValueAsString(pixel_id)}"
        raise ValueError(msg)
    return np.dtype(names[pixel_id])


def channels_first(array: Array, components: int) -> Array:
    """Array ``(C, i, j, k)`` from SimpleITK's ``(k, j, i)`` or ``(k, j, i, C)``; a fourth space axis joins the channels."""
    if components == 1:
        array = array[..., None]
    turned = array.transpose(*range(array.ndim - 2, -1, -1), array.ndim - 1)
    return np.moveaxis(turned, -1, 0)


def read_image(path: Path) -> Any:
    """SimpleITK's image of a file that :func:`image_reader` took.

    Raises:
        ValueError: If it cannot be read.
    """
    import SimpleITK

    with sitk_errors(path):
        return SimpleITK.ReadImage(str(path), imageIO=READERS.get(path.suffix.lower(), ""))


def load_sitk(path: Path, shape: tuple[int, ...]) -> Array:
    """All voxels of a file, of ``shape``: channels (perhaps times a fourth axis), then space.

    Raises:
        ValueError: If the file is broken.
    """
    import SimpleITK

    image = read_image(path)
    array = channels_first(SimpleITK.GetArrayFromImage(image), image.GetNumberOfComponentsPerPixel())
    if array.ndim > len(shape):
        array = np.moveaxis(array, 4, 1)
    return array.reshape(shape, order="A")
