"""MetaImage and NRRD headers that name other files: lists and patterns are read as ITK does, all else is refused before ITK opens any."""

from __future__ import annotations

import os
import re
import zlib
from pathlib import Path

import numpy as np
import pytest

from stseg3d.volumes import open_volume
from tests.systems import make_link, on_posix

VOXELS = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
META = "NDims = 3\nBinaryData = True\nDimSize = 6 5 4\nElementType = MET_SHORT\n{more}ElementDataFile = {data}\n"
NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 6 5 4\nendian: little\nencoding: raw\n{more}data file: {data}\n"
NAMES = "".join(f"s{k:03d}.raw\n" for k in range(4))


@pytest.fixture
def write(tmp_path: Path):
    """A header beside its slices, ``s000.raw`` and so on, and all of them in ``all.raw``."""
    for k, plane in enumerate(VOXELS):
        (tmp_path / f"s{k:03d}.raw").write_bytes(plane.tobytes())
    (tmp_path / "all.raw").write_bytes(VOXELS.tobytes())

    def write(name: str, data: str, more: str = "", change=lambda text: text) -> Path:
        path = tmp_path / name
        path.write_bytes(change((META if name.endswith("mhd") else NRRD).format(data=data, more=more)).encode("latin-1"))
        return path

    return write


def refusal(path: Path) -> str:
    with pytest.raises(ValueError, match=re.escape(f"{path}: ")) as caught:
        open_volume(path).read()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr"])
@pytest.mark.parametrize("data", ["all.raw", "s%03d.raw 0 3 1", f"LIST\n{NAMES}".rstrip(), f"LIST 2\n{NAMES}".rstrip()])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_files_lists_and_patterns_are_read(write, name, data, end):
    path = write(name, data, change=lambda text: text.replace("\n", end))
    np.testing.assert_array_equal(open_volume(path).read()[0], VOXELS.T)


@pytest.mark.parametrize(("name", "data"), [("a.mhd", "s%03d.raw 0"), ("a.nhdr", "s%03d.raw 0 3 1 2")])
def test_numbers_that_one_format_has_are_read(write, name, data):
    np.testing.assert_array_equal(open_volume(write(name, data)).read()[0], VOXELS.T)


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr"])
@pytest.mark.parametrize(
    "data",
    [
        *("%s%d 1 30 1", "%n 0 3 1", "s%n%03d.raw 0 3 1", "%5000d 1 9 1", "s%03d.raw 0 3 0", "s%03d.raw 0 3 -1", "s%03d.raw 0 3"),
        *("s%03d%03d.raw 0 3 1", "s%03i.raw 0 3 1", "s%-3d.raw 0 3 1", "s%*d.raw 0 3 1", "s%1$03d.raw 0 3 1", "s%%03d.raw 0 3 1"),
        *("s%03ld.raw 0 3 1", "s%0103d.raw 0 3 1", "s%03d.raw", "s%03d.raw x y z", "s%03d.raw 0 3 1 2 3", "s%03d.raw -1 2 1", "100%"),
        *("LISTx\ns000.raw", "LIST -1\ns000.raw", "LIST 99\ns000.raw"),
    ],
)
def test_patterns_of_another_kind_are_refused(write, name, data):
    assert "file must name the files with its voxels by one %d or %03d and numbers" in refusal(write(name, data))


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr"])
@pytest.mark.parametrize(
    ("data", "count"),
    [
        *(("s%03d.raw 0 999999999 1", 10**9), ("s%03d.raw 0 3 2", 2), ("s%03d.raw 3 0 1", 0)),
        *(("LIST\ns000.raw", 1), (f"LIST\n{NAMES}{NAMES}".rstrip(), 8), ("LIST", 0), (f"LIST 1\n{NAMES}".rstrip(), 4)),
    ],
)
def test_another_number_of_files_than_slices_is_refused(write, name, data, count):
    assert f"as many files with voxels as its sizes (6, 5, 4) ask for, got {count}" in refusal(write(name, data))


@on_posix
@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr"])
@pytest.mark.parametrize(
    ("named", "why"),
    [
        *(("fifo", "no file"), ("/dev/zero", "no file"), ("sub", "no file"), ("missing", "missing"), ("loop", "missing")),
        *(("../foreign.raw", "outside"), ("sub/../../foreign.raw", "outside"), ("link", "outside"), ("{folder}/foreign.raw", "outside")),
        ("x" * 300, "missing"),
    ],
)
def test_only_regular_files_of_the_headers_folder_are_opened(write, tmp_path, name, named, why):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "foreign.raw").write_bytes(VOXELS.tobytes())
    os.mkfifo(tmp_path / "in" / "fifo")
    make_link(tmp_path / "in" / "link", tmp_path / "foreign.raw")
    make_link(tmp_path / "in" / "loop", tmp_path / "in" / "loop")
    named = named.format(folder=tmp_path)
    for data in (named, "LIST\n" + "\n".join([named] * 4)):
        assert re.search(f"must name a file that holds its voxels, got .*, which is {why}", refusal(write(f"in/{name}", data)))


@on_posix
@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr"])
def test_a_link_inside_the_folder_is_followed(write, tmp_path, name):
    make_link(tmp_path / "link.raw", tmp_path / "all.raw")
    np.testing.assert_array_equal(open_volume(write(name, "link.raw")).read()[0], VOXELS.T)


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("a.mhd", "HeaderSize = 1\n", "file must hold the 240 bytes its header asks for, got 239"),
        ("a.mhd", "HeaderSize = -2\n", "HeaderSize must be a whole number from -1 to 240"),
        ("a.mhd", "CompressedData = True\nCompressedDataSize = 99999999999\n", "CompressedDataSize must be a whole number from 0 to 240"),
        ("a.mhd", "DimSize = 6 5 5\n", "header must give each field once, got 'DimSize' again"),
        ("a.nhdr", "byte skip: 1\n", "file must hold the 240 bytes its header asks for, got 239"),
        ("a.nhdr", "byteskip: 99999999999999999999\n", "byteskip must be a whole number from -1 to 240"),
        ("a.nhdr", "line skip: -5\n", "lineskip must be a whole number from 0 to 240"),
        ("a.nhdr", "data file: s%n\n", "header must give each field once, got 'datafile' again"),
        ("a.nhdr", "#" + "x" * (1 << 20) + "\n", "a header of more than 1048576 bytes"),
        ("a.nhdr", "content: a\rdata file: s%n\r", "or with bytes that are no text"),
    ],
)
def test_fields_that_lead_beyond_the_data_are_refused(write, name, more, message):
    assert message in refusal(write(name, "all.raw", more))


@pytest.mark.parametrize(
    "text",
    [META + "ElementDataFile = %n", "Comment = ElementDataFile = %n\n" + META, "a\r" + META, "x " + META],
)
def test_a_header_that_readers_may_end_elsewhere_is_refused(write, text):
    broken = text.format(more="", data="all.raw")
    broken = broken.replace("x NDims", "NDims").replace("ElementDataFile", "x ElementDataFile") if text.startswith("x ") else broken
    assert "got a header without one line ElementDataFile, its last" in refusal(write("a.mhd", "", change=lambda _: broken))


def test_a_zero_in_a_list_is_refused(write):
    assert "which is missing" in refusal(write("a.mhd", "LIST" + "\ns\0" * 4))


@pytest.mark.parametrize(
    ("name", "more"),
    [
        *(("a.nhdr", f"{field}{'x' * 1200}\n") for field in ("units: ", "foo: ", "", "line skip: ", "labels: ")),
        *(("a.mhd", f"Name = {'x' * n}\n") for n in (300, 499)),
        ("a.mhd", f"Comment = {'x' * 600} NDims = 65536\n"),
    ],
)
def test_lines_that_overflow_a_buffer_of_simpleitk_are_refused(write, name, more):
    assert "line of the header must have at most" in refusal(write(name, "all.raw", more))


@pytest.mark.parametrize(("name", "more"), [("a.nhdr", "#{x}\ncontent: {x}\nkey:={x}\n"), ("a.mhd", "0008|0005 = {x}\nFoo = {x}\n")])
def test_metadata_may_be_long(write, name, more):
    np.testing.assert_array_equal(open_volume(write(name, "all.raw", more.format(x="x" * 5000))).read()[0], VOXELS.T)


def test_a_file_named_twice_counts_once(write, tmp_path):
    """A megabyte of names would claim a terabyte from one file."""
    assert "file must hold the 240 bytes its header asks for, got 60" in refusal(write("a.mhd", "LIST" + "\ns000.raw" * 4))


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr"])
def test_slices_of_gigabytes_are_refused_before_anything_is_set_aside(write, name):
    path = write(name, "LIST\ns000.raw\ns001.raw", change=lambda text: text.replace("6 5 4", "60000 60000 2"))
    assert "file must hold the 14400000000 bytes its header asks for, got 120" in refusal(path)


def test_compressed_voxels_in_a_file_apart_are_read(write, tmp_path):
    (tmp_path / "all.zraw").write_bytes(packed := zlib.compress(VOXELS.tobytes()))
    path = write("a.mhd", "all.zraw", f"CompressedData = True\nCompressedDataSize = {len(packed)}\n")
    np.testing.assert_array_equal(open_volume(path).read()[0], VOXELS.T)


@pytest.mark.parametrize("suffix", ["mhd", "nhdr"])
def test_a_header_is_read_as_that_of_its_name(write, suffix):
    path = write({"mhd": "a.nhdr", "nhdr": "a.mhd"}[suffix], "all.raw")
    refusal(path.rename(path.with_suffix(f".{suffix}")))


@pytest.mark.parametrize(
    ("name", "more"),
    [("a.mhd", "ElementSpacing = 1e-30 1 1\n"), ("a.nhdr", "spacings: 1 1 1e-12\n"), ("a.mhd", "ElementSpacing = 1 1e30 1\n")],
)
def test_spacings_beyond_any_images_are_refused(write, name, more):
    assert re.search("spacing must be 1e-08 to|must not be singular|must be a sound image", refusal(write(name, "all.raw", more)))


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("a.mhd", "TransformMatrix = 1 0 0 1 0 0 0 0 1\n"),
        ("a.mhd", "TransformMatrix = 0 0 0 0 0 0 0 0 0\n"),
        ("a.nhdr", "space: left-posterior-superior\nspace directions: (1,0,0) (1,0,0) (0,0,1)\n"),
        ("a.nhdr", "space: left-posterior-superior\nspace directions: (1,0,0) (1,1e-9,0) (0,0,1)\n"),
    ],
)
def test_singular_directions_are_refused(write, name, more):
    assert re.search("must not be singular|must be a sound image", refusal(write(name, "all.raw", more)))
