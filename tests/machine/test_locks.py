"""Locks between processes, as POSIX and as Windows have them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from stseg3d.machine import locks

LAST = 2**62 - 1
OTHER = """
import os, sys
from stseg3d.machine.locks import lock_byte
file = os.open(sys.argv[1], os.O_RDWR)
print([lock_byte(file, int(offset)) for offset in sys.argv[2:]], flush=True)
"""


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "locks", os.O_RDWR | os.O_CREAT)
    yield opened
    os.close(opened)


def other_process(path: Path, *offsets: int) -> str:
    """Which of the bytes another process can lock."""
    command = [sys.executable, "-c", OTHER, str(path), *map(str, offsets)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_byte_is_locked_for_others_until_it_is_unlocked(file: int, tmp_path: Path) -> None:
    assert locks.lock_byte(file, 0)
    assert locks.lock_byte(file, LAST)
    assert other_process(tmp_path / "locks", 0, 1, LAST) == "[False, True, False]"
    locks.unlock_byte(file, LAST)
    assert other_process(tmp_path / "locks", 0, LAST) == "[False, True]"  # the other's own ended with it
    assert (tmp_path / "locks").stat().st_size == 0


def test_a_file_is_locked_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a")
    opened = os.open(path, os.O_RDWR)
    locks.lock_file(opened)
    code = "import os, sys; from stseg3d.machine.locks import lock_file; lock_file(os.open(sys.argv[1], os.O_RDWR)); print('locked')"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as waiting:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(1)
        assert path.read_bytes() == b"a"  # it can be read all the same
        os.close(opened)
        assert waiting.communicate(timeout=60)[0] == "locked\n"


# --- as on Windows -----------------------------------------------------------


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """A module ``msvcrt`` of our own; gives the descriptor that holds each byte."""
    at: dict[int, int] = {}  # no file system here lets a file stand that far
    held: dict[int, int] = {}

    def locking(file: int, mode: int, n_bytes: int) -> None:
        assert n_bytes == 1
        place = at[file]
        if mode == fake.LK_UNLCK and held.get(place) == file:
            del held[place]
        elif mode == fake.LK_NBLCK and place not in held:  # not even the same descriptor may lock twice
            held[place] = file
        else:
            raise PermissionError(errno.EACCES, "Permission denied")

    fake = SimpleNamespace(LK_UNLCK=0, LK_NBLCK=2, locking=locking)
    monkeypatch.setitem(sys.modules, "msvcrt", fake)
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks.os, "lseek", lambda file, offset, whence: at.__setitem__(file, offset + whence))
    return held


def test_on_windows_a_byte_is_locked_where_the_file_stands(windows: dict[int, int]) -> None:
    assert locks.lock_byte(3, LAST)
    assert locks.lock_byte(3, 7)
    assert windows == {LAST: 3, 7: 3}
    assert not locks.lock_byte(4, 7)
    locks.unlock_byte(3, 7)
    assert locks.lock_byte(4, 7)


def test_on_windows_a_locked_file_is_waited_for(windows: dict[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    locks.lock_file(3)
    assert windows == {locks.FILE_BYTE: 3}  # past all content, which others may read
    waits = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            windows.clear()

    monkeypatch.setattr(locks.time, "sleep", sleep)
    locks.lock_file(4)
    assert (windows, len(waits)) == ({locks.FILE_BYTE: 4}, 2)


def test_on_windows_another_error_is_no_lock_of_others(windows: dict[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    def locking(*_: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(sys.modules["msvcrt"], "locking", locking)
    with pytest.raises(OSError, match="Invalid argument"):
        locks.lock_byte(3, 1)
