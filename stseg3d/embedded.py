"""Bundles that come with the package: where they lie, and their names. Needs the standard library only, so that ``--help`` is quick."""

from __future__ import annotations

from pathlib import Path


def embedded_folder() -> Path:
    """Folder of the bundles that come with the package: inside it in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    checkout = package.parent
    # The pyproject.toml tells a checkout from a site-packages that happens to have a folder of this name.
    return checkout / "bundles" if (checkout / "pyproject.toml").is_file() else package / "bundles"


def bundle_names() -> list[str]:
    """Names of the bundles that come with the package, sorted; empty if there are none."""
    return sorted(path.parents[1].name for path in embedded_folder().glob("*/configs/inference.json"))
