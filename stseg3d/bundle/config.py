"""Configs of a bundle, and the network they describe."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stseg3d.bundle.lookup import INFERENCE, METADATA, WEIGHTS, read_metadata
from stseg3d.bundle.trust import ensure_trusted
from stseg3d.bundle.weights import load_weights
from stseg3d.machine.devices import select_device

if TYPE_CHECKING:
    import torch
    from monai.bundle import ConfigParser


def load_network(
    bundle: Path, device: str | torch.device = "cpu", *, overrides: Mapping[str, Any] | None = None, trust: bool = False
) -> tuple[torch.nn.Module, ConfigParser]:
    """The bundle's network with its weights, ready for inference, and the parser that made it.

    The parser has read ``inference.json`` and the metadata; anything else of them is made on demand, such as
    ``parser.get_parsed_content("inferer")``. This runs what the bundle's ``_target_`` and ``$`` entries name, once they have been checked.

    Args:
        bundle: Folder of the bundle, as :func:`find_bundle` returns it.
        device: Where the network goes; see :func:`select_device` for names.
        overrides: Config entries to set before anything is made, by id, such as ``{"inferer#output": "labels"}``; not checked.
        trust: Run whatever the configs name, see :func:`ensure_trusted_bundle`.

    Raises:
        FileNotFoundError: If the bundle has no weights.
        UntrustedError: If the configs call something outside the allow-list, and ``trust`` was not given.
        ValueError: If the configs cannot be read, the weights do not fit the network, or there is no entry to override.
    """
    parser = read_config(bundle, device=device, overrides=overrides, trust=trust)
    network: torch.nn.Module = parser.get_parsed_content("network_def")
    load_weights(network, bundle / WEIGHTS, hint=f"train it with `stseg3d train {bundle} --data dataset.json`")
    return network.to(parser.get_parsed_content("device")).eval(), parser


def ensure_trusted_bundle(bundle: Path, *configs: str) -> None:
    """Refuse a bundle whose configs call anything outside the allow-list; to be asked before anything of it runs.

    A seat belt, not a sandbox: see the README.

    Args:
        bundle: Folder of the bundle.
        configs: Names in the folder ``configs``, later ones laid over earlier ones; by default ``inference.json``.

    Raises:
        UntrustedError: If they do; the message names the entry and what it calls.
        ValueError: If a file cannot be read.
    """
    read_config(bundle, configs or INFERENCE.name, trust=False)


def read_config(
    bundle: Path,
    config: str | Iterable[str] = INFERENCE.name,
    *,
    device: str | torch.device = "cpu",
    overrides: Mapping[str, Any] | None = None,
    trust: bool = True,
) -> ConfigParser:
    """Parser of one or more of the bundle's configs, later ones over earlier ones; nothing of them is made yet.

    Args:
        bundle: Folder of the bundle; becomes the config's ``bundle_root``.
        config: Name or names in the folder ``configs``.
        device: Becomes the config's ``device``.
        overrides: Entries to set, by id; they must exist, so that a mistyped one is not accepted in silence, as MONAI does.
        trust: Whether the files may call anything; without it they are checked, see :func:`ensure_trusted_bundle`.

    Raises:
        UntrustedError: If they call something outside the allow-list, and ``trust`` is off.
        ValueError: If a file cannot be read, or there is no entry to override.
    """
    names = [config] if isinstance(config, str) else [*config]
    parser = _parser(bundle, names)
    if not trust:
        ensure_trusted(parser, f"{bundle}: {' + '.join(names)} and {METADATA.name}")
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


def _parser(bundle: Path, names: Iterable[str]) -> ConfigParser:
    """Parser of the files as they are, metadata included."""
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    files = [bundle / "configs" / name for name in names]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Duplicate key")  # MONAI would take one of both
            parser.read_config([str(file) for file in files])
        parser.read_meta(read_metadata(bundle))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, UserWarning) as error:
        msg = f"bundle {bundle}: {' + '.join(file.name for file in files)} must be readable configs: {error}"
        raise ValueError(msg) from error
    return parser
