"""Parsers of a bundle's configs, and the network in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stseg3d.bundle.files import METADATA, WEIGHTS, read_metadata
from stseg3d.bundle.rendering import open_bundle
from stseg3d.bundle.trained import ensure_trained_for
from stseg3d.bundle.trust import OpenBundle
from stseg3d.bundle.weights import load_weights
from stseg3d.bundle_folders import INFERENCE
from stseg3d.machine.devices import select_device
from stseg3d.machine.json_files import read_json

if TYPE_CHECKING:
    import torch
    from monai.bundle import ConfigParser


def load_network(
    bundle: Path, device: str | torch.device = "cpu", *, overrides: Mapping[str, Any] | None = None, trust: bool = False
) -> tuple[torch.nn.Module, ConfigParser]:
    """The bundle's network with its weights, ready for inference, and the parser that made it.

    Anything else of ``inference.json`` is made on demand, such as ``parser.get_parsed_content("inferer")``.

    Args:
        bundle: Folder of the bundle, as :func:`find_bundle` returns it.
        device: Device of the network; see :func:`select_device` for names.
        overrides: Config entries to set before anything is made, by id, such as ``{"output#kind": "labels"}``; not checked.
        trust: Run a bundle that is more than data, see :func:`stseg3d.bundle.trust.read_bundle`.

    Raises:
        FileNotFoundError: If the bundle has no weights.
        UntrustedError: If it is more than data, and ``trust`` is off.
        ValueError: If the configs cannot be read, the weights do not fit the network or were trained to see images in another way, or
            an entry to override does not exist.
    """
    opened = open_bundle(bundle, trust=trust)
    if opened.plan is not None:
        ensure_trained_for(bundle, opened.plan)
    parser = config_parser(opened, [INFERENCE.name], device=device, overrides=overrides)
    network: torch.nn.Module = parser.get_parsed_content("network_def")
    load_weights(network, bundle / WEIGHTS, hint=f"train it with `stseg3d train {bundle} --data dataset.json`")
    return network.to(parser.get_parsed_content("device")).eval(), parser


def config_parser(
    opened: OpenBundle, names: Iterable[str], *, device: str | torch.device = "cpu", overrides: Mapping[str, Any] | None = None
) -> ConfigParser:
    """Parser of one or more of a bundle's configs, where later ones overlay earlier ones; nothing is instantiated yet.

    Args:
        opened: The bundle; its folder becomes the config's ``bundle_root``.
        names: Names in the folder ``configs``.
        device: Becomes the config's ``device``.
        overrides: Entries to set, by id; they must exist, so that a mistyped one is not accepted in silence, as MONAI does.

    Raises:
        ValueError: If a file cannot be read, or an entry to override does not exist.
    """
    parser = _parser(opened, names)
    device = select_device(device) if isinstance(device, str) else device
    parser["bundle_root"] = str(opened.folder)
    parser["device"] = f"$torch.device({str(device)!r})"
    for key, value in (overrides or {}).items():
        if key not in parser:
            msg = f"bundle {opened.folder} must have the entry {key!r} to override it"
            raise ValueError(msg)
        parser[key] = value
    return parser


def _parser(opened: OpenBundle, names: Iterable[str]) -> ConfigParser:
    from monai.bundle import ConfigParser
    from monai.bundle.utils import merge_kv

    parser = ConfigParser({})
    for name in names:
        path = opened.folder / "configs" / name
        if name not in opened.texts:
            msg = f"{path} must be a config of the bundle, got none"
            raise ValueError(msg)
        content = read_json(opened.texts[name].encode(), str(path))
        if not isinstance(content, dict):
            msg = f"{path} must hold a JSON object, got {type(content).__name__}"
            raise ValueError(msg)
        try:
            for key, value in content.items():
                merge_kv(parser, key, value)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            msg = f"{path} must be a config that lies over others: {error}"
            raise ValueError(msg) from error
    if opened.plan is None and (opened.folder / METADATA).is_file():  # what is rendered from a plan refers to none
        parser["_meta_"] = read_metadata(opened.folder)
    return parser
