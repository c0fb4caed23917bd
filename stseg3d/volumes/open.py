"""Opening images: a path of any known kind, an array, a tensor, or another library's image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stseg3d.geometry import Grid
from stseg3d.volumes.channels import StackedVolume
from stseg3d.volumes.dicom import open_dicom, open_series
from stseg3d.volumes.dicom.kinds import DICOM_SUFFIXES
from stseg3d.volumes.dicom.segments import open_segments, segmentation_at
from stseg3d.volumes.nifti import open_nifti
from stseg3d.volumes.pictures import PICTURE_SUFFIXES, open_picture
from stseg3d.volumes.segmentation import SEGMENTATION_SUFFIXES, open_segmentation, paste_onto
from stseg3d.volumes.sitk import channels_first, itk_affine, open_sitk
from stseg3d.volumes.volume import LPS_RAS, Array, ArrayVolume, Volume

NIFTI_SUFFIXES = (".nii", ".nii.gz")
SITK_SUFFIXES = (*SEGMENTATION_SUFFIXES, ".nrrd", ".nhdr", ".mha", ".mhd")
# A file or the folder of a DICOM series; or several, which hold the channels of one image.
Source = Path | tuple[Path, ...]
SUFFIXES = NIFTI_SUFFIXES + SITK_SUFFIXES + DICOM_SUFFIXES + PICTURE_SUFFIXES


def volume_suffix(path: Path) -> str:
    """Known suffix of a volume's file name, in its own case; empty if there is none."""
    name = path.name
    found = max((s for s in SUFFIXES if name.lower().endswith(s) and len(name) > len(s)), key=len, default="")
    return name[len(name) - len(found) :] if found else ""


def is_volume_file(path: Path | str) -> bool:
    """Whether the file exists and is named as a volume, such as ``ct.nii.gz``."""
    return bool(volume_suffix(Path(path))) and Path(path).is_file()


def open_volume(source: object, *, channels_last: bool = False, series: str | None = None) -> Volume:
    """Image at a path, or in an object that :func:`as_volume` takes; only the header of a file is read.

    Args:
        source: A NIfTI, NRRD, MetaImage, DICOM or picture file, the folder of a DICOM series, or an object; or a list of paths, of files on
            one grid that hold the channels of the image in this order.
        channels_last: Whether the fourth dimension of a file counts channels; without it such a file is refused.
        series: Which DICOM series of a folder that holds several: its UID, the beginning of its UID, or its description.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is broken or not a volume, or files do not lie on one grid.
    """
    if isinstance(source, (list, tuple)) and source:
        opened = [open_volume(path, channels_last=channels_last, series=series) for path in source]
        return StackedVolume(opened) if len(opened) > 1 else opened[0]
    if not isinstance(source, (str, Path)):
        return as_volume(source)
    path = Path(source)
    if path.is_dir():
        return open_series(path, series=series)
    if not path.is_file():  # a pipe may wait for ever
        found = "a pipe or a device" if path.exists() else "a link that leads nowhere" if path.is_symlink() else "none"
        msg = f"{path}: file must exist, got {found}"
        raise FileNotFoundError(msg)
    if series is not None:
        msg = f"{path}: series must be left out for what is no folder of DICOM files, got {series!r}"
        raise ValueError(msg)
    return _open_file(path, volume_suffix(path).lower(), channels_last=channels_last)


def _open_file(path: Path, suffix: str, *, channels_last: bool) -> Volume:
    if suffix in NIFTI_SUFFIXES:
        return open_nifti(path, channels_last=channels_last)
    if suffix in PICTURE_SUFFIXES:
        return open_picture(path)
    if suffix in SEGMENTATION_SUFFIXES:
        return open_segmentation(path)
    if suffix in DICOM_SUFFIXES:
        return open_dicom(path)
    if suffix:
        return open_sitk(path, channels_last=channels_last)
    msg = f"{path}: file type must be one of {', '.join(SUFFIXES)}, got {path.suffix or 'none'!r}"
    raise ValueError(msg)


def open_label(source: object, grid: Grid | None = None, *, overlap: bool = False, binary: bool = False) -> Volume:
    """Label map; cropped segmentations of 3D Slicer and DICOM are extended to the image's grid, and pictures have one channel.

    Args:
        source: Path or object, as :func:`open_volume` takes it.
        grid: Grid of the image; DICOM segmentations need it.
        overlap: Whether segments of a file may overlap, as only labels above 0 against 0 matter.
        binary: Whether there is one class: a picture of 0 and 255 alone then marks object 1, as it does with ``overlap``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is broken or not a volume, a segmentation does not lie on the voxels of the image, or a picture is stored
            with loss.
    """
    if not isinstance(source, (str, Path)):
        return open_volume(source)
    path = Path(source)
    if grid is not None and (dicom := segmentation_at(path)):
        return paste_onto(open_segments(dicom, grid, overlap=overlap), grid)
    if is_segmentation(path):
        label = open_segmentation(path, overlap=overlap)
        return label if grid is None else paste_onto(label, grid)
    if path.is_file() and volume_suffix(path).lower() in PICTURE_SUFFIXES:
        return open_picture(path, label=True, binary=binary or overlap)
    return open_volume(path)


def is_segmentation(path: Path | str) -> bool:
    """Whether the file exists and is named as a segmentation of 3D Slicer, ``ct.seg.nrrd``."""
    return volume_suffix(Path(path)).lower() in SEGMENTATION_SUFFIXES and Path(path).is_file()


def as_volume(image: Any, *, channel_first: bool | None = None) -> Volume:
    """Image of an object in memory, not copied if its library allows.

    Args:
        image: A ``Volume`` (returned as it is), numpy array, torch tensor or ``MetaTensor``, ``SimpleITK.Image``, ``itk.Image`` or
            nibabel image. Two space axes become three, the last of one voxel.
        channel_first: Whether the first axis of an array or tensor counts channels; by default in tensors, not in arrays.

    Raises:
        ValueError: If it is another object, or does not have two or three space axes.
    """
    if isinstance(image, Volume):
        return image
    if isinstance(image, np.ndarray):
        return _array_volume(image if channel_first else image[None], None)
    if hasattr(image, "detach"):  # a torch tensor; torch is not imported to find out
        return _tensor_volume(image, channel_first=channel_first is not False)
    if hasattr(image, "GetPixelIDTypeAsString"):
        import SimpleITK

        return _itk_volume(image, SimpleITK.GetArrayViewFromImage(image), image.GetDirection())
    if hasattr(image, "GetLargestPossibleRegion"):
        import itk

        return _itk_volume(image, itk.array_view_from_image(image), itk.array_from_matrix(image.GetDirection()))
    if hasattr(image, "dataobj"):
        return _array_volume(np.asarray(image.dataobj)[None], image.affine)
    msg = f"image must be a path, a Volume, an array, a tensor, or an image of SimpleITK, ITK or nibabel, got {type(image).__name__}"
    raise ValueError(msg)


def _array_volume(array: Array, affine: Any, owner: object = None) -> ArrayVolume:
    """Volume of ``(C, *S)`` with two or three space axes."""
    if array.ndim not in (3, 4):
        msg = f"image must have two or three space axes, got {array.ndim - 1} in shape {array.shape}"
        raise ValueError(msg)
    if array.ndim == 3:
        array = array[..., None]
    shape = array.shape[1:]
    return ArrayVolume(array, Grid(shape) if affine is None else Grid(shape, lifted_affine(affine)), owner=owner)


def lifted_affine(affine: Any) -> NDArray[np.float64]:
    """Affine of three axes; one of two gets a third axis of 1 mm."""
    matrix: NDArray[np.float64] = np.asarray(affine, dtype=np.float64)
    if matrix.shape != (3, 3):
        return matrix
    lifted = np.eye(4)
    lifted[np.ix_([0, 1, 3], [0, 1, 3])] = matrix
    return lifted


def _tensor_volume(tensor: Any, *, channel_first: bool) -> ArrayVolume:
    affine = getattr(tensor, "affine", None)
    if affine is not None:
        affine = lifted_affine(affine.detach().cpu().numpy())
        if str(getattr(tensor, "meta", {}).get("space", "RAS")).upper().endswith("LPS"):
            affine = LPS_RAS @ affine
    plain = tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
    plain = plain.detach().cpu()
    array: Array = (plain.float() if str(plain.dtype) == "torch.bfloat16" else plain).numpy()
    return _array_volume(array if channel_first else array[None], affine)


def _itk_volume(image: Any, array: Array, direction: Any) -> ArrayVolume:
    """Volume of an image of SimpleITK or ITK, which owns the memory of the array."""
    return _array_volume(channels_first(array, image.GetNumberOfComponentsPerPixel()), itk_affine(image, direction), owner=image)
