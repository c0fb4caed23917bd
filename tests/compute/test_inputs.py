"""Inputs of networks: the same numbers in training and at inference, resampled by numpy or on a device.

No test here needs a GPU; those marked ``gpu`` ask one, where there is one.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import NormalizeIntensity, ScaleIntensityRange

from stseg3d.compute import Stage, append_rough, evaluating, network_input
from stseg3d.compute.gather import Gather
from stseg3d.compute.inputs import as_float32, resample_tensor
from stseg3d.geometry import Box, Grid
from stseg3d.ops.resample import resample
from stseg3d.volumes import ArrayVolume, CanonicalVolume, open_volume
from tests.inference.fakes import Threshold

CPU = torch.device("cpu")
TYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32"]
SIZE = (6, 7, 8)
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def numbers(dtype, shape, rng):
    """Numbers of a type, its least and largest among them."""
    if dtype == "float32":
        return rng.normal(0, 1000, shape).astype(np.float32)
    ends = np.iinfo(dtype)
    array = rng.integers(ends.min, ends.max, shape, dtype=dtype, endpoint=True)
    array.flat[:2] = ends.min, ends.max
    return array


def both_ways(volume, box, stage):
    return [g.prepare(g.read(volume, box)) for g in (Gather(stage, CPU), Gather(stage, CPU, on_device=True))]


def test_an_input_is_that_of_the_crop_resampled_and_then_prepared(rng):
    array, box = rng.normal(size=(2, 12, 11, 10)).astype(np.float32), Box((1, 0, 2), (11, 5, 10))
    volume, stage = ArrayVolume(array, Grid((12, 11, 10))), Stage(SIZE, transform=NormalizeIntensity(channel_wise=True))
    found = network_input(volume, stage, box)
    assert torch.equal(found, stage.prepare(resample(array[(slice(None), *box.slices)], SIZE)))
    assert torch.equal(found, both_ways(volume, box, stage)[0])


def test_an_input_of_a_whole_volume_has_the_shape_that_its_grid_gives(rng):
    volume = ArrayVolume(rng.normal(size=(1, 40, 30, 20)).astype(np.float32), Grid((40, 30, 20)))
    stage = Stage((64, 64, 64), spacing_mm=2.0, multiple=4)
    found = network_input(volume, stage)
    assert found.shape == (1, 20, 16, 12)
    assert torch.equal(found, torch.from_numpy(resample(volume.array, (20, 16, 12))))
    volume.array[0, 1, 2, 3] = np.inf
    with pytest.raises(ValueError, match=r"array: voxels must be finite, got 1 NaN or infinite$"):
        network_input(volume, stage)


def test_the_rough_channel_follows_the_prepared_ones():
    image, rough = torch.rand(2, *SIZE), torch.rand(1, *SIZE)
    assert torch.equal(append_rough(image, rough), torch.cat([image, rough]))


# --- on a device -------------------------------------------------------------


@pytest.mark.parametrize("dtype", sorted({*TYPES} - {"uint64"}))  # which is read as float32, see the next test
def test_numbers_of_every_type_become_those_that_numpy_makes(dtype, rng):
    array = numbers(dtype, (2, 3, 4, 5), rng)
    np.testing.assert_array_equal(as_float32(torch.from_numpy(array)), array.astype(np.float32))


@pytest.mark.parametrize("dtype", TYPES)
def test_inputs_of_every_type_agree(dtype, rng):
    volume = ArrayVolume(numbers(dtype, (2, 12, 11, 10), rng), Grid((12, 11, 10)))
    own, devices = both_ways(volume, Box((1, 0, 2), (11, 5, 10)), Stage(SIZE))
    assert own.shape == devices.shape == (2, *SIZE)
    torch.testing.assert_close(devices, own, rtol=1e-5, atol=1e-5 * float(own.abs().max()))


@pytest.mark.parametrize("axcodes", ["RAS", "LPI", "SAR", "PIL"])
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_inputs_from_files_agree_along_any_axes(axcodes, name, write_nifti, rng):
    path = write_nifti(name, rng.integers(-1000, 1000, (14, 12, 10)).astype(np.int16))
    view = CanonicalVolume(open_volume(path), axcodes)
    stage = Stage(SIZE, transform=ScaleIntensityRange(-500, 500, -1, 1, clip=True))
    own, devices = both_ways(view, Box((1, 2, 1), view.grid.shape), stage)
    torch.testing.assert_close(devices, own, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 7, 8), (3, 20, 1), (40, 7, 9), (1, 1, 1)])
@pytest.mark.parametrize("size", [(6, 7, 8), (9, 4, 1)])
def test_tensors_are_resampled_as_arrays_are(shape, size, rng):
    array = rng.normal(size=(2, *shape)).astype(np.float32)
    for stored in (array, np.asfortranarray(array)):
        found = resample_tensor(torch.from_numpy(stored), size)
        assert found.is_contiguous()
        torch.testing.assert_close(found, torch.from_numpy(resample(array, size)), rtol=1e-5, atol=1e-5)


def test_what_is_at_its_size_stays_as_it_is(rng):
    array = rng.normal(size=(1, *SIZE)).astype(np.float32)
    tensor = torch.from_numpy(array)
    assert resample_tensor(tensor, SIZE).data_ptr() == tensor.data_ptr()


def test_nothing_leaves_the_device_on_the_way():
    """Tensors without voxels, on PyTorch's device of that kind: bringing one to the host raises."""
    voxels = torch.empty((1, 12, 9, 8), dtype=torch.uint16, device="meta")
    found = Stage(SIZE, transform=ScaleIntensityRange(-500, 500, -1, 1, clip=True)).prepare(resample_tensor(voxels, SIZE))
    assert (found.device.type, found.shape, found.dtype) == ("meta", (1, *SIZE), torch.float32)
    with pytest.raises((NotImplementedError, RuntimeError)):
        voxels.cpu()


def test_a_lower_precision_leaves_intensities_alone(rng):
    volume = ArrayVolume(rng.integers(-1000, 1000, (1, 12, 11, 10)).astype(np.int16), Grid((12, 11, 10)))
    stage = Stage(SIZE, transform=NormalizeIntensity(channel_wise=True))
    plain = both_ways(volume, volume.grid.box, stage)
    with evaluating(Threshold(), "bfloat16"):
        for found, expected in zip(both_ways(volume, volume.grid.box, stage), plain, strict=True):
            assert torch.equal(found, expected)


@pytest.mark.parametrize("on_device", [False, True])
def test_voxels_that_are_no_numbers_are_refused(on_device, rng):
    array = rng.normal(size=(1, 12, 11, 10)).astype(np.float32)
    array[0, 3, 4, 5], array[0, 3, 4, 6] = np.nan, np.inf
    gather = Gather(Stage(SIZE), CPU, on_device)
    volume = ArrayVolume(array, Grid((12, 11, 10)))
    with pytest.raises(ValueError, match=r"array: voxels must be finite, got 2 NaN or infinite in Box"):
        gather.read(volume, volume.grid.box)
    assert gather.read(volume, Box((4, 0, 0), (12, 11, 10))).isfinite().all()


@on_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TYPES)
def test_inputs_gathered_on_a_gpu_agree(dtype, rng):
    volume = ArrayVolume(numbers(dtype, (2, 12, 11, 10), rng), Grid((12, 11, 10)))
    own, gpu = (Gather(Stage(SIZE), torch.device(d)) for d in ("cpu", "cuda"))
    expected = own.prepare(own.read(volume, volume.grid.box))
    found = gpu.prepare(gpu.read(volume, volume.grid.box)).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
