"""Hostile files: broken in every way, claiming more than they hold, unpacking to more than they claim, leading out of their folder."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from stseg3d.geometry import Box, Grid
from stseg3d.machine.files import atomic_write
from stseg3d.machine.memory import peak_memory_bytes, reset_peak_memory
from stseg3d.volumes import ensure_writable, file, open_volume, output_name, write_labels
from stseg3d.volumes.names import MAX_NAME_BYTES, ensure_file_name
from tests.systems import make_link, on_linux, on_posix
from tests.volumes.fuzzing import FORMATS, break_one, fuzz, judge
from tests.volumes.mutations import cut_pixels

QUICK, THOROUGH = 12, 100


@on_linux
@pytest.mark.parametrize("name", FORMATS)
def test_broken_files_are_read_or_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    assert fuzz(name, QUICK, seed=7, folder=tmp_path).faults == []


@on_linux
@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_many_broken_files_are_read_or_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    tally = fuzz(name, THOROUGH, seed=0, folder=tmp_path)
    assert tally.faults == []
    assert tally.outcomes.total() == THOROUGH
    assert min(tally.outcomes["read"], tally.outcomes["refused"]) > 0  # neither harmless nor beyond recognition


def test_the_thorough_run_is_of_2000_files_at_least() -> None:
    assert THOROUGH * len(FORMATS) >= 2000


@pytest.mark.parametrize("name", FORMATS)
def test_a_sound_file_is_read(name: str, tmp_path: Path) -> None:
    FORMATS[name].write(tmp_path)
    FORMATS[name].read(tmp_path)


def test_a_broken_file_can_be_made_again(tmp_path: Path) -> None:
    contents = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        (folder / "sound").mkdir(parents=True)
        FORMATS["nii"].write(folder / "sound")
        contents.append([(break_one("nii", number, 3, folder) / "a.nii").read_bytes() for number in range(4)])
    assert contents[0] == contents[1]
    assert len(set(contents[0])) == 4


@on_linux
@pytest.mark.parametrize(
    ("read", "outcome"),
    [
        ("raise KeyError(1)", "other: KeyError"),
        ("raise ValueError('what?')", "unclear: ValueError"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crash: exit code -11"),
        ("np.ones(2**23)", "memory: "),
        ("np.ones(2**40)", "other: .*MemoryError"),
        ("time.sleep(60)", "hang:"),
    ],
)
def test_a_fault_would_be_seen(read: str, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"os": os, "signal": signal, "np": np, "time": time}
    case = FORMATS["nii"]
    monkeypatch.setitem(FORMATS, "fault", type(case)(case.write, case.broken, case.mutations, lambda _: exec(read, names), case.opened))
    monkeypatch.setattr("tests.volumes.fuzzing.MEMORY_BYTES", 32 << 20)
    monkeypatch.setattr("tests.volumes.fuzzing.SECONDS", 0.5 if outcome == "hang:" else 20)
    (fault,) = fuzz("fault", 1, seed=0, folder=tmp_path).faults
    assert re.match(f"fault, seed 0, number 0: {outcome}", fault)


@on_linux
def test_voxels_that_are_not_in_the_file_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GDCM gives them for uncompressed voxels that are too few, which only our check finds."""
    case = FORMATS["DICOM file"]
    case.write(tmp_path)
    (tmp_path / "a.dcm").write_bytes(cut_pixels((tmp_path / "a.dcm").read_bytes(), np.random.default_rng(0)))
    assert judge(case, tmp_path) == "refused"
    monkeypatch.setattr("stseg3d.volumes.dicom.elements._check_pixels", lambda *_: None)
    assert judge(case, tmp_path) == "other: AssertionError: 'voxels that are not in the file'"


# --- headers that claim more than there is ------------------------------------------


def refusal(path: Path, most_bytes: int = 64 << 20, **options: object) -> str:
    """What is said of a file that is refused, at a cost of no more than so much memory."""
    reset_peak_memory()
    before = peak_memory_bytes()
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        open_volume(path, **options).read()
    assert peak_memory_bytes() - before < most_bytes
    return str(caught.value)


META = "NDims = {n}\nCompressedData = {packed}\nDimSize = {size}\nElementType = MET_SHORT\nElementDataFile = {data}\n"
NRRD = "NRRD0004\ntype: short\ndimension: {n}\nsizes: {size}\nendian: little\nencoding: {encoding}\n{more}\n"


def meta(n: object = 3, size: str = "30000 30000 30000", packed: bool = False, data: str = "LOCAL") -> bytes:
    return META.format(n=n, size=size, packed=packed, data=data).encode()


def nrrd(n: object = 3, size: str = "30000 30000 30000", encoding: str = "raw", more: str = "") -> bytes:
    return NRRD.format(n=n, size=size, encoding=encoding, more=more).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.mha", meta() + bytes(1000)),
        ("a.mha", meta(packed=True) + zlib.compress(bytes(1000))),
        ("a.mha", meta(size="2147483648 2147483648 4") + bytes(1000)),
        ("a.nrrd", nrrd() + bytes(1000)),
        ("a.nrrd", nrrd(encoding="gzip") + gzip.compress(bytes(1000))),
        ("a.nrrd", nrrd(encoding="ascii") + b"0 " * 500),
        ("a.nrrd", nrrd(size="4294967296 4294967296 1") + bytes(1000)),
    ],
)
def test_headers_that_claim_terabytes_are_refused_before_anything_is_set_aside(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert re.search("must hold the .* bytes its header asks for|must be a sound image|must have 2 to 5 axes", refusal(tmp_path / name))


@pytest.mark.parametrize("n", ["65536", "-1", "1e-320", "9223372036854775807", ""])
def test_numbers_of_axes_that_end_the_process_in_simpleitk_are_refused(n: str, tmp_path: Path) -> None:
    (tmp_path / "a.mha").write_bytes(meta(n) + bytes(1000))
    assert f"NDims must be 2 to 5, got {n!r}" in refusal(tmp_path / "a.mha")


@on_posix
@pytest.mark.slow
def test_the_reason_why_headers_are_read_before_simpleitk_reads_them(tmp_path: Path) -> None:
    (tmp_path / "a.mha").write_bytes(meta("-1") + bytes(1000))
    code = f"import SimpleITK as s; r = s.ImageFileReader(); r.SetFileName({str(tmp_path / 'a.mha')!r}); r.ReadImageInformation()"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        assert process.wait(10) < 0  # ended by a signal, or never: it depends on what lies in memory
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.mark.parametrize("data", ["/dev/zero", "missing.raw", ".", "fifo"])
@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr"])
def test_data_that_are_in_no_file_are_refused(name: str, data: str, tmp_path: Path) -> None:
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "fifo")  # to open it would be to wait
    (tmp_path / name).write_bytes(meta(size="9 8 7", data=data) if name == "a.mhd" else nrrd(size="9 8 7", more=f"data file: {data}\n"))
    assert "must name a file that holds its voxels, got" in refusal(tmp_path / name)


def test_a_picture_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    sitk.WriteImage(sitk.Image([8, 8], sitk.sitkUInt8), str(tmp_path / "a.png"))
    content = (tmp_path / "a.png").read_bytes()
    chunk = b"IHDR" + struct.pack(">II", 60000, 60000) + content[24:29]
    (tmp_path / "a.png").write_bytes(content[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:])
    assert "must hold the 3600000000 bytes its header asks for" in refusal(tmp_path / "a.png")


def test_a_picture_that_unpacks_to_more_than_there_is_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sitk.WriteImage(sitk.Image([4096, 4096], sitk.sitkUInt8), str(tmp_path / "a.png"))
    assert (tmp_path / "a.png").stat().st_size < 4096 * 4096 // 500
    monkeypatch.setattr(file, "available_bytes", lambda: 1 << 20)
    assert "voxels must fit into the free memory" in refusal(tmp_path / "a.png")


def test_a_memory_map_larger_than_memory_is_read_box_by_box_only(write_nifti, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_nifti("a.nii", np.zeros((2, 2, 2), np.int16), dim=[3, 1024, 1024, 1024, 1, 1, 1, 1])
    os.truncate(path, 352 + 2 * 1024**3)  # of holes: it takes no room on the disk
    monkeypatch.setattr(file, "available_bytes", lambda: 2**30)
    assert "voxels must fit into the free memory of 1.0 GiB, got 2.0 GiB" in refusal(path)
    assert not open_volume(path).read(Box((0, 0, 0), (4, 4, 4))).any()


@pytest.mark.parametrize("offset", [np.nan, np.inf, -np.inf, -352.0, 2.0**31, 1e38])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_voxels_nowhere_near_are_refused(name: str, offset: float, write_nifti, rng) -> None:
    path = write_nifti(name, rng.integers(0, 9, (5, 6, 7)).astype(np.int16), vox_offset=offset)
    assert f"file must be a sound NIfTI file, got: vox_offset must be 0 to {1 << 26}, got" in refusal(path)


# --- files that unpack to more than they claim ----------------------------------------


def _deflated(n_bytes: int) -> bytes:
    """Zeros, packed; may be repeated, as each piece ends on a whole byte and looks back on none before it."""
    packer = zlib.compressobj(9, wbits=-15)
    return packer.compress(bytes(n_bytes)) + packer.flush(zlib.Z_FULL_FLUSH)


ZEROS = _deflated(1 << 20)


def test_a_nii_gz_that_goes_on_and_on_is_left_soon(write_nifti) -> None:
    path = write_nifti("a.nii.gz", np.zeros((8, 8, 8), np.int16))
    path.write_bytes(path.read_bytes() + gzip.compress(b"", mtime=0)[:10] + ZEROS * 2048)  # 2 GiB in 2 MiB
    message = refusal(path)
    assert message == f"{path}: file must end soon after the 1376 bytes its header asks for, got more than {2 * 1376 + (1 << 24)}"


def test_extensions_that_unpack_to_gigabytes_are_not_read(write_nifti) -> None:
    path = write_nifti("a.nii.gz", np.zeros((8, 8, 8), np.int16))
    header = nib.Nifti1Header(gzip.decompress(path.read_bytes())[:348])
    header["vox_offset"] = 2.0**30
    packer = zlib.compressobj(9, wbits=31)
    head = packer.compress(header.binaryblock + bytes([1, 0, 0, 0]) + struct.pack("<ii", 2**30 - 352, 4)) + packer.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(head + ZEROS * 1024)
    assert "vox_offset must be 0 to" in refusal(path)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_other_formats_stop_at_what_their_header_asks_for(name: str, tmp_path: Path) -> None:
    tail = (gzip.compress(b"", mtime=0)[:10] if name == "a.nrrd" else zlib.compress(b"")[:2]) + ZEROS * 512
    head = nrrd(size="9 8 7", encoding="gzip") if name == "a.nrrd" else meta(size="9 8 7", packed=True)
    (tmp_path / name).write_bytes(head + tail)
    reset_peak_memory()
    before = peak_memory_bytes()
    try:
        assert open_volume(tmp_path / name).read().shape == (1, 9, 8, 7)
    except ValueError as error:
        assert str(tmp_path / name) in str(error)  # noqa: PT017  # either will do
    assert peak_memory_bytes() - before < 64 << 20


# --- names -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../x", "a/b", "/etc/passwd", "a\\b", "..\\x", "a\0b", "a\nb", "\x1b[2J", "\x7f", ".hidden", "-rf", "--overwrite"),
        *("con", "NUL", "nul.x", "Com1", "lpt9.a.b", "x" * (MAX_NAME_BYTES + 1), "ü" * (MAX_NAME_BYTES // 2 + 1)),
    ],
)
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^case must have a name .*, for its files to stay in their folder, got ") as caught:
        output_name(name)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["ct", "a b", "a.b..c", "a-b", "ü", "患者7", "console", "x" * MAX_NAME_BYTES, "12.30", "a'b"])
def test_other_names_are_kept(name: str, tmp_path: Path) -> None:
    assert ensure_file_name(name) == name
    path = write_labels(np.ones((2, 2, 2), np.uint8), tmp_path / output_name(name), Grid((2, 2, 2)))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["12:30", "a?", "<b>", 'a"b', "a|b", "*"])
def test_names_that_windows_takes_for_something_else_are_refused_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert os.name == "nt" or ensure_file_name(name) == name
    with monkeypatch.context() as context:
        context.setattr("stseg3d.volumes.names.os.name", "nt")
        with pytest.raises(ValueError, match="case must have a name without"):
            ensure_file_name(name)


# --- links -------------------------------------------------------------------------------


LABELS, GRID = np.ones((2, 2, 2), np.uint8), Grid((2, 2, 2))


def test_an_output_that_is_a_link_is_replaced_and_its_target_left_alone(tmp_path: Path) -> None:
    foreign, out = tmp_path / "foreign.txt", tmp_path / "out"
    foreign.write_text("precious")
    out.mkdir()
    link = out / "a_seg.nii.gz"
    make_link(link, foreign)
    write_labels(LABELS, link, GRID)
    assert foreign.read_text() == "precious"
    assert not link.is_symlink()
    assert open_volume(link).read().all()


def test_a_link_laid_where_the_temporary_file_goes_is_not_written_through(tmp_path: Path) -> None:
    foreign, out = tmp_path / "foreign.txt", tmp_path / "a_seg.nii.gz"
    foreign.write_text("precious")
    make_link(out.with_name(f".{os.getpid()}.{out.name}"), foreign)
    write_labels(LABELS, out, GRID)
    assert foreign.read_text() == "precious"
    assert open_volume(out).read().all()
    assert {p.name for p in tmp_path.iterdir()} == {"foreign.txt", out.name}


def test_a_dangling_link_is_replaced(tmp_path: Path) -> None:
    link = tmp_path / "a.nii.gz"
    make_link(link, tmp_path / "elsewhere.nii.gz")
    write_labels(LABELS, link, GRID)
    assert not link.is_symlink()
    assert not (tmp_path / "elsewhere.nii.gz").exists()


def test_a_file_that_cannot_be_replaced_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").mkdir()
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "a.nii.gz"))), atomic_write(tmp_path / "a.nii.gz") as temporary:
        temporary.write_text("x")
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii.gz"]


@pytest.mark.parametrize("target", ["nowhere", "out"])
def test_an_output_folder_that_is_a_link_to_nowhere_is_refused(target: str, tmp_path: Path) -> None:
    make_link(tmp_path / "out", tmp_path / target)
    with pytest.raises(OSError, match=re.escape(f"{tmp_path / 'out'}: output folder must be writable, got:")):
        ensure_writable(tmp_path / "out")


def test_an_input_may_be_a_link(tmp_path: Path) -> None:
    write_labels(LABELS, tmp_path / "a.nii.gz", GRID)
    make_link(tmp_path / "b.nii.gz", "a.nii.gz")
    assert open_volume(tmp_path / "b.nii.gz").read().all()


@pytest.mark.parametrize("target", ["nowhere.nii", "loop.nii"])
def test_an_input_that_is_a_link_to_nowhere_is_refused(target: str, tmp_path: Path) -> None:
    make_link(tmp_path / "loop.nii", tmp_path / target)
    with pytest.raises(FileNotFoundError, match=re.escape(f"{tmp_path / 'loop.nii'}: file must exist, got a link that leads nowhere")):
        open_volume(tmp_path / "loop.nii")


@pytest.mark.parametrize("name", ["a\0.nii", "x" * 300 + ".nii.gz"])
def test_an_input_whose_name_no_system_takes_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"file must exist, got none|File name too long"):
        open_volume(tmp_path / name)


def test_json_that_nests_without_end_is_refused(tmp_path: Path) -> None:
    from stseg3d.inference.boxfile import read_boxes
    from stseg3d.volumes import load_dataset

    (tmp_path / "a.json").write_text("[" * 100_000)
    for read in (load_dataset, lambda path: read_boxes(path, GRID)):
        with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'a.json'}: file must be JSON")):
            read(tmp_path / "a.json")
    (tmp_path / "a.json").write_text(json.dumps({"training": 3}))
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "a.json"))):
        load_dataset(tmp_path / "a.json")
