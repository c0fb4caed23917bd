"""What only some systems can do, for tests that need it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

on_linux = pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="asks /proc, which Linux alone has")
on_posix = pytest.mark.skipif(os.name == "nt", reason="sends signals or makes pipes with names, as POSIX has them")


def make_link(path: Path, target: Path | str) -> None:
    """Make a link; a test is skipped where it may not."""
    try:
        path.symlink_to(target, target_is_directory=(path.parent / target).is_dir())
    except OSError as error:
        if os.name != "nt":
            raise
        pytest.skip(f"not everybody may make links on Windows: {error}")
