"""Broken files by the thousand, read in a process of their own: what becomes of each, how long it takes and how much memory."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import shutil
import stat
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813
import tifffile
from PIL import Image

from stseg3d.bundle import read_weights
from stseg3d.geometry import Grid
from stseg3d.inference.boxfile import read_boxes
from stseg3d.machine.memory import peak_memory_bytes, reset_peak_memory
from stseg3d.volumes import load_dataset, open_label, open_volume
from tests.tiny import read_config
from tests.volumes.dicom_files import dicom_file, enhanced, segmentation
from tests.volumes.mutations import (
    ANYWHERE,
    DICOM,
    HEADER,
    TEXT,
    Mutation,
    set_nifti,
    set_numbers,
    set_png,
    set_tiff,
    zipped,
)

# What reading one broken file of some kB may take: beyond it the process is out of bounds.
MEMORY_BYTES = 256 << 20
ADDRESS_BYTES = 2 << 30
SECONDS = 20.0
# Option of glibc's mallopt: memory is filled with a byte when it is set aside (https://man7.org/linux/man-pages/man3/mallopt.3.html).
LIBC, M_PERTURB = ctypes.CDLL(None) if os.name == "posix" else None, -6


@dataclass(frozen=True)
class Format:
    """A kind of file: how a sound one is made, which of its files is broken and how, and what reads it.

    Args:
        write: Makes the sound files in a folder.
        broken: Name of the file that is broken; of several, as a pattern.
        mutations: To choose from.
        read: Reads the folder; raises an error or returns something sound.
        opened: Name, in the folder, of what is read: an error has to name it.
    """

    write: Callable[[Path], None]
    broken: str
    mutations: tuple[Mutation, ...]
    read: Callable[[Path], Any]
    opened: str


@dataclass
class Tally:
    """What became of the mutations of a format."""

    outcomes: Counter[str] = field(default_factory=Counter)
    worst_bytes: int = 0
    worst_s: float = 0.0
    faults: list[str] = field(default_factory=list)


def _image(*shape: int) -> sitk.Image:
    rng = np.random.default_rng(0)
    image = sitk.GetImageFromArray(rng.integers(0, 1000, shape[::-1]).astype(np.uint16))
    image.SetSpacing([0.7, 0.8, 2.5][: len(shape)])
    return image


def _sitk(name: str, *shape: int, dtype: int = sitk.sitkInt16, compress: bool = False) -> Callable[[Path], None]:
    return lambda folder: sitk.WriteImage(sitk.Cast(_image(*shape), dtype), str(folder / name), compress)


def _tiff(*shape: int, dtype: str = "uint8", **options: Any) -> Callable[[Path], None]:
    array = np.random.default_rng(0).integers(0, 255, shape).astype(dtype)
    return lambda folder: tifffile.imwrite(folder / "a.tif", array, **options)


def _bits(folder: Path) -> None:
    array = np.random.default_rng(0).integers(0, 2, (8, 9)).astype(bool)
    Image.fromarray(array).save(folder / "a.tif", compression="group4", save_all=True, append_images=[Image.fromarray(~array)])


def _nifti(name: str, *shape: int) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        array = np.random.default_rng(0).integers(0, 1000, shape).astype(np.int16)
        nib.save(nib.Nifti1Image(array, np.diag([0.7, 0.8, 2.5, 1])), folder / name)

    return write


def _slices(folder: Path) -> None:
    """Headers of both kinds beside their slices, a pipe, and a link that leads out."""
    for k in range(7):
        (folder / f"s{k:03d}.raw").write_bytes(np.full((8, 9), k, np.int16).tobytes())
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "fifo")
    (folder / "link").symlink_to("/dev/zero")
    tail = "s%03d.raw 0 6 1\n"
    (folder / "a.mhd").write_text(f"NDims = 3\nBinaryData = True\nDimSize = 9 8 7\nElementType = MET_SHORT\nElementDataFile = {tail}")
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 9 8 7\nendian: little\nencoding: raw\n"
    (folder / "a.nhdr").write_text(f"{head}data file: {tail}")


def _series(folder: Path) -> None:
    (folder / "series").mkdir()
    image, writer = sitk.Cast(_image(9, 8, 4), sitk.sitkInt16), sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(4):
        one = image[:, :, k]
        tags = {"0008|0060": "CT", "0020|000d": "1.2.3", "0020|000e": "1.2.3.4", "0008|0018": f"1.2.3.4.{k}", "0020|0013": str(k)}
        for tag, value in (tags | {"0020|0032": f"0\\0\\{2.5 * k}", "0020|0037": "1\\0\\0\\0\\1\\0"}).items():
            one.SetMetaData(tag, value)
        writer.SetFileName(str(folder / "series" / f"{k}.dcm"))
        writer.Execute(one)


def _frames(folder: Path) -> None:
    enhanced(folder / "a.dcm", [0, 4, 2, 8, 6])


def _segments(folder: Path) -> None:
    segmentation(folder / "seg.dcm")


def _slice(folder: Path, compress: str = "") -> None:
    array, path = np.random.default_rng(0).integers(0, 4000, (24, 28)).astype(np.uint16), folder / "a.dcm"
    dicom_file(path, array, ImagePositionPatient=[0, 0, 0])
    if compress == "RLE":
        content = pydicom.dcmread(path)
        content.compress(pydicom.uid.RLELossless)
        content.save_as(path)
    elif compress:
        writer = sitk.ImageFileWriter()
        writer.UseCompressionOn()
        writer.SetCompressor(compress)
        writer.SetFileName(str(path))
        writer.Execute(sitk.GetImageFromArray(array.astype(np.int16)[None]))


def _text(name: str, content: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "a.nii.gz").write_bytes(b"")
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)

    return write


def _bundle(folder: Path) -> None:
    root = Path(__file__).resolve().parents[2] / "bundles" / "vertebrae_mr_segmentation" / "configs"
    shutil.copytree(root, folder / "configs")


def _weights(folder: Path) -> None:
    import torch

    torch.save({"weight": torch.ones(20, 3), "bias": torch.zeros(3)}, folder / "model.pt")


def _stored_voxels(name: str) -> Callable[[Path], Any]:
    """Reads twice, into memory that is filled differently: voxels that are not in the file differ."""

    def read(folder: Path) -> None:
        arrays = []
        for fill in (0x11, 0xEE):
            if hasattr(LIBC, "mallopt"):
                LIBC.mallopt(M_PERTURB, fill)
            try:
                arrays.append(_opened(folder / name).read())
            finally:
                if hasattr(LIBC, "mallopt"):
                    LIBC.mallopt(M_PERTURB, 0)
        assert np.array_equal(*arrays, equal_nan=arrays[0].dtype.kind == "f"), "voxels that are not in the file"

    return read


def _opened(path: Path) -> Any:
    return open_label(path, Grid((32, 32, 8), np.diag([-2.0, -2, 3, 1]))) if path.name == "seg.dcm" else open_volume(path)


def _voxels(name: str, **options: Any) -> Callable[[Path], Any]:
    def read(folder: Path) -> None:
        volume = open_volume(folder / name, **options)
        array = volume.read()
        assert array.shape == (volume.channels, *volume.grid.shape)
        assert array.dtype == volume.dtype
        assert np.isfinite(volume.grid.affine).all()

    return read


BOXES = {"boxes": [{"start": [1, 2, 3], "stop": [4, 5, 6]}, {"start_mm": [1.5, 2, 3], "stop_mm": [4, 5, 6.25]}]}
CSV = "start_i,start_j,start_k,stop_i,stop_j,stop_k\n1,2,3,4,5,6\n2,3,4,5,6,7\n"
CASES = {
    "name": "a",
    "labels": {"0": "background", "1": "a"},
    "training": [{"image": "a.nii.gz", "label": "a.nii.gz"}],
    "test": ["a.nii.gz"],
}


def _file(name: str, write: Callable[[Path], None], mutations: tuple[Mutation, ...], broken: str = "", **options: Any) -> Format:
    return Format(write, broken or name, mutations, _voxels(name, **options), name)


TIFF = (*ANYWHERE, *[set_tiff] * 8, set_numbers)
FORMATS: Mapping[str, Format] = {
    "nii": _file("a.nii", _nifti("a.nii", 9, 8, 7), (*ANYWHERE, *[set_nifti] * 5)),
    "nii, 4-D": _file("a.nii", _nifti("a.nii", 9, 8, 7, 2), (*ANYWHERE, *[set_nifti] * 5), channels_last=True),
    "nii.gz": _file("a.nii.gz", _nifti("a.nii.gz", 9, 8, 7), (*ANYWHERE, *[zipped(set_nifti)] * 5, *map(zipped, ANYWHERE))),
    "nrrd": _file("a.nrrd", _sitk("a.nrrd", 9, 8, 7), HEADER),
    "nrrd, packed": _file("a.nrrd", _sitk("a.nrrd", 9, 8, 7, compress=True), HEADER),
    "nhdr": _file("a.nhdr", _sitk("a.nhdr", 9, 8, 7), HEADER),
    "mha": _file("a.mha", _sitk("a.mha", 9, 8, 7), HEADER),
    "mha, packed": _file("a.mha", _sitk("a.mha", 9, 8, 7, compress=True), HEADER),
    "mhd": _file("a.mhd", _sitk("a.mhd", 9, 8, 7), HEADER),
    "mhd of slices": _file("a.mhd", _slices, HEADER),
    "nhdr of slices": _file("a.nhdr", _slices, HEADER),
    "mhd's raw": _file("a.mhd", _sitk("a.mhd", 9, 8, 7), ANYWHERE, "a.raw"),
    "DICOM file": Format(_slice, "a.dcm", (*ANYWHERE, *DICOM), _stored_voxels("a.dcm"), "a.dcm"),
    "DICOM, RLE": Format(partial(_slice, compress="RLE"), "a.dcm", (*ANYWHERE, *DICOM), _stored_voxels("a.dcm"), "a.dcm"),
    "DICOM, JPEG": Format(partial(_slice, compress="JPEG"), "a.dcm", (*ANYWHERE, *DICOM), _stored_voxels("a.dcm"), "a.dcm"),
    "DICOM, JPEG 2000": Format(partial(_slice, compress="JPEG2000"), "a.dcm", (*ANYWHERE, *DICOM), _stored_voxels("a.dcm"), "a.dcm"),
    "DICOM, frames": Format(_frames, "a.dcm", (*ANYWHERE, *DICOM), _stored_voxels("a.dcm"), "a.dcm"),
    "DICOM, segments": Format(_segments, "seg.dcm", (*ANYWHERE, *DICOM), _stored_voxels("seg.dcm"), "seg.dcm"),
    "DICOM series": Format(_series, "series/*.dcm", (*ANYWHERE, *DICOM), _stored_voxels("series"), "series"),
    "png": _file("a.png", _sitk("a.png", 9, 8, dtype=sitk.sitkUInt8), (*ANYWHERE, *[set_png] * 4)),
    "png, 16 bit": _file("a.png", _sitk("a.png", 9, 8, dtype=sitk.sitkUInt16), (*ANYWHERE, *[set_png] * 4)),
    "tif": _file("a.tif", _sitk("a.tif", 9, 8, dtype=sitk.sitkUInt8), TIFF),
    "tif, packed": _file("a.tif", _sitk("a.tif", 9, 8, dtype=sitk.sitkUInt16, compress=True), TIFF),
    "tif, pages": _file("a.tif", _sitk("a.tif", 9, 8, 5, dtype=sitk.sitkUInt16, compress=True), TIFF),
    "tif, ImageJ": _file("a.tif", _tiff(3, 2, 8, 9, imagej=True, metadata={"axes": "ZCYX"}), TIFF),
    "tif, OME": _file("a.tif", _tiff(2, 3, 8, 9, ome=True, metadata={"axes": "CZYX"}), TIFF),
    "tif, tiles": _file("a.tif", _tiff(3, 40, 50, tile=(16, 16), compression="zlib", photometric="minisblack", metadata=None), TIFF),
    "tif, 1 bit": _file("a.tif", _bits, TIFF),
    "jpg": _file("a.jpg", _sitk("a.jpg", 9, 8, dtype=sitk.sitkUInt8), ANYWHERE),
    "boxes, JSON": Format(
        _text("a.json", json.dumps(BOXES, indent=1)), "a.json", TEXT, lambda f: read_boxes(f / "a.json", Grid((9, 8, 7))), "a.json"
    ),
    "boxes, CSV": Format(_text("a.csv", CSV), "a.csv", TEXT, lambda f: read_boxes(f / "a.csv", Grid((9, 8, 7))), "a.csv"),
    "dataset.json": Format(_text("a.json", json.dumps(CASES, indent=1)), "a.json", TEXT, lambda f: load_dataset(f / "a.json"), "a.json"),
    "bundle plan": Format(_bundle, "configs/plan.json", TEXT, read_config, ""),
    "bundle config": Format(_bundle, "configs/inference.json", TEXT, read_config, ""),
    "bundle metadata": Format(_bundle, "configs/metadata.json", TEXT, read_config, ""),
    "weights": Format(_weights, "model.pt", ANYWHERE, lambda f: read_weights(f / "model.pt"), "model.pt"),
}


def fuzz(name: str, mutations: int, seed: int, folder: Path) -> Tally:
    """Break a sound file of a format so many times, and tell what came of it.

    A read that ends the process, or takes more than :data:`SECONDS`, is a fault, and the next one goes on in a new process.

    Args:
        name: Key of :data:`FORMATS`.
        mutations: Number of broken files.
        seed: Of all random numbers; a file depends on the seed, the format and its own number alone.
        folder: To work in, empty.
    """
    sound = folder / "sound"
    sound.mkdir(parents=True)
    tally, done = Tally(), 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        FORMATS[name].write(sound)
        while done < mutations:
            results = [*_in_a_process(name, range(done, mutations), seed, folder)]
            for outcome, n_bytes, seconds in results:
                tally.outcomes[outcome.partition(":")[0]] += 1
                tally.worst_bytes, tally.worst_s = max(tally.worst_bytes, n_bytes), max(tally.worst_s, seconds)
                if outcome not in {"read", "refused"}:
                    tally.faults.append(f"{name}, seed {seed}, number {done}: {outcome}")
                done += 1
    return tally


def _in_a_process(name: str, numbers: range, seed: int, folder: Path) -> Iterator[tuple[str, int, float]]:
    """Outcome, memory and seconds of each broken file, up to the one that the process does not survive."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(name, numbers, seed, folder, sender))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other threads are idle while this one forks
        process.start()
    sender.close()
    try:
        for _ in numbers:
            if not receiver.poll(SECONDS):
                yield "hang:", 0, SECONDS
                return
            yield receiver.recv()
    except EOFError:
        process.join()
        yield f"crash: exit code {process.exitcode}", 0, 0.0
    finally:
        process.kill()
        process.join()
        receiver.close()


def _work(name: str, numbers: range, seed: int, folder: Path, sender: Any) -> None:
    import resource

    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)  # libraries say on their own what they find broken
    os.dup2(quiet, 2)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ADDRESS_BYTES, size + ADDRESS_BYTES))
    warnings.simplefilter("ignore")
    for number in numbers:
        broken = break_one(name, number, seed, folder)
        reset_peak_memory()
        before = peak_memory_bytes()
        start = time.perf_counter()
        outcome = judge(FORMATS[name], broken)
        seconds = time.perf_counter() - start
        grown = peak_memory_bytes() - before
        if grown > MEMORY_BYTES:
            outcome = f"memory: {grown >> 20} MiB"
        sender.send((outcome, max(grown, 0), seconds))
    sender.close()


def break_one(name: str, number: int, seed: int, folder: Path) -> Path:
    """Folder with the broken file of that number."""
    case, out = FORMATS[name], folder / "broken"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(folder / "sound", out, symlinks=True, copy_function=_copy)
    rng = np.random.default_rng([seed, number, *name.encode()])
    files = sorted(out.glob(case.broken))
    path = files[int(rng.integers(len(files)))]
    content: Any = path.read_bytes()
    for _ in range(1 if rng.random() < 0.8 else 2):
        try:
            content = bytes(case.mutations[int(rng.integers(len(case.mutations)))](content, rng))
        except Exception:  # what is broken already may not be a file that this mutation knows
            break
    path.write_bytes(content)
    return out


def _copy(source: Any, target: str) -> None:
    if stat.S_ISFIFO(os.stat(source).st_mode):
        os.mkfifo(target)
    else:
        shutil.copyfile(source, target)


def judge(case: Format, folder: Path) -> str:
    """``read``, ``refused``, or what is wrong with the way it was refused."""
    try:
        case.read(folder)
    except (ValueError, OSError) as error:
        text = str(error)
        if str(folder / case.opened) not in text or len(text.splitlines()) != 1:
            return f"unclear: {type(error).__name__}: {text[:300]!r}"
        return "refused"
    except BaseException as error:  # that is what is looked for
        return f"other: {type(error).__name__}: {str(error)[:300]!r}"
    return "read"
