"""Runtimes that compute the networks: PyTorch itself, or OpenVINO in its place."""

from __future__ import annotations

import hashlib
import sys
import warnings
from functools import cache
from importlib.util import find_spec
from itertools import chain
from threading import Lock
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from stseg3d.compute.batches import ran_out_of_memory
from stseg3d.compute.running import device_of
from stseg3d.plan.values import RUNTIMES

TORCH, OPENVINO = RUNTIMES
PRECISION_HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}
# Largest difference of logits from PyTorch's in float32, as a share of their norm: many times that of the embedded bundles, and far below
# that of a network that was converted wrongly.
TOLERANCES = {"f32": 1e-2, "bf16": 0.1}
CACHED_SHAPES = 8  # of each network; a stage usually has one
_LOCK = Lock()  # of the cache below and of its compiled networks, which run one call at a time
# By network: digest of its weights, and the compiled networks.
_COMPILED: WeakKeyDictionary[nn.Module, tuple[bytes, dict[Any, Any]]] = WeakKeyDictionary()


def ensure_runtime(runtime: str, device: torch.device, precision: str = "float32") -> None:
    """Check that a runtime is installed and can serve a device and a precision.

    Raises:
        ModuleNotFoundError: If OpenVINO is not installed.
        ValueError: If it does not support the device or the precision.
    """
    if runtime == TORCH:
        return
    if device.type != "cpu":
        msg = f"runtime openvino needs device cpu, got {device}"
        raise ValueError(msg)
    if precision == "float16":
        msg = f"runtime openvino needs precision float32 or bfloat16, got {precision}"
        raise ValueError(msg)
    if find_spec("openvino") is None:
        msg = "runtime openvino needs the package openvino, got none: pip install 'stseg3d[openvino]'"
        raise ModuleNotFoundError(msg)


def on_runtime(runtime: str, network: nn.Module, stage: str, precision: str = "float32") -> nn.Module:
    """The network in a runtime, for one volume; for PyTorch the network itself.

    Args:
        runtime: ``"torch"`` or ``"openvino"``.
        network: ``(B, C, *S) -> (B, K, *S)`` logits, or a list of them of which the first is used.
        stage: Its name in errors: ``"rough"`` or ``"fine"``.
        precision: Precision in which it will be run, see :func:`stseg3d.compute.evaluating`.

    Raises:
        ModuleNotFoundError: If OpenVINO is not installed.
        ValueError: If the runtime does not support the network's device or the precision.
    """
    ensure_runtime(runtime, device_of(network), precision)
    return network if runtime == TORCH else OpenVinoNetwork(network, stage)


class OpenVinoNetwork(nn.Module):
    """A network computed by OpenVINO, with its own parameters; of a list of logits the first is used. Errors name its stage.

    At the first crop of a shape the network is traced and converted, compared with PyTorch, and compiled for any number of crops of that
    shape, in bfloat16 under such an autocast, for as many threads as PyTorch has. Compiled networks are cached while the network lives
    and its weights stay the same. Weights are only checked when an instance is made, so make one for each volume.
    """

    def __init__(self, network: nn.Module, stage: str) -> None:
        super().__init__()
        self.network, self.stage = network, stage
        self.training = network.training  # so that `evaluating` leaves the network in the mode it found
        weights = _digest(network)
        with _LOCK:
            known, compiled = _COMPILED.get(network, (b"", {}))
            self._compiled = compiled if known == weights else {}
            _COMPILED[network] = weights, self._compiled

    def forward(self, batch: Tensor) -> Tensor:
        """Logits ``(B, K, *S)``, float32.

        Raises:
            ValueError: If OpenVINO cannot convert the network, or gives other logits than PyTorch.
        """
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        key = (tuple(batch.shape[1:]), PRECISION_HINTS[dtype], torch.get_num_threads())
        with _LOCK:
            if key not in self._compiled:
                found = self._compile_and_compare(batch[:1], PRECISION_HINTS[dtype])
                while len(self._compiled) >= CACHED_SHAPES:
                    del self._compiled[next(iter(self._compiled))]
                self._compiled[key] = found
            return torch.from_numpy(self._compiled[key](batch.contiguous().numpy())[0])

    def _compile_and_compare(self, crop: Tensor, hint: str) -> Any:
        try:
            compiled = _compile(_First(self.network), crop, hint)
            differ = _difference(compiled, _First(self.network), crop)
        except Exception as error:
            if ran_out_of_memory(error):
                raise
            why = str(error).strip().splitlines()[-1:] or [type(error).__name__]  # the last line names the cause
            msg = self._refusal("cannot convert", why[0].lstrip("- "))
            raise ValueError(msg) from error
        if not differ <= TOLERANCES[hint]:  # written so that NaN fails
            msg = self._refusal("computes wrongly", f"its logits differ from PyTorch's by {differ:.1g} of their norm")
            raise ValueError(msg)
        return compiled

    def _refusal(self, which: str, why: str) -> str:
        name = type(self.network).__name__
        return f"runtime must be torch for a {self.stage} network that OpenVINO {which}, got openvino for {name}: {why}"


class _First(nn.Module):
    """A network whose output is the first of several."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = network.training

    def forward(self, batch: Tensor) -> Tensor:
        logits = self.network(batch)
        return cast(Tensor, logits[0] if isinstance(logits, (list, tuple)) else logits)


@cache
def _openvino() -> Any:
    """OpenVINO without its telemetry, which reports each import and conversion to Google Analytics.

    If a program has imported OpenVINO itself, telemetry stays as that program has set it.
    """
    modules = cast(dict[str, Any], sys.modules)
    name = "openvino_telemetry"
    before = {name: modules[name]} if name in modules else {}
    modules[name] = None  # importing it is an ImportError
    try:
        import openvino
    finally:
        del modules[name]
        modules.update(before)
    return openvino


def _compile(network: nn.Module, crop: Tensor, hint: str) -> Any:
    openvino = _openvino()
    plain = torch._C.DisableTorchFunction()  # without `LoneCrops`, whose operation is oneDNN's
    with torch.inference_mode(mode=False), torch.no_grad(), torch.autocast("cpu", enabled=False), plain, warnings.catch_warnings():
        # Warnings that TorchScript is deprecated, and that the trace holds for this shape only, for which alone it is used.
        warnings.simplefilter("ignore")
        example = crop.clone()
        trace: Any = torch.jit.trace  # left to `convert_model`, it is done a second time for comparison
        traced = torch.jit.freeze(trace(network, example, check_trace=False))
        model = openvino.convert_model(traced, example_input=example, share_weights=False)
    model.reshape([-1, *crop.shape[1:]])
    # If pinned, single threads of several processes would all share the first core.
    options = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": hint, "ENABLE_CPU_PINNING": False}
    return openvino.Core().compile_model(model, "CPU", options)


def _difference(compiled: Any, network: nn.Module, crop: Tensor) -> float:
    """Distance of logits from PyTorch's in float32, as a share of their norm; for two crops, as one was traced."""
    pair = torch.cat([crop, crop.flip(2)])
    with torch.autocast("cpu", enabled=False):
        due = torch.cat([network(pair[:1]), network(pair[1:])]).float().nan_to_num()
    found = torch.from_numpy(compiled(pair.numpy())[0]).nan_to_num()
    return float((found - due).norm() / due.norm().clamp_min(1e-12)) if found.shape == due.shape else float("inf")


def _digest(network: nn.Module) -> bytes:
    """Digest of all numbers of a network and of their layers, so that no changed weight goes unseen."""
    told = hashlib.sha256(str(network).encode())
    for name, tensor in chain(network.named_parameters(), network.named_buffers()):
        told.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        told.update(tensor.detach().reshape(-1).view(torch.uint8).numpy().data)
    return told.digest()
