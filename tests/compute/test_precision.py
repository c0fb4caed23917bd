"""Precision: chosen by the device, told in the JSON, part of what makes a result; float32 stays what it was, lower ones agree with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from stseg3d.bundle import find_bundle
from stseg3d.compute import evaluating, precision_on, probabilities
from stseg3d.compute.running import fast_precision
from stseg3d.inference import Request
from stseg3d.inference.segment import Segmenter
from stseg3d.synthesis import ct_phantom
from stseg3d.volumes import ArrayVolume
from tests.inference.fakes import Threshold, Witness, dice, networks, pipeline, volume_of
from tests.phantoms import image_of, near

CPU = torch.device("cpu")


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bfloat16_only_where_the_processor_has_it(native, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert fast_precision(CPU) == precision_on(CPU, "auto") == ("bfloat16" if native else "float32")


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_what_is_asked_for_by_name_is_what_runs(precision, monkeypatch):
    monkeypatch.setattr("stseg3d.compute.running.fast_precision", lambda _: pytest.fail("nobody asked"))
    assert precision_on(CPU, precision) == precision


def test_unknown_precisions_are_refused():
    rule = r"precision must be one of \('auto', 'float32', 'bfloat16', 'float16'\), got 'half'"
    with pytest.raises(ValueError, match=rule), evaluating(nn.Identity(), "half"):
        pass
    with pytest.raises(ValueError, match=rule):
        Segmenter("aorta_ct_segmentation", device="cpu", precision="half")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_both_stages_run_in_the_precision_asked_for(precision):
    image, _ = image_of(near(np.array([[24.0, 24, 24]]), 6, (48, 48, 48)))
    network = networks()
    network.rough, network.fine = Witness(network.rough), Witness(network.fine)
    pipeline((12, 12, 12), (16, 16, 16), precision=precision).segment(volume_of(image), network)
    assert {*network.rough.autocast, *network.fine.autocast} == {precision == "bfloat16"}


def test_probabilities_of_a_lower_precision_are_float32():
    with evaluating(Threshold(), "bfloat16"):
        assert probabilities(Threshold(), torch.zeros(1, 1, 4, 4, 4)).dtype == torch.float32


def test_float32_is_the_network_as_it_is():
    network, batch = nn.Conv3d(1, 2, 3, padding=1), torch.randn(2, 1, 6, 6, 6)
    with evaluating(network, "float32"):
        torch.testing.assert_close(probabilities(network, batch), network(batch).softmax(1), rtol=0, atol=0)


@pytest.mark.slow
def test_labels_of_bfloat16_are_those_of_float32_on_a_phantom():
    image, _, grid = ct_phantom((96, 96, 80), seed=3)
    plain, fast = (Segmenter("aorta_ct_segmentation", device="cpu", precision=p) for p in ("float32", "bfloat16"))
    one, other = (s.inferer.segment(ArrayVolume(image[None], grid), s.network) for s in (plain, fast))
    assert one.labels.any()
    assert (one.rough.array != other.rough.array).any()  # it was another precision
    assert dice(one.labels, other.labels) >= 0.998


def test_the_json_tells_the_precision_that_ran(tmp_path, write_nifti, monkeypatch):
    monkeypatch.setattr("stseg3d.compute.running.fast_precision", lambda _: "bfloat16")
    scan = write_nifti("scan.nii", np.zeros((40, 40, 40), np.int16))
    for asked, ran in {None: "float32", "auto": "bfloat16"}.items():
        made = Segmenter("aorta_ct_segmentation", device="cpu", precision=asked).segment(scan, tmp_path / "out")
        assert made.provenance["precision"] == ran


def test_a_result_of_another_precision_is_another_result(tmp_path):
    bundle = find_bundle("aorta_ct_segmentation")
    digests = {Request(bundle, tmp_path, precision=p).digest for p in (None, "auto", "bfloat16", "float32")}
    assert len(digests) == 4
    assert Request(bundle, tmp_path).digest in digests
