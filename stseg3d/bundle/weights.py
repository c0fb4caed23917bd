"""Weights: read without executing anything, loaded strictly, written whole or not at all."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stseg3d.machine.files import atomic_write

if TYPE_CHECKING:
    import torch


def load_weights(network: torch.nn.Module, path: Path, *, hint: str = "") -> None:
    """Load a flat state dict into a network, strictly.

    Args:
        network: The network; its parameters keep their type, whatever the type on disk.
        path: File of a state dict, or of a checkpoint ``{"model": state dict}`` as MONAI's ``CheckpointSaver`` writes it.
        hint: End of the message if the file is missing: what to do.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not such a state dict, or a name or shape in it does not fit; the message names the first that does not.
    """
    if not path.is_file():
        msg = f"weights {path} are missing" + (f"; {hint}" if hint else "")
        raise FileNotFoundError(msg)
    found = read_weights(path)
    wanted = network.state_dict()
    misfit = next((f"lack {name!r}" for name in wanted if name not in found), None)
    misfit = misfit or next((f"hold {name!r}, which it does not have" for name in found if name not in wanted), None)
    shapes = ((name, tuple(found[name].shape), tuple(wanted[name].shape)) for name in wanted if name in found)
    misfit = misfit or next((f"hold {name!r} of shape {got}, where it has {due}" for name, got, due in shapes if got != due), None)
    if misfit:
        msg = f"weights {path} must fit the network {type(network).__name__}: they {misfit}"
        raise ValueError(msg)
    network.load_state_dict(found)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """State dict in a file, on the CPU; the entry ``model`` of a checkpoint. Executes nothing (``weights_only``).

    Raises:
        ValueError: If the file holds anything else, or is damaged.
    """
    import torch

    _refuse_programs(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about types and formats that torch will drop
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, KeyError and more
        msg = f"weights {path} must be a state dict saved by torch: {_reason(error)}"
        raise ValueError(msg) from error
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not content or not all(isinstance(v, torch.Tensor) for v in content.values()):
        msg = f"weights {path} must be a flat state dict of tensors, got {type(content).__name__}"
        raise ValueError(msg)
    return content


def save_weights(state_dict: Mapping[str, torch.Tensor], path: Path, *, dtype: str = "float16") -> Path:
    """Write a flat state dict, whole or not at all.

    Args:
        state_dict: Tensors by name, on any device.
        path: File to write; its folder is created.
        dtype: Type of the floating-point tensors on disk. Tensors that would overflow in it keep their own type, as integers do.

    Returns:
        ``path``.
    """
    import torch

    kind = getattr(torch, dtype)

    def stored(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.detach().cpu()
        if not tensor.is_floating_point():
            return tensor.clone()
        cast = tensor.to(kind, copy=True)
        return tensor.clone() if (cast.isinf() & ~tensor.isinf()).any() else cast

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        torch.save({name: stored(tensor) for name, tensor in state_dict.items()}, temporary)
    return path


def _refuse_programs(path: Path) -> None:
    """Refuse archives that hold programs, or are larger when unpacked.

    Raises:
        ValueError: If the file is a TorchScript archive, or compressed.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError):
        return  # torch's older format, or damaged, which torch reports
    if any(Path(entry.filename).name == "constants.pkl" for entry in entries):
        msg = f"weights {path} must be a state dict saved by torch, got a TorchScript archive, which is a program"
        raise ValueError(msg)
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > path.stat().st_size:  # torch stores tensors as they are
        msg = f"weights {path} must not be compressed, got {unpacked} bytes in a file of {path.stat().st_size}"
        raise ValueError(msg)


def _reason(error: Exception) -> str:
    """One sentence, without torch's advice to load with ``weights_only=False``, which would execute what is in the file."""
    text = str(error).strip() or type(error).__name__
    foreign = re.search(r"GLOBAL ([\w.]+)", text) or re.search(r"[Uu]nsupported (?:class|global|operand) ([\w.]+)", text)
    if "Weights only load failed" in text and foreign:
        return f"it holds more than tensors, and would call {foreign[1]}"
    return text.splitlines()[0].split(". ")[0]
