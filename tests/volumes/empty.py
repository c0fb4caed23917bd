"""Empty files: where names are all that counts."""

from __future__ import annotations

from pathlib import Path


def touch(folder: Path, *names: str) -> list[Path]:
    """Files of these names, with the folders that they name."""
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths
