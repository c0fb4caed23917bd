"""Memory that runs out: fewer crops at a time and the same labels, told to the user; where not even one fits, an error says what to set."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from stseg3d.compute.batches import Batches, crops_at_once, ran_out_of_memory
from stseg3d.inference import FinePolicy, Stage
from stseg3d.inference.segment import Segmenter
from stseg3d.networks import RoughFineNet
from stseg3d.ops import BoxPolicy
from tests.inference.fakes import Threshold, Witness, networks, pipeline, volume_of
from tests.phantoms import many_objects

IMAGE = many_objects((60, 60, 60), 20, seed=1)[0]


def the_machines():
    torch.empty(1 << 50)  # what PyTorch says itself


def the_devices():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore of it.")  # noqa: EM101


def a_librarys():
    raise RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")  # noqa: EM101


def numpys():
    raise MemoryError


class Hungry(nn.Module):
    """Has memory for ``most`` inputs at once; counts how often it was asked for more."""

    def __init__(self, network, most, fail=the_machines):
        super().__init__()
        self.network, self.most, self.fail = network, most, fail
        self.failed = 0

    def forward(self, x):
        if len(x) > self.most:
            self.failed += 1
            self.fail()
        return self.network(x)


def segment(fine, batch_size=8, **stage):
    policy = FinePolicy(batch_size=batch_size, border_growth=0.25)
    inferer = pipeline((30, 30, 30), (8, 8, 8), BoxPolicy(margin_fraction=0, margin_rough_voxels=0.5), policy)
    inferer.fine = Stage((8, 8, 8), **stage)
    return inferer.segment(volume_of(IMAGE), RoughFineNet(Threshold(10), fine))


@pytest.mark.parametrize("fail", [the_machines, the_devices, a_librarys, numpys])
@pytest.mark.parametrize("most", [1, 3, 7])
def test_labels_are_those_of_an_undisturbed_run(fail, most):
    calm, seen = segment(Threshold()), Witness(Threshold())
    found = segment(Hungry(seen, most, fail))
    assert len(calm.boxes) > 8
    assert calm.labels.any()
    np.testing.assert_array_equal(found.labels, calm.labels)
    assert found.boxes == calm.boxes
    assert found.counts == calm.counts | {"batch_halved": 3 if most == 1 else 2 if most == 3 else 1}
    assert sum(map(len, seen.inputs)) == found.counts["crops"]
    fitting = {1: 1, 3: 2, 7: 4}[most]
    assert found.warnings == [*calm.warnings, f"out of memory: crops went through the fine network {fitting} at a time, not 8"]


def test_what_did_not_fit_is_not_tried_again():
    hungry = Hungry(Threshold(), 2)
    assert segment(hungry).counts["crops"] > 16
    assert hungry.failed == 2


def test_a_mirrored_run_that_does_not_fit_is_made_anew():
    class AtLast(Hungry):
        """The first run of a batch fits, a mirrored one does not: what came before it takes memory, too."""

        calls = 0

        def forward(self, x):
            self.calls += 1
            most, self.most = self.most, self.most if self.calls % 4 == 3 else 99
            try:
                return super().forward(x)
            finally:
                self.most = most

    mirrored = {"mirror_axes": [0, 1]}
    found, calm = segment(AtLast(Threshold(), 4), **mirrored), segment(Threshold(), **mirrored)
    np.testing.assert_array_equal(found.labels, calm.labels)
    assert found.counts["batch_halved"] == 1
    assert "batch_halved" not in calm.counts


def test_a_crop_that_does_not_fit_alone_is_an_error_that_says_what_to_set():
    rule = r"size of the fine stage must fit into the memory of cpu one input at a time, got \(8, 8, 8\) in float32: set a smaller size, "
    with pytest.raises(MemoryError, match=rule + r".* \(CUDA out of memory\. Tried to allocate 20\.00 GiB\.\)$"):
        segment(Hungry(Threshold(), 0, the_devices))


def test_so_is_a_rough_input():
    inferer = pipeline((12, 12, 12), (8, 8, 8), precision="bfloat16")
    with pytest.raises(MemoryError, match=r"size of the rough stage must fit .* got \(12, 12, 12\) in bfloat16: .*can't allocate memory"):
        inferer.segment(volume_of(IMAGE), RoughFineNet(Hungry(Threshold(), 0), Threshold()))


def test_other_errors_are_raised_as_they_are_and_at_once():
    def broken():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")  # noqa: EM101

    hungry = Hungry(Threshold(), 1, broken)
    with pytest.raises(RuntimeError, match=r"^mat1 and mat2"):
        segment(hungry)
    assert hungry.failed == 1
    assert not ran_out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize(("size", "cpu"), [((96, 96, 96), 1), ((56, 56, 56), 2), ((56, 56, 48), 3), ((48, 48, 1), 8), ((256,) * 3, 1)])
def test_a_processor_is_given_no_more_than_is_quick_there(size, cpu):
    assert crops_at_once(8, size, torch.device("cpu")) == cpu
    assert crops_at_once(1, size, torch.device("cpu")) == 1
    assert crops_at_once(8, size, torch.device("cuda")) == 8


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("most", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9])
def test_every_item_is_worked_on_once_and_in_order(size, most, count):
    done = []

    def work(part):
        if len(part) > most:
            raise MemoryError
        done.extend(part)
        return [-n for n in part]

    assert Batches(size).run(work, range(count)) == [-n for n in range(count)]
    assert done == list(range(count))


def test_the_json_tells_of_it(tmp_path, write_nifti):
    segmenter = Segmenter("aorta_ct_segmentation", device="cpu", overrides={"displayable_configs#batch_size": 2})
    segmenter.network = RoughFineNet(networks().rough, Hungry(Threshold(), 1))
    scan = np.zeros((60, 60, 60), np.int16)
    scan[20:40, 20:40, 10:50] = 400
    boxes = tmp_path / "boxes.json"
    boxes.write_text('{"boxes": [{"start": [10, 10, 5], "stop": [50, 50, 30]}, {"start": [10, 10, 25], "stop": [50, 50, 55]}]}')
    told = segmenter.segment(write_nifti("scan.nii", scan), tmp_path / "out", boxes=boxes).provenance
    assert told["counts"]["batch_halved"] == 1
    assert "out of memory: crops went through the fine network 1 at a time, not 2" in told["warnings"]
