from __future__ import annotations

import os

import numpy as np
import pytest

from stseg3d.machine import memory
from stseg3d.volumes import Case, open_volume
from stseg3d.volumes.ahead import begin_reading


@pytest.fixture
def case(write_nifti, rng):
    return Case("a", write_nifti("a.nii.gz", rng.integers(-99, 99, (8, 9, 10)).astype(np.int16)))


def test_what_was_read_ahead_is_the_image(case):
    volume = begin_reading(case).take(Case("a", case.image))
    alone = open_volume(case.image)
    assert volume.grid == alone.grid
    np.testing.assert_array_equal(volume.read(), alone.read())


def test_it_is_taken_once(case):
    found = begin_reading(case)
    assert found.take(case) is not None
    assert found.take(case) is None


def test_nobody_but_the_first_has_it(case):
    found = begin_reading(case)
    assert found.take(Case("b", case.image)) is None
    assert found.take(case) is None


@pytest.mark.parametrize("change", ["content", "time", "another file"])
def test_of_a_file_that_has_changed_it_is_let_go(case, change):
    found = begin_reading(case)
    before = os.stat(case.image)
    if change == "content":
        case.image.write_bytes(case.image.read_bytes() + bytes(8))
    elif change == "time":
        os.utime(case.image, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    else:
        other = case.image.with_name("other.nii.gz")
        other.write_bytes(case.image.read_bytes())
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        other.replace(case.image)
    assert found.take(case) is None


def test_a_file_that_has_gone_is_told(case):
    found = begin_reading(case)
    case.image.unlink()
    with pytest.raises(FileNotFoundError):
        found.take(case)


def test_what_is_wrong_with_a_file_is_left_to_whoever_opens_it(case):
    assert begin_reading(Case("b", case.image.with_name("none.nii.gz"))) is None
    case.image.write_bytes(b"no image")
    assert begin_reading(case) is None


def test_other_files_are_not_read_ahead(write_nifti, tmp_path):
    assert begin_reading(Case("a", write_nifti("a.nii", np.zeros((8, 9, 10), np.int16)))) is None
    assert begin_reading(Case("series", tmp_path)) is None


@pytest.mark.parametrize(("free", "reads"), [(4 * 8 * 9 * 10 * 2, True), (4 * 8 * 9 * 10 * 2 - 1, False), (None, False)])
def test_it_takes_a_fourth_of_the_free_memory_at_most(case, monkeypatch, free, reads):
    monkeypatch.setattr(memory, "available_bytes", lambda: free)
    assert (begin_reading(case) is not None) == reads
