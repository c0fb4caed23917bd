"""The whole path with the real networks of a bundle: neither file type, storage, batch nor number of threads changes a voxel.

With made-up networks, ``test_inferer.py`` turns and mirrors the storage in all 48 ways; lower precisions are in ``test_precision.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from stseg3d.geometry import Grid
from stseg3d.inference.segment import Segmenter
from stseg3d.plan import Output
from stseg3d.synthesis import ct_phantom
from stseg3d.volumes import ArrayVolume, CanonicalVolume, open_volume

pytestmark = pytest.mark.slow  # thorough; the nightly run has them

SHAPE = (80, 72, 64)
Scan = tuple[NDArray[np.int16], Grid]


@pytest.fixture(scope="module")
def scan() -> Scan:
    image, _, grid = ct_phantom(SHAPE, seed=3)
    return image, grid


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter("aorta_ct_segmentation", device="cpu", precision="float32")


@pytest.fixture(scope="module")
def expected(scan: Scan, segmenter: Segmenter) -> NDArray[np.uint8]:
    """Labels of the array in memory, one crop at a time, on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    one = Segmenter("aorta_ct_segmentation", device="cpu", precision="float32", overrides={"displayable_configs#batch_size": 1})
    found = one.inferer.segment(ArrayVolume(scan[0][None], scan[1]), one.network)
    torch.set_num_threads(before)
    assert found.counts["crops"] > 2
    assert found.labels.any()
    return found.labels


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def written(folder: Path, name: str, image: NDArray[np.int16], grid: Grid) -> Path:
    """The scan in a file of any type."""
    path = folder / name
    if ".nii" in name:
        nib.save(nib.Nifti1Image(image, grid.affine), path)
        return path
    lps = np.diag([-1.0, -1, 1]) @ grid.affine[:3, :3]
    out = sitk.GetImageFromArray(np.ascontiguousarray(image.T))
    out.SetSpacing(grid.spacing_mm)
    out.SetOrigin((np.diag([-1.0, -1, 1]) @ grid.affine[:3, 3]).tolist())
    out.SetDirection((lps / grid.spacing_mm).ravel().tolist())
    sitk.WriteImage(out, str(path), name.endswith(".nrrd"))
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mha", "a.nrrd"])
def test_every_type_of_file_gives_the_labels_of_the_array(
    tmp_path: Path, scan: Scan, segmenter: Segmenter, expected: NDArray[np.uint8], name: str
) -> None:
    made = segmenter.segment(written(tmp_path, name, *scan), tmp_path / "out")
    np.testing.assert_array_equal(open_volume(made.output).read()[0], expected)


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_tensor_gives_the_labels_of_the_array_however_it_lies_in_memory(
    scan: Scan, segmenter: Segmenter, expected: NDArray[np.uint8], order: str
) -> None:
    tensor = torch.from_numpy(np.array(scan[0], order=order))
    assert tensor.is_contiguous() == (order == "C")
    labels = segmenter.inferer(MetaTensor(tensor[None, None], affine=torch.tensor(scan[1].affine)), segmenter.network)
    np.testing.assert_array_equal(labels[0, 0].numpy(), expected)


@pytest.mark.parametrize("output", ["labels", "instances"])
@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_labels_lie_in_memory_as_the_voxels_do(scan: Scan, segmenter: Segmenter, order: tuple[int, ...], output: str) -> None:
    array = np.ascontiguousarray(scan[0].transpose(order)).transpose(np.argsort(order))
    assert segmenter.inferer.output == Output()
    segmenter.inferer.output = Output(output)
    try:
        labels = segmenter.inferer(MetaTensor(torch.from_numpy(array)[None, None], affine=torch.tensor(scan[1].affine)), segmenter.network)
    finally:
        segmenter.inferer.output = Output()
    assert labels[0, 0].permute(order).is_contiguous()


@pytest.mark.parametrize(("axcodes", "name"), [("LPS", "a.nii.gz"), ("SAL", "a.nii")])
def test_a_scan_stored_along_other_axes_has_its_labels_along_them(
    tmp_path: Path, scan: Scan, segmenter: Segmenter, expected: NDArray[np.uint8], axcodes: str, name: str
) -> None:
    turned = CanonicalVolume(ArrayVolume(scan[0][None], scan[1]), axcodes)
    made = segmenter.segment(written(tmp_path, name, turned.read()[0], turned.grid), tmp_path / "out")
    np.testing.assert_array_equal(open_volume(made.output).read()[0], turned.view(expected))


@pytest.mark.slow
def test_batches_and_threads_change_no_voxel(scan: Scan, segmenter: Segmenter, expected: NDArray[np.uint8], threads: int) -> None:
    assert segmenter.inferer.fine_policy.batch_size == 8
    found = segmenter.inferer.segment(ArrayVolume(scan[0][None], scan[1]), segmenter.network)
    np.testing.assert_array_equal(found.labels, expected)
