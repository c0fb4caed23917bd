"""Files of a bundle: its metadata, and the digest of its weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from stseg3d.machine.json_files import read_json

METADATA = Path("configs", "metadata.json")
WEIGHTS = Path("models", "model.pt")


def read_metadata(bundle: Path, content: bytes | None = None) -> dict[str, Any]:
    """Content of the bundle's ``configs/metadata.json``, whose bytes may have been read already.

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
