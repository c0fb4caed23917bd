"""A DICOM series: one folder, many files, one volume."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from stseg3d.volumes.file import FileVolume, check_memory, grid_of_file
from stseg3d.volumes.sitk import channels_first, image_reader, itk_affine, stored_dtype, unsound
from stseg3d.volumes.volume import LPS_RAS, Array

# A slice may lie this part of a slice distance off its place: scanners round positions, and a missing slice is off by a whole one.
MAX_UNEVEN = 0.1


def open_series(folder: Path, *, series: str | None = None) -> FileVolume:
    """Image of the DICOM series in a folder, its slices in order of position.

    Args:
        folder: The folder; not searched any deeper.
        series: UID of the series to take, where there are several.

    Raises:
        ValueError: If the folder holds no series, or several and ``series`` names none of them, or slices are missing.
    """
    files = _files(folder, series)
    first = image_reader(Path(files[0]))
    size = first.GetSize()
    if len(size) != 3 or (len(files) > 1 and size[2] != 1):
        msg = f"{folder}: DICOM files of one series must be slices of one image, got {len(files)} files of size {tuple(size)}"
        raise ValueError(msg)
    affine = itk_affine(first, 3)
    if len(files) > 1:
        affine[:3, 2] = _slice_step(files, affine, folder)
    grid = grid_of_file((*size[:2], size[2] * len(files)), affine, folder)
    components = first.GetNumberOfComponents()
    stored = stored_dtype(first.GetPixelID(), folder)
    check_memory(folder, grid.box.voxels * components * stored.itemsize)
    load = partial(_load, folder, tuple(files), (components, *grid.shape))
    return FileVolume(folder, grid, stored=stored, channels=components, load=load)


def _files(folder: Path, series: str | None) -> list[str]:
    import SimpleITK

    found = SimpleITK.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not found:
        msg = f"{folder}: folder must hold a DICOM series, got none"
        raise ValueError(msg)
    if series is None and len(found) > 1:
        msg = f"{folder}: folder must hold one DICOM series, got {len(found)}; choose one with series=: {', '.join(found)}"
        raise ValueError(msg)
    if series is not None and series not in found:
        msg = f"{folder}: series must be one of {', '.join(found)}, got {series!r}"
        raise ValueError(msg)
    return list(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series or found[0]))


def _slice_step(files: list[str], affine: Array, folder: Path) -> Array:
    """From one slice to the next, in mm RAS+, once they are known to be evenly spaced."""
    origins = np.array([image_reader(Path(file)).GetOrigin() for file in files]) * LPS_RAS.diagonal()[:3]
    step: Array = (origins[-1] - origins[0]) / (len(files) - 1)
    apart = np.linalg.norm(origins - origins[0] - np.arange(len(files))[:, None] * step, axis=1)
    if apart.max() > MAX_UNEVEN * np.linalg.norm(step):
        gaps = np.linalg.norm(np.diff(origins, axis=0), axis=1)
        msg = f"{folder}: slices must be evenly spaced, got distances of {gaps.min():.3f} to {gaps.max():.3f} mm"
        raise ValueError(msg)
    return step


def _load(folder: Path, files: tuple[str, ...], shape: tuple[int, ...]) -> Array:
    import SimpleITK

    try:
        image = SimpleITK.ReadImage(list(files))
    except RuntimeError as error:
        raise ValueError(unsound(folder, error)) from error
    return channels_first(SimpleITK.GetArrayFromImage(image), image.GetNumberOfComponentsPerPixel()).reshape(shape, order="A")
