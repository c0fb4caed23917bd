"""What many tests need: real data where it is at hand, images in files, DICOM series."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_collection() -> None:
    """Imports make no garbage worth looking for."""
    gc.disable()


def pytest_collection_finish() -> None:
    """What was imported is looked through once, and not at each full run of the garbage collector and by each parser of a config."""
    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()
    if "monai.bundle" in sys.modules:
        from monai.bundle.config_item import ComponentLocator

        if hasattr(ComponentLocator, "_find_classes_or_functions"):  # MONAI's own affair, and slow
            found = cache(partial(ComponentLocator._find_classes_or_functions, ComponentLocator()))
            ComponentLocator._find_classes_or_functions = lambda _, modules: found(tuple(modules))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real data; a test that asks for it is skipped without."""
    folder = Path(os.environ.get("STSEG3D_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; STSEG3D_DATA names the folder")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def write_nifti(tmp_path: Path) -> Callable[..., Path]:
    """Writes an array, (i, j, k), with any header field set: ``write_nifti("a.nii", array, affine, qform_code=2)``."""
    import nibabel as nib

    def write(name: str, array: np.ndarray, affine: np.ndarray | None = None, **fields: object) -> Path:
        header = nib.Nifti1Header()
        header.set_data_dtype(array.dtype)
        header.set_data_shape(array.shape)
        header.set_sform(np.eye(4) if affine is None else affine, 1)
        header.set_qform(np.eye(4) if affine is None else affine, 1)
        header["scl_slope"], header["scl_inter"], header["vox_offset"] = 1, 0, 352
        for key, value in fields.items():
            header[key] = value
        content = header.binaryblock + bytes(4) + array.tobytes(order="F")
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".gz"):
            import gzip

            content = gzip.compress(content, 1)
        path.write_bytes(content)
        return path

    return write


@pytest.fixture
def write_series() -> Callable[..., Path]:
    """Writes a DICOM series of a ``SimpleITK.Image``; files are named against the order of position."""
    import SimpleITK as sitk  # noqa: N813

    def write(folder: Path, image: sitk.Image, series: str = "1.2.826.0.1.3680043.2.1125.1", leave_out: tuple[int, ...] = ()) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        direction = image.GetDirection()
        cosines = "\\".join(f"{direction[i]:.10f}" for i in (0, 3, 6, 1, 4, 7))
        for k in range(image.GetSize()[2]):
            if k in leave_out:
                continue
            one = image[:, :, k]
            tags = {
                "0008|0060": "CT",
                "0020|000d": "1.2.826.0.1.3680043.2.1125.9",
                "0020|000e": series,
                "0008|0018": f"{series}.{k + 1}",
                "0020|0037": cosines,
                "0020|0032": "\\".join(f"{x:.8f}" for x in image.TransformIndexToPhysicalPoint((0, 0, k))),
                "0020|0013": str(k + 1),
            }
            for tag, value in tags.items():
                one.SetMetaData(tag, value)
            writer.SetFileName(str(folder / f"{series[-1]}_{999 - k}.dcm"))
            writer.Execute(one)
        return folder

    return write
