"""Bundles: found by name or path, data alone or trusted by the user, loaded strictly, written whole or not at all."""

from stseg3d.bundle.config import config_parser, load_network
from stseg3d.bundle.files import METADATA, WEIGHTS, read_metadata, weights_sha256
from stseg3d.bundle.rendering import open_bundle, render_bundle, write_plan
from stseg3d.bundle.trained import ensure_trained_for, remember_trained
from stseg3d.bundle.trust import OpenBundle, UntrustedError, read_bundle
from stseg3d.bundle.weights import load_weights, read_weights, save_weights
from stseg3d.bundle_folders import INFERENCE, PLAN, bundle_names, find_bundle
from stseg3d.machine.devices import select_device

__all__ = [
    "INFERENCE",
    "METADATA",
    "PLAN",
    "WEIGHTS",
    "OpenBundle",
    "UntrustedError",
    "bundle_names",
    "config_parser",
    "ensure_trained_for",
    "find_bundle",
    "load_network",
    "load_weights",
    "open_bundle",
    "read_bundle",
    "read_metadata",
    "read_weights",
    "remember_trained",
    "render_bundle",
    "save_weights",
    "select_device",
    "weights_sha256",
    "write_plan",
]
