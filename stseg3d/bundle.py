"""Bundles: found by name or path, loaded strictly, written atomically.

Finding a bundle and reading its metadata need the standard library only, so that ``stseg3d --help`` can name the embedded ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from monai.bundle import ConfigParser

INFERENCE = Path("configs", "inference.json")
METADATA = Path("configs", "metadata.json")
WEIGHTS = Path("models", "model.pt")
# MONAI Label reads the kind of task from the name, so every embedded bundle ends on it; a user need not type it.
NAME_SUFFIX = "_segmentation"


def embedded_folder() -> Path:
    """Folder of the bundles that come with the package: inside it in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    checkout = package.parent
    # The pyproject.toml tells a checkout from a site-packages that happens to have a folder of this name.
    return checkout / "bundles" if (checkout / "pyproject.toml").is_file() else package / "bundles"


def bundle_names() -> list[str]:
    """Names of the bundles that come with the package, sorted; empty if there are none."""
    return sorted(path.parents[1].name for path in embedded_folder().glob(f"*/{INFERENCE.as_posix()}"))


def find_bundle(name_or_path: str | Path) -> Path:
    """Absolute path of a bundle.

    Args:
        name_or_path: Folder that holds ``configs/inference.json``, or the name of an embedded bundle, with or without ``_segmentation``.

    Raises:
        FileNotFoundError: If it is neither; the message names the embedded bundles.
    """
    folder = Path(name_or_path).expanduser()
    if (folder / INFERENCE).is_file():
        return folder.resolve()
    names = bundle_names()
    for name in (str(name_or_path), f"{name_or_path}{NAME_SUFFIX}"):
        if name in names:
            return embedded_folder() / name
    embedded = f"the name of an embedded one ({', '.join(names) or 'there is none'})"
    what = "is a folder without it" if folder.is_dir() else "does not exist"
    msg = f"bundle must be a folder with {INFERENCE.as_posix()} or {embedded}; {str(name_or_path)!r} {what}"
    raise FileNotFoundError(msg)


def read_metadata(bundle: Path) -> dict[str, Any]:
    """Content of the bundle's ``configs/metadata.json``.

    Raises:
        FileNotFoundError: If the bundle has none.
        ValueError: If it is not a JSON object.
    """
    path = bundle / METADATA
    if not path.is_file():
        msg = f"bundle {bundle} must hold {METADATA.as_posix()}, which is missing"
        raise FileNotFoundError(msg)
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"{path} must be JSON: {error}"
        raise ValueError(msg) from error
    if not isinstance(metadata, dict):
        msg = f"{path} must hold a JSON object, got {type(metadata).__name__}"
        raise ValueError(msg)
    return metadata


def weights_sha256(bundle: Path) -> str:
    """SHA-256 of ``models/model.pt``, in hexadecimal; empty if the bundle has no weights."""
    path = bundle / WEIGHTS
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def select_device(name: str = "auto") -> torch.device:
    """The device of that name.

    Args:
        name: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ValueError: If the name means nothing, or the device is not there.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        msg = f"device must be auto, cpu, cuda or cuda:N, got {name!r}"
        raise ValueError(msg) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        msg = f"device must be there: {name!r} was asked for, but torch sees {torch.cuda.device_count()} CUDA devices"
        raise ValueError(msg)
    return device


def load_network(
    bundle: Path, device: str | torch.device = "cpu", *, overrides: Mapping[str, Any] | None = None
) -> tuple[torch.nn.Module, ConfigParser]:
    """The bundle's network with its weights, ready for inference, and the parser that made it.

    The parser has read ``inference.json`` and the metadata; anything else of them is made on demand, such as
    ``parser.get_parsed_content("inferer")``. **This runs what the bundle's ``_target_`` and ``$`` entries name: load bundles you trust.**

    Args:
        bundle: Folder of the bundle, as :func:`find_bundle` returns it.
        device: Where the network goes; see :func:`select_device` for names.
        overrides: Config entries to set before anything is made, by id, such as ``{"inferer#output": "labels"}``.

    Raises:
        FileNotFoundError: If the bundle has no weights.
        ValueError: If the configs cannot be read, the weights do not fit the network, or there is no entry to override.
    """
    parser = read_config(bundle, device=device, overrides=overrides)
    network: torch.nn.Module = parser.get_parsed_content("network_def")
    load_weights(network, bundle / WEIGHTS, hint=f"train it with `stseg3d train {bundle} --data dataset.json`")
    return network.to(parser.get_parsed_content("device")).eval(), parser


def read_config(
    bundle: Path,
    config: str | Iterable[str] = INFERENCE.name,
    *,
    device: str | torch.device = "cpu",
    overrides: Mapping[str, Any] | None = None,
) -> ConfigParser:
    """Parser of one or more of the bundle's configs, later ones over earlier ones; nothing of them is made yet.

    Args:
        bundle: Folder of the bundle; becomes the config's ``bundle_root``.
        config: Name or names in the folder ``configs``.
        device: Becomes the config's ``device``.
        overrides: Entries to set, by id; they must exist, so that a mistyped one is not accepted in silence, as MONAI does.

    Raises:
        ValueError: If a file cannot be read, or there is no entry to override.
    """
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    files = [bundle / "configs" / name for name in ([config] if isinstance(config, str) else config)]
    try:
        parser.read_config([str(file) for file in files])
        parser.read_meta(read_metadata(bundle))
    except (OSError, ValueError, KeyError) as error:
        msg = f"bundle {bundle}: {' + '.join(file.name for file in files)} must be readable configs: {error}"
        raise ValueError(msg) from error
    if isinstance(device, str):
        device = select_device(device)
    parser["bundle_root"] = str(bundle)
    parser["device"] = f"$torch.device({str(device)!r})"
    for key, value in (overrides or {}).items():
        if key not in parser:
            msg = f"bundle {bundle} must have the entry {key!r} to override it"
            raise ValueError(msg)
        parser[key] = value
    return parser


def load_weights(network: torch.nn.Module, path: Path, *, hint: str = "") -> None:
    """Put a flat state dict into a network, strictly.

    Args:
        network: Its parameters keep their type; float16 on disk becomes what they are.
        path: File of a state dict, or of a checkpoint ``{"model": state dict}`` as MONAI's ``CheckpointSaver`` writes it.
        hint: What to do if the file is missing; ends the message.

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

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, KeyError and more, by what is damaged
        # The first sentence alone: torch goes on to advise loading with weights_only=False, which executes what is in the file.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0]
        msg = f"weights {path} must be a state dict saved by torch: {reason}"
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
        path: Where to; its folder is made.
        dtype: Type of the floating-point tensors on disk. One that would overflow in it keeps its own; integers always do.

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
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    try:
        torch.save({name: stored(tensor) for name, tensor in state_dict.items()}, temporary)
        Path(temporary).chmod(0o644)  # mkstemp makes files that only the owner can read
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path
