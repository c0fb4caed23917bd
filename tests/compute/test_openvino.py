"""OpenVINO in PyTorch's place: the same logits, no stale weights, nothing in silence, and no word to anybody."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import run
from monai.networks.nets import BasicUNet, BasicUNetPlusPlus, DynUNet, UNet
from monai.utils import set_determinism
from torch import nn

from stseg3d.bundle import find_bundle
from stseg3d.cli import main
from stseg3d.compute import evaluating, probabilities, runtimes
from stseg3d.compute.runtimes import OpenVinoNetwork, ensure_runtime, on_runtime
from stseg3d.inference import Request
from stseg3d.inference.segment import Segmenter
from stseg3d.networks import MeanEnsemble, SqueezeDepth
from stseg3d.synthesis import ct_phantom
from stseg3d.volumes import ArrayVolume
from tests.inference.fakes import dice, networks, pipeline, volume_of
from tests.phantoms import image_of, near

pytestmark = pytest.mark.slow  # thorough; the nightly run has them

CPU = torch.device("cpu")
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="no openvino: pip install 'stseg3d[openvino]'")


class CropByCrop(nn.Module):
    """Lone crops inside: PyTorch is made to leave these to oneDNN, by an operation that nobody else knows."""

    def __init__(self) -> None:
        super().__init__()
        self.network = unet()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.network(crop) for crop in x.split(1)])


class Whim(nn.Module):
    """Turns its answer round if the first voxel says so: what a trace cannot hold."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, -x], dim=1) if x.flatten()[0] > 0 else torch.cat([-x, x], dim=1)


class Bessel(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x)


def unet() -> nn.Module:
    return UNet(3, 1, 2, channels=(4, 8), strides=(2,), num_res_units=1, norm="instance", dropout=0.2)


def dyn_unet() -> nn.Module:
    return DynUNet(3, 1, 2, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[4, 8, 8, 8], deep_supervision=True, deep_supr_num=1)


NETWORKS = {
    "3-D": (unet, (16, 16, 16)),
    "depth 1": (lambda: SqueezeDepth(BasicUNet(2, 1, 2, (4, 4, 8, 8, 8, 4), norm=("batch", {}))), (32, 32, 1)),
    "two axes": (lambda: UNet(2, 1, 1, channels=(4, 8), strides=(2,)), (24, 16)),
    "several outputs": (lambda: BasicUNetPlusPlus(3, 1, 2, (2, 2, 2, 2, 2, 2), deep_supervision=True), (32, 32, 32)),
    "deep supervision": (dyn_unet, (16, 16, 16)),
    "ensemble": (lambda: MeanEnsemble([unet(), unet()]), (16, 16, 16)),
    "crop by crop": (CropByCrop, (16, 16, 16)),
}


def seen(network: nn.Module, batch: torch.Tensor, precision: str = "float32") -> torch.Tensor:
    with evaluating(network, precision):
        return probabilities(network, batch)


def by_openvino(network: nn.Module, batch: torch.Tensor, precision: str = "float32") -> torch.Tensor:
    return seen(on_runtime("openvino", network, "fine", precision), batch, precision)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[int, ...], str]]:
    """Shapes and precisions that are compiled while a test runs."""
    told, compile_one = [], runtimes._compile
    monkeypatch.setattr(
        runtimes, "_compile", lambda net, crop, hint: (told.append((crop.shape[2:], hint)), compile_one(net, crop, hint))[1]
    )
    return told


# --- the same logits ---------------------------------------------------------


@needs_openvino
@pytest.mark.parametrize("name", NETWORKS)
def test_batches_of_any_size_agree_with_pytorch(name, compiled):
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    network, batch = make(), torch.randn(4, 1, *shape)
    due = seen(network, batch)
    for n in (3, 1, 4):
        torch.testing.assert_close(by_openvino(network, batch[:n]), due[:n], rtol=0, atol=1e-4)
    assert compiled == [(shape, "f32")]


@needs_openvino
def test_shapes_and_precisions_are_compiled_once_each_and_not_without_end(compiled, monkeypatch):
    monkeypatch.setattr(runtimes, "CACHED_SHAPES", 2)
    network = unet()
    shapes = [(8, 8, 8), (16, 8, 8), (8, 8, 8), (16, 16, 16), (8, 8, 8)]
    for shape in shapes:
        batch = torch.randn(2, 1, *shape)
        torch.testing.assert_close(by_openvino(network, batch), seen(network, batch), rtol=0, atol=1e-4)
    assert compiled == [(shape, "f32") for shape in (shapes[0], shapes[1], shapes[3], shapes[4])]
    by_openvino(network, batch, "bfloat16")
    assert compiled[4:] == [((8, 8, 8), "bf16")]


@needs_openvino
def test_it_is_openvino_that_runs_in_as_many_threads_as_pytorch(monkeypatch):
    network, batch = unet(), torch.randn(2, 1, 8, 8, 8)
    due = by_openvino(network, batch)
    monkeypatch.setattr(network, "forward", lambda _: pytest.fail("PyTorch ran"))
    again = OpenVinoNetwork(network, "fine")
    assert torch.equal(seen(again, batch), due)
    (compiled,) = again._compiled.values()
    assert compiled.get_property("INFERENCE_NUM_THREADS") == torch.get_num_threads()
    assert not compiled.get_property("ENABLE_CPU_PINNING")


@needs_openvino
@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_in_the_mode_it_was_in(training):
    network = unet().train(training)
    by_openvino(network, torch.randn(1, 1, 8, 8, 8))
    assert {module.training for module in network.modules()} == {training}


@pytest.mark.slow
@needs_openvino
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_labels_of_a_phantom_agree_and_a_rough_network_of_changing_size_stays_with_pytorch(precision, compiled):
    image, _, grid = ct_phantom((96, 96, 80), seed=3)
    plain, fast = (Segmenter("aorta_ct_segmentation", device="cpu", precision=p) for p in ("float32", precision))
    fast.inferer.execution = replace(fast.inferer.execution, runtime="openvino")
    one, other = (s.inferer.segment(ArrayVolume(image[None], grid), s.network) for s in (plain, fast))
    assert one.labels.any()
    assert dice(one.labels, other.labels) >= 0.999
    assert [shape for shape, _ in compiled] == [fast.inferer.fine.size]


@needs_openvino
def test_both_stages_run_on_it(compiled):
    image, _ = image_of(near(np.array([[24.0, 24, 24]]), 6, (48, 48, 48)))
    network, due = networks(), pipeline((12, 12, 12), (16, 16, 16))
    fast = pipeline((12, 12, 12), (16, 16, 16), runtime="openvino")
    labels = fast.segment(volume_of(image), network).labels
    np.testing.assert_array_equal(labels, due.segment(volume_of(image), network).labels)
    np.testing.assert_array_equal(fast.rough_only(volume_of(image), network), due.rough_only(volume_of(image), network))
    assert compiled == [((12, 12, 12), "f32"), ((16, 16, 16), "f32")]


@needs_openvino
def test_several_threads_may_ask_the_same_network():
    network, batches = unet().eval(), torch.randn(24, 3, 1, 16, 16, 16)
    due = [seen(network, batch) for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda batch: by_openvino(network, batch), batches))
    torch.testing.assert_close(found, due, rtol=0, atol=1e-4)


# --- no stale weights --------------------------------------------------------


def _data(network: nn.Module) -> None:
    network.model[0].conv.unit0.conv.weight.data.mul_(-1)  # unseen by the version counter


def _load(network: nn.Module) -> None:
    network.load_state_dict({name: -value for name, value in network.state_dict().items()})


def _layer(network: nn.Module) -> None:
    network.model.append(nn.Tanh())


@needs_openvino
@pytest.mark.parametrize("change", [_data, _load, _layer])
def test_a_network_that_has_changed_is_converted_anew(change):
    network, batch = unet(), torch.randn(2, 1, 8, 8, 8)
    before = by_openvino(network, batch)
    change(network)
    after = by_openvino(network, batch)
    assert (after - before).abs().max() > 0.01
    torch.testing.assert_close(after, seen(network, batch), rtol=0, atol=1e-4)


@needs_openvino
def test_what_was_compiled_goes_with_its_network():
    network = unet()
    by_openvino(network, torch.randn(1, 1, 8, 8, 8))
    gone = weakref.ref(network)
    assert network in runtimes._COMPILED
    del network
    gc.collect()
    assert gone() is None  # what is kept does not hold it
    assert not [known for known in runtimes._COMPILED.keyrefs() if known is gone]


# --- nothing in silence ------------------------------------------------------


def test_unknown_runtimes_are_refused(capsys):
    rule = r"runtime must be one of \('torch', 'openvino'\), got 'onnx'"
    with pytest.raises(ValueError, match=rule):
        pipeline((12, 12, 12), (16, 16, 16), runtime="onnx")
    with pytest.raises(ValueError, match=rule):
        Segmenter("aorta_ct_segmentation", device="cpu", runtime="onnx")
    with pytest.raises(SystemExit):
        main(["segment", "scan.nii", "--bundle", "aorta_ct", "-o", "out", "--runtime", "onnx"])
    assert "--runtime: invalid choice: 'onnx'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("device", "precision", "rule"),
    [("cuda", "float32", "device cpu, got cuda"), ("cpu", "float16", "precision float32 or bfloat16, got float16")],
)
def test_what_it_cannot_do_is_refused(device, precision, rule):
    with pytest.raises(ValueError, match=f"^runtime openvino needs {rule}$"):
        ensure_runtime("openvino", torch.device(device), precision)


def test_a_network_elsewhere_is_refused_before_anything_runs(monkeypatch):
    monkeypatch.setattr(runtimes, "device_of", lambda _: torch.device("cuda"))
    inferer = pipeline((12, 12, 12), (16, 16, 16), runtime="openvino")
    with pytest.raises(ValueError, match="runtime openvino needs device cpu, got cuda"):
        inferer.segment(volume_of(np.zeros((20, 20, 20))), networks())


def test_without_the_package_the_command_says_what_to_install(monkeypatch, write_nifti, tmp_path, capsys):
    monkeypatch.setattr(runtimes, "find_spec", lambda _: None)
    scan = write_nifti("scan.nii", np.zeros((40, 40, 40), np.int16))
    arguments = ["segment", str(scan), "--bundle", "aorta_ct", "-o", str(tmp_path / "out"), "--device", "cpu", "--runtime", "openvino"]
    assert main(arguments) != 0
    assert "runtime openvino needs the package openvino, got none: pip install 'stseg3d[openvino]'" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/*_seg*"))


@needs_openvino
@pytest.mark.parametrize(
    ("network", "rule"),
    [
        (Bessel(), "cannot convert, got openvino for Bessel: No conversion rule found for operations: aten::special_bessel_j0"),
        (nn.Conv3d(2, 2, 1), "cannot convert, got openvino for Conv3d: .*to have 2 channels, but got 1 channels"),
        (Whim(), "computes wrongly, got openvino for Whim: its logits differ from PyTorch's by 1 of their norm"),
    ],
)
def test_a_network_that_it_does_not_do_justice_is_refused(network, rule):
    batch = torch.ones(1, 1, 4, 4, 4)
    batch[:, :, :2] = -1
    with pytest.raises(ValueError, match=f"^runtime must be torch for a fine network that OpenVINO {rule}"):
        by_openvino(network, batch)


@needs_openvino
def test_a_want_of_memory_stays_one(monkeypatch):
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(runtimes, "_compile", fail)
    with pytest.raises(MemoryError):
        by_openvino(unet(), torch.randn(1, 1, 8, 8, 8))


def test_a_result_of_another_runtime_is_another_result(tmp_path):
    bundle = find_bundle("aorta_ct")
    digests = {Request(bundle, tmp_path, runtime=runtime).digest for runtime in (None, "torch", "openvino")}
    assert len(digests) == 3
    assert Request(bundle, tmp_path).digest in digests


# --- from the command and the bundle -----------------------------------------


@pytest.fixture
def scan(write_nifti, tmp_path: Path) -> Path:
    image, _, grid = ct_phantom((64, 64, 48), seed=3)
    return write_nifti("scans/scan.nii", image.astype(np.int16), grid.affine)


@pytest.mark.slow
@needs_openvino
def test_the_command_tells_what_ran_and_nothing_else(scan, tmp_path, capfd):
    out = tmp_path / "out"
    arguments = ["segment", str(scan), "--bundle", "aorta_ct", "-o", str(out), "--device", "cpu"]
    assert main([*arguments, "--runtime", "openvino"]) == 0
    said = capfd.readouterr()
    assert said.out == f"{out / 'scan_seg.nii.gz'}\n"
    assert not [line for line in said.err.splitlines() if not line.startswith("stseg3d: ")]
    notes = json.loads((out / "scan_seg.json").read_text())
    assert notes["runtime"] == "openvino"
    assert notes["counts"]["crops"]
    assert notes["versions"]["openvino"] != "unknown"
    assert not [name for name in sys.modules if name.startswith("openvino_telemetry")]
    assert main([*arguments, "--runtime", "openvino"]) == 0
    assert "1 of 1 cases were done before and are skipped" in capfd.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0
    notes = json.loads((out / "scan_seg.json").read_text())
    assert notes["runtime"] == "torch"
    assert "openvino" not in notes["versions"]


@needs_openvino
@pytest.mark.slow
def test_bundle_run_takes_it_and_gives_the_labels_of_the_command(scan, tmp_path, compiled):
    bundle = find_bundle("aorta_ct")
    arguments = ["segment", str(scan), "--bundle", "aorta_ct", "-o", str(tmp_path / "command"), "--device", "cpu"]
    assert main([*arguments, "--runtime", "openvino"]) == 0
    paths = {"config_file": f"{bundle}/configs/inference.json", "bundle_root": str(bundle), "dataset_dir": str(scan.parent)}
    try:
        run(**paths, output_dir=str(tmp_path / "bundle"), device="$torch.device('cpu')", **{"execution#runtime": "openvino"})
    finally:
        set_determinism(None)
    assert len(compiled) == 2  # once each
    one, other = (np.asarray(nib.load(tmp_path / way / "scan_seg.nii.gz").dataobj) for way in ("command", "bundle"))
    assert one.any()
    np.testing.assert_array_equal(one, other)


SILENT = """
import socket, sys
def refuse(*_, **__):
    sys.exit("a connection")
socket.socket.connect = socket.getaddrinfo = refuse
import torch
from stseg3d.compute.runtimes import on_runtime
with torch.inference_mode():
    print(on_runtime("openvino", torch.nn.Conv3d(1, 2, 1).eval(), "fine")(torch.ones(1, 1, 4, 4, 4)).shape)
"""


@needs_openvino
@pytest.mark.slow
def test_nothing_is_sent_or_stored_about_its_use(tmp_path):
    telling = {"HOME": str(tmp_path), "LOCALAPPDATA": str(tmp_path), "CI": ""}  # with CI set its telemetry would be silent anyway
    environment = {name: value for name, value in (os.environ | telling).items() if value}
    done = subprocess.run([sys.executable, "-c", SILENT], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "torch.Size([1, 2, 4, 4, 4])\n", "")
    assert not [path for path in tmp_path.rglob("*") if "intel" in path.name.lower() or "openvino" in path.name]
