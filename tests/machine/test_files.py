"""Files are there whole, with the permissions of any new file, or as they were before."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from stseg3d.machine.files import atomic_write, atomic_write_text, remove_temporary_files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_place_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_text("before")
    with atomic_write(path) as temporary:
        assert temporary.read_bytes() == b""
        assert temporary.name.endswith(".a.nii.gz")  # writers go by the suffix
        temporary.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert names(tmp_path) == ["a.nii.gz"]


def fail_at(path: Path, error: type[BaseException]) -> None:
    path.write_text("half")
    raise error


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(error: type[BaseException], tmp_path: Path) -> None:
    path = atomic_write_text(tmp_path / "a.txt", "before")
    with pytest.raises(error), atomic_write(path) as temporary:
        fail_at(temporary, error)
    assert path.read_text() == "before"
    assert names(tmp_path) == ["a.txt"]


def test_the_folder_must_exist(tmp_path: Path) -> None:
    path = tmp_path / "none" / "a.txt"
    with pytest.raises(FileNotFoundError, match=re.escape(f"{path}: output folder must exist, got none")):
        atomic_write_text(path, "")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permission bits")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_permissions_are_those_of_any_new_file(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        path = atomic_write_text(tmp_path / "a.txt", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_text_keeps_its_line_ends(tmp_path: Path) -> None:
    assert atomic_write_text(tmp_path / "a.txt", "µm\nmm³\r\n").read_bytes() == b"\xc2\xb5m\nmm\xc2\xb3\r\n"


def test_what_killed_processes_left_of_some_files_is_removed(tmp_path: Path) -> None:
    for name in (".12.a_seg.json", ".12..12.a_seg.json", ".3.a.b_seg.json", ".x.a_seg.json", "a_seg.json", ".12.a_seg.json.gz"):
        (tmp_path / name).touch()
    remove_temporary_files(tmp_path, re.compile(r"a_[a-z]+\.json"))
    assert names(tmp_path) == [".12.a_seg.json.gz", ".3.a.b_seg.json", ".x.a_seg.json", "a_seg.json"]
    remove_temporary_files(tmp_path / "none", re.compile(".*"))
