"""Runtimes: what computes the networks, PyTorch itself or OpenVINO in its place."""

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
HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}
# How much logits may differ from PyTorch's in float32, as a share of their norm: many times what those of the embedded bundles do, and
# far below what a network gives that was converted wrongly.
TOLERANCES = {"f32": 1e-2, "bf16": 0.1}
CACHED_SHAPES = 8  # of each network; a stage has one most often
_LOCK = Lock()  # of what is below, and of running it: what is compiled answers one at a time
# By network: what tells its weights, and what was compiled of them.
_COMPILED: WeakKeyDictionary[nn.Module, tuple[bytes, dict[Any, Any]]] = WeakKeyDictionary()


def ensure_runtime(runtime: str, device: torch.device, precision: str = "float32") -> None:
    """Check that a runtime is there for a device and a precision.

    Raises:
        ModuleNotFoundError: If OpenVINO is not installed.
        ValueError: If it does not run on the device, or not in the precision.
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
    """The network as a runtime computes it, for one volume; for PyTorch that is the network itself.

    Args:
        runtime: ``"torch"`` or ``"openvino"``.
        network: ``(B, C, *S) -> (B, K, *S)`` logits, or a list of such whose first counts.
        stage: What errors call it: ``"rough"`` or ``"fine"``.
        precision: In which it will be run, see :func:`stseg3d.compute.evaluating`.

    Raises:
        ModuleNotFoundError: If OpenVINO is not installed.
        ValueError: If the runtime does not run on the network's device, or not in the precision.
    """
    ensure_runtime(runtime, device_of(network), precision)
    return network if runtime == TORCH else OpenVinoNetwork(network, stage)


class OpenVinoNetwork(nn.Module):
    """A network that OpenVINO computes; its parameters stay those of the network.

    For the first crop of a shape it is traced and converted, compared with PyTorch, and compiled for any number of crops of that shape, in
    bfloat16 where autocast says so, for as many threads as PyTorch has. What was compiled is kept while the network lives, for whoever
    asks for the same again; not where weights have changed, which is looked at when this is made: so make one for each volume.

    Args:
        network: ``(B, C, *S) -> (B, K, *S)`` logits, or a list of such whose first counts.
        stage: What errors call it: ``"rough"`` or ``"fine"``.
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
            ValueError: If OpenVINO cannot convert the network, or would give other logits than PyTorch.
        """
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        key = (tuple(batch.shape[1:]), HINTS[dtype], torch.get_num_threads())
        with _LOCK:
            if key not in self._compiled:
                found = self._compile_and_compare(batch[:1], HINTS[dtype])
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
            why = str(error).strip().splitlines()[-1:] or [type(error).__name__]  # of several lines the last one says it
            msg = self._refusal("cannot convert", why[0].lstrip("- "))
            raise ValueError(msg) from error
        if not differ <= TOLERANCES[hint]:  # so that NaN is one, too
            msg = self._refusal("computes wrongly", f"its logits differ from PyTorch's by {differ:.1g} of their norm")
            raise ValueError(msg)
        return compiled

    def _refusal(self, which: str, why: str) -> str:
        name = type(self.network).__name__
        return f"runtime must be torch for a {self.stage} network that OpenVINO {which}, got openvino for {name}: {why}"


class _First(nn.Module):
    """What counts of a network's output: the first of several."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = network.training

    def forward(self, batch: Tensor) -> Tensor:
        logits = self.network(batch)
        return cast(Tensor, logits[0] if isinstance(logits, (list, tuple)) else logits)


@cache
def _openvino() -> Any:
    """OpenVINO, which tells Google Analytics of each import and conversion unless its telemetry package is missing: here it is.

    Where a program has imported OpenVINO itself, the consent that it was given there holds.
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
        # That TorchScript is deprecated, and that what depends on Python values holds for this shape alone, for which it is used.
        warnings.simplefilter("ignore")
        example = crop.clone()
        trace: Any = torch.jit.trace  # left to `convert_model`, it is done a second time for comparison
        traced = torch.jit.freeze(trace(network, example, check_trace=False))
        model = openvino.convert_model(traced, example_input=example, share_weights=False)
    model.reshape([-1, *crop.shape[1:]])
    # Pinned, single threads of several processes would all share the first core.
    options = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": hint, "ENABLE_CPU_PINNING": False}
    return openvino.Core().compile_model(model, "CPU", options)


def _difference(compiled: Any, network: nn.Module, crop: Tensor) -> float:
    """Distance of logits from PyTorch's in float32, of two crops, as it was traced with one; a share of their norm."""
    pair = torch.cat([crop, crop.flip(2)])
    with torch.autocast("cpu", enabled=False):
        due = torch.cat([network(pair[:1]), network(pair[1:])]).float().nan_to_num()
    found = torch.from_numpy(compiled(pair.numpy())[0]).nan_to_num()
    return float((found - due).norm() / due.norm().clamp_min(1e-12)) if found.shape == due.shape else float("inf")


def _digest(network: nn.Module) -> bytes:
    """Digest of all numbers of a network and the layers they are in: no way of changing a weight goes unseen."""
    told = hashlib.sha256(str(network).encode())
    for name, tensor in chain(network.named_parameters(), network.named_buffers()):
        told.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        told.update(tensor.detach().reshape(-1).view(torch.uint8).numpy().data)
    return told.digest()
