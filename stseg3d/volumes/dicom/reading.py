"""Opening a DICOM series and reading its voxels, slice by slice, without a copy of the whole."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stseg3d.machine.tables import abbreviated
from stseg3d.volumes.dicom.elements import sop_class
from stseg3d.volumes.dicom.headers import Header, HeaderReader, gdcm_reader
from stseg3d.volumes.dicom.kinds import kind_without_image
from stseg3d.volumes.dicom.series import Series, choose_series, read_series, volumes_of
from stseg3d.volumes.dicom.stack import stacked
from stseg3d.volumes.file import FileVolume, check_memory, grid_of_file
from stseg3d.volumes.sitk import channels_first, image_reader, itk_affine, sitk_errors, stored_dtype
from stseg3d.volumes.volume import Array

logger = logging.getLogger(__name__)

# CT fits into 16 bits, even if stored type and intercept would allow larger values and GDCM returns 32 bits.
INT16 = np.dtype(np.int16)


def open_series(folder: Path, *, series: str | None = None) -> FileVolume:
    """Image of the DICOM series in a folder, its slices in order of position along their normal.

    Scouts, screenshots and files that are not images are left out beside a volume, with a warning that lists them. Padding values, such as
    -2000 or -3024, are kept.

    Args:
        folder: The folder; not searched any deeper.
        series: Which of several series: its UID (``UID#2`` for the second volume under one UID), the beginning of its UID, or its
            description.

    Raises:
        ValueError: If the folder holds no series, or several that ``series`` does not choose from; if a file is broken; if slices are
            missing, duplicate or sheared by a tilted gantry. The message names them.
    """
    found, others = read_series(folder)
    chosen = choose_series(folder, found, series, others)
    rest = [one for one in found if one is not chosen]
    if rest or others:
        logger.warning("%s: took %s; left out %s", folder, chosen, abbreviated([*map(str, rest), *others]))
    return _volume(folder, chosen, [*(one.name for one in rest), *others])


def open_dicom(path: Path) -> FileVolume:
    """Image in one DICOM file: a slice, or the frames of one volume.

    Raises:
        ValueError: If it is broken, holds several volumes, or its frames are missing, duplicate or sheared.
    """
    kind = kind_without_image(sop_class(path))
    header = None if kind else HeaderReader().read(path)
    if header is None or (kind := kind_without_image(header.tags.get("SOPClassUID"))):
        msg = f"{path}: file must hold an image, got a {kind}"
        raise ValueError(msg)
    return _volume(path, choose_series(path, volumes_of([header]), None))


def _volume(path: Path, chosen: Series, left_out: Sequence[str] = ()) -> FileVolume:
    first = chosen.headers[0]
    if first.size[2] > 1:  # many frames without positions of their own, as GDCM places them
        ordered, affine = [first], itk_affine(image_reader(first.path))
    else:
        ordered, affine = stacked(chosen.headers, str(path))
    grid = grid_of_file((*first.size[:2], chosen.slices), affine, path)
    stored = np.result_type(*(header.dtype for header in ordered))
    check_memory(path, grid.box.voxels * first.components * stored.itemsize)
    load = partial(_load, tuple(ordered), (first.components, *grid.shape), stored)
    about = {"series": chosen.id, "description": chosen.description, "left_out": list(left_out)}
    return FileVolume(path, grid, stored=stored, channels=first.components, load=load, about=about)


def _load(headers: Sequence[Header], shape: tuple[int, ...], stored: np.dtype[Any]) -> Array:
    """All voxels, rescaled slice by slice, in 16 bits if they fit, even if the headers allow larger values."""
    # tests/benchmarks/bench_dicom.py --slices 500, 250 MiB of voxels, from folder to array: this takes 1.0 s and 252 MiB, 0.3 s of it for
    # the headers; SimpleITK's ImageSeriesReader, which checks less, 0.7 s and 752 MiB.
    components, columns, rows, depth = shape
    dtype = INT16 if stored.kind in "iu" and stored.itemsize > INT16.itemsize else stored
    array: Array = np.empty((depth, rows, columns, *([components] if components > 1 else [])), dtype)
    reader, at = gdcm_reader(), 0
    held, image, pixels = Path(), None, array
    for header in headers:
        if held != header.path:
            held, image = header.path, _image(reader, header)
            pixels = _view(image)  # a view of the image's memory, which must live as long
        part = pixels[header.frame : header.frame + 1] if header.frames > 1 else pixels
        if array.dtype != stored and not _fits(part):
            array = array.astype(stored)
        array[at : at + len(part)] = part
        at += len(part)
    return channels_first(array, components)


def _image(reader: Any, header: Header) -> Any:
    reader.SetFileName(str(header.path))
    with sitk_errors(header.path):
        image = reader.Execute()
    due = (*header.size[:2], max(header.size[2], header.frames)), header.components, header.dtype
    found = (*image.GetSize(), 1)[:3], image.GetNumberOfComponentsPerPixel(), stored_dtype(image.GetPixelID(), header.path)
    if found != due:
        told, got = (f"{size} voxels of {components} {dtype}" for size, components, dtype in (due, found))
        msg = f"{header.path}: file must hold what its header says, {told}, got {got}"
        raise ValueError(msg)
    return image


def _view(image: Any) -> Array:
    """Voxels of shape ``(frames, rows, columns)``, components last; not copied."""
    import SimpleITK

    array: Array = SimpleITK.GetArrayViewFromImage(image)
    return array if image.GetDimension() > 2 else array[None]


def _fits(array: Array) -> bool:
    """Whether all values can be held in 16 bits."""
    limits = np.iinfo(INT16)
    return bool(limits.min <= array.min() and array.max() <= limits.max)
