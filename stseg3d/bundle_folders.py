"""Folders of bundles, found by name or path. Needs the standard library only, so that the command line answers at once."""

from __future__ import annotations

from pathlib import Path

INFERENCE = Path("configs", "inference.json")
PLAN = Path("configs", "plan.json")
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
