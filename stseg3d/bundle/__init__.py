"""Bundles: found by name or path, trusted by a check or by the user, loaded strictly, written atomically."""

from stseg3d.bundle.config import ensure_trusted_bundle, load_network, read_config
from stseg3d.bundle.lookup import (
    INFERENCE,
    METADATA,
    NAME_SUFFIX,
    WEIGHTS,
    bundle_names,
    embedded_folder,
    find_bundle,
    read_metadata,
    weights_sha256,
)
from stseg3d.bundle.trust import UntrustedError
from stseg3d.bundle.weights import load_weights, read_weights, save_weights
from stseg3d.machine.devices import select_device

__all__ = [
    "INFERENCE",
    "METADATA",
    "NAME_SUFFIX",
    "WEIGHTS",
    "UntrustedError",
    "bundle_names",
    "embedded_folder",
    "ensure_trusted_bundle",
    "find_bundle",
    "load_network",
    "load_weights",
    "read_config",
    "read_metadata",
    "read_weights",
    "save_weights",
    "select_device",
    "weights_sha256",
]
