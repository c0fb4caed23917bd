"""Gathering crops: the way of another device, gone on the CPU, gives the labels of the CPU's own way.

No test here needs a GPU; those marked ``gpu`` ask one, where there is one.
"""

from __future__ import annotations

import importlib
import threading
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from stseg3d.compute import evaluating, inputs
from stseg3d.compute.gather import Gather
from stseg3d.compute.running import lay_channels_last
from stseg3d.geometry import Box, Grid
from stseg3d.inference import BoxProposer, FinePolicy, NetworkProposer, Stage
from stseg3d.inference.fine import FineStage
from stseg3d.inference.segment import Segmenter
from stseg3d.ops import BoxPolicy, Canvas
from stseg3d.synthesis import ct_phantom
from stseg3d.volumes import ArrayVolume
from tests.inference.fakes import Threshold, Witness, dice
from tests.phantoms import many_objects

CPU = torch.device("cpu")
SIZE = (6, 7, 8)
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


# --- reading ahead -----------------------------------------------------------


def test_a_gpu_is_given_voxels_as_they_are_stored_from_pinned_memory(rng, monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    array, box = rng.integers(0, 60000, (1, 12, 11, 10)).astype(np.uint16), Box((1, 0, 2), (11, 5, 10))
    found = Gather(Stage(SIZE), torch.device("cuda")).read(ArrayVolume(array, Grid((12, 11, 10))), box)
    assert pinned[0] is found
    assert found.dtype == torch.uint16
    np.testing.assert_array_equal(found, array[(slice(None), *box.slices)])


class Counting(ArrayVolume):
    """Remembers the most voxels that were read at once, and whether two reads overlapped."""

    most = 0
    reading = 0
    overlapped = False

    def read(self, box=None):
        cls = type(self)
        cls.reading += 1
        cls.overlapped |= cls.reading > 1
        cls.most = max(cls.most, self.grid.box.voxels if box is None else box.voxels)
        threading.Event().wait(0.002)
        cls.reading -= 1
        return super().read(box)


@pytest.mark.parametrize("on_device", [False, True])
def test_a_huge_box_is_never_read_whole(on_device, rng, monkeypatch):
    class Here(Counting):
        pass

    volume = Here(rng.integers(0, 1000, (1, 20, 20, 40)).astype(np.int16), Grid((20, 20, 40)))
    box = Box((1, 1, 1), (19, 19, 39))
    whole = Gather(Stage(SIZE), CPU, on_device)
    expected = whole.prepare(whole.read(volume, box))
    assert Here.most == box.voxels
    for module in (inputs, importlib.import_module("stseg3d.ops.resample")):  # the package's `resample` is the function
        monkeypatch.setattr(module, "SLAB_VOXELS", 1000)
    Here.most = 0
    found = whole.prepare(whole.read(volume, box))
    assert 0 < Here.most <= 1000
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)


def test_the_next_batch_is_read_while_the_network_runs():
    begun = {n: threading.Event() for n in range(4)}

    def read(n):
        begun[n].set()
        return 10 * n

    for n, result in enumerate(Gather(Stage(SIZE), CPU, on_device=True).in_order(read, range(4))):
        assert result == 10 * n
        assert begun[min(n + 1, 3)].wait(timeout=30)
        assert not any(begun[m].is_set() for m in range(n + 2, 4))


def test_on_the_cpu_each_is_read_when_it_is_due():
    done = []
    for n in Gather(Stage(SIZE), CPU).in_order(lambda n: done.append(n) or n, range(3)):
        assert done == [*range(n + 1)]


def test_what_reading_raises_is_raised_in_its_place():
    def read(n):
        if n == 2:
            msg = "broken"
            raise OSError(msg)
        return n

    results = Gather(Stage(SIZE), CPU, on_device=True).in_order(read, range(4))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(OSError, match="broken"):
        next(results)
    assert list(Gather(Stage(SIZE), CPU, on_device=True).in_order(read, [])) == []


def test_a_volume_is_read_by_one_thread_at_a_time():
    """Boxes that grow are read by the main thread, while another reads the next batch."""

    class Here(Counting):
        pass

    shape = (60, 60, 60)
    volume = Here(np.full((1, *shape), 100, np.int16), Grid(shape))  # every box cuts what it holds, and grows
    boxes = [Box((x, y, 5), (x + 10, y + 10, 55)) for x in range(2, 60, 20) for y in range(2, 60, 20)]
    stage = FineStage(Threshold(), Stage((8, 8, 8)), FinePolicy(batch_size=2, border_growth=0.1), on_device=True)
    stage.paint(volume, BoxProposer(boxes, BoxPolicy(), (8, 8, 8)).propose(volume), Canvas(shape))
    assert stage.counts["grown"] == len(boxes)
    assert not Here.overlapped


# --- labels ------------------------------------------------------------------


def test_the_way_is_that_of_the_device():
    assert not Gather(Stage(SIZE), CPU).on_device
    assert Gather(Stage(SIZE), torch.device("cuda:1")).on_device
    assert Gather(Stage(SIZE), CPU, on_device=True).on_device


@pytest.mark.parametrize("on_device", [False, True])
def test_probabilities_come_back_as_the_way_has_it(on_device):
    found = Gather(Stage(SIZE), CPU, on_device).fetch(torch.full((1, 2, 3, 4, 5), 0.25))
    assert found.dtype == (np.float16 if on_device else np.float32)
    assert (found == 0.25).all()


@pytest.mark.parametrize("rough_channel", [False, True])
@pytest.mark.parametrize("only_proposed", [False, True])
def test_labels_of_many_objects_agree(rough_channel, only_proposed):
    shape = (60, 60, 60)
    image = many_objects(shape, 20, seed=1)[0]
    volume, fine = ArrayVolume(image[None], Grid(shape)), (12, 12, 12)
    policy = BoxPolicy(margin_fraction=0, margin_rough_voxels=1)
    proposal = NetworkProposer(Threshold(10), Stage((30, 30, 30)), policy, fine).propose(volume)
    labels, counts = [], []
    for on_device in (False, True):
        seen = Witness(Threshold())
        stage = FineStage(seen, Stage(fine, rough_channel=rough_channel), FinePolicy(only_proposed=only_proposed), on_device=on_device)
        canvas = Canvas(shape)
        stage.paint(volume, proposal, canvas)
        assert {x.shape[1] for x in seen.inputs} == {1 + rough_channel}
        labels.append(canvas.labels)
        counts.append(stage.counts)
    assert labels[0].any()
    assert dice(*labels) >= 0.999
    assert counts[0] == counts[1]


@pytest.fixture(scope="module")
def phantom():
    """A bundle's inferer and networks, a CT, and what the rough network proposes there."""
    segmenter = Segmenter("aorta_ct_segmentation", device="cpu")
    image, _, grid = ct_phantom((96, 96, 80), seed=3)
    view = segmenter.inferer.view(ArrayVolume(image[None], grid))
    inferer = segmenter.inferer
    proposal = NetworkProposer(segmenter.network.rough, inferer.rough, inferer.policy, inferer.fine.size).propose(view)
    assert proposal.boxes
    return inferer, segmenter.network, view, proposal


def painted(phantom, network=None, batch_size=8, **options):
    inferer, own, view, proposal = phantom
    canvas = Canvas(view.grid.shape, 2, inferer.fine_policy.fusion)
    policy = replace(inferer.fine_policy, batch_size=batch_size)
    FineStage(network or own.fine, inferer.fine, policy, **options).paint(view, proposal, canvas)
    assert canvas.labels.any()
    return canvas.labels


@pytest.mark.slow
def test_labels_of_a_bundle_agree(phantom):
    assert dice(painted(phantom), painted(phantom, on_device=True)) >= 0.999


def test_labels_of_a_bundle_agree_whatever_the_batch(phantom, monkeypatch):
    monkeypatch.setattr("stseg3d.compute.batches.MAX_CPU_VOXELS", 1 << 30)
    assert len(phantom[3].boxes) > 1
    labels = []
    for size in (1, 8):
        seen = Witness(phantom[1].fine)
        labels.append(painted(phantom, seen, batch_size=size))
        assert max(map(len, seen.inputs)) == min(size, len(phantom[3].boxes))
    assert dice(*labels) >= 0.999


def test_weights_are_laid_channels_last_once_and_stay_the_same_numbers():
    network = torch.nn.Sequential(torch.nn.Conv3d(3, 4, 3), torch.nn.BatchNorm3d(4), torch.nn.Conv3d(4, 2, 1))
    before = [p.clone() for p in network.parameters()]
    lay_channels_last(network)
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    where = [p.data_ptr() for p in network.parameters()]
    lay_channels_last(network)
    assert [p.data_ptr() for p in network.parameters()] == where
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


@pytest.mark.parametrize(
    ("device", "precision", "laid"), [("cuda", "bfloat16", True), ("cuda", "float32", False), ("cpu", "bfloat16", False)]
)
def test_weights_are_laid_channels_last_on_other_devices_in_a_lower_precision(device, precision, laid, monkeypatch):
    network = torch.nn.Conv3d(3, 4, 3)
    monkeypatch.setattr("stseg3d.compute.running.device_of", lambda _: torch.device(device))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's autocast says that there is no GPU
        with evaluating(network, precision):
            assert network.weight.is_contiguous(memory_format=torch.channels_last_3d) == laid


@on_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_labels_of_a_gpu_agree(phantom, precision):
    on_cpu = painted(phantom)
    gpu = Segmenter("aorta_ct_segmentation", device="cuda").network.fine
    assert dice(on_cpu, painted(phantom, gpu, precision=precision)) >= 0.999
