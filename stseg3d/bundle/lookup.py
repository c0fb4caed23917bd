"""Bundles found by name or path, with the standard library only, so that ``stseg3d --help`` can name the embedded ones."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from stseg3d.embedded import bundle_names, embedded_folder
from stseg3d.plan.json_values import read_json

INFERENCE = Path("configs", "inference.json")
PLAN = Path("configs", "plan.json")
METADATA = Path("configs", "metadata.json")
WEIGHTS = Path("models", "model.pt")
# MONAI Label reads the kind of task from the name, so the name of every embedded bundle ends in it. Users need not type it.
NAME_SUFFIX = "_segmentation"


def find_bundle(name_or_path: str | Path) -> Path:
    """Absolute path of a bundle.

    Args:
        name_or_path: Folder that holds ``configs/inference.json``, or the name of an embedded bundle, with or without ``_segmentation``.

    Raises:
        FileNotFoundError: If it is neither; the message names the embedded bundles.
    """
    folder = Path(name_or_path).expanduser()
    if any((folder / name).is_file() for name in (INFERENCE, PLAN)):
        return folder.resolve()
    names = bundle_names()
    for name in (str(name_or_path), f"{name_or_path}{NAME_SUFFIX}"):
        if name in names:
            return embedded_folder() / name
    embedded = f"the name of an embedded one ({', '.join(names) or 'there is none'})"
    what = "is a folder without it" if folder.is_dir() else "does not exist"
    msg = f"bundle must be a folder with {INFERENCE.as_posix()} or {embedded}; {str(name_or_path)!r} {what}"
    raise FileNotFoundError(msg)


def read_metadata(bundle: Path, content: bytes | None = None) -> dict[str, Any]:
    """Content of the bundle's ``configs/metadata.json``.

    Args:
        bundle: Folder of the bundle.
        content: The file's bytes, if they have been read already.

    Raises:
        FileNotFoundError: If the bundle has none.
        ValueError: If it is not a JSON object.
    """
    path = bundle / METADATA
    if content is None and not path.is_file():
        msg = f"bundle {bundle} must hold {METADATA.as_posix()}, which is missing"
        raise FileNotFoundError(msg)
    metadata = read_json(path.read_bytes() if content is None else content, str(path))
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
