"""DICOM headers of the files in a folder, one per slice, and which files are not slices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stseg3d.volumes.dicom.elements import is_overrun
from stseg3d.volumes.sitk import stored_dtype
from stseg3d.volumes.volume import Array

DICOM_SUFFIXES = (".dcm", ".ima")
MAGIC_AT, MAGIC = 128, b"DICM"
# Bytes that hold the SOP class: it is near the start of the meta group, which comes first (DICOM PS3.10, 7.1).
META_BYTES = 1024
SOP_CLASS_TAG = b"\x02\x00\x02\x00UI"
DICOMDIR = "1.2.840.10008.1.3.10"
STORAGE = "1.2.840.10008.5.1.4.1.1."
# Objects without pixels (DICOM PS3.4, B.5), by the beginning of the SOP class.
WITHOUT_PIXELS = {
    f"{STORAGE}88.": "structured report",
    f"{STORAGE}104.": "document",
    f"{STORAGE}11.": "presentation state",
    f"{STORAGE}481.": "radiotherapy object",
    f"{STORAGE}66": "raw data or registration",
    f"{STORAGE}67": "real-world value mapping",
    f"{STORAGE}9.": "waveform",
    "1.2.840.10008.5.1.4.": "object without pixels",
}
# Files of these SOP classes hold slices, whole volumes or pictures; one that cannot be read is broken.
IMAGE_CLASSES = tuple(f"{STORAGE}{number}" for number in ("1", "2", "3", "4", "6", "7", "12", "20", "77", "128", "130"))

TAGS = {
    "SOPClassUID": "0008|0016",
    "SOPInstanceUID": "0008|0018",
    "Modality": "0008|0060",
    "SeriesDescription": "0008|103e",
    "SeriesDate": "0008|0021",
    "SeriesTime": "0008|0031",
    "SeriesInstanceUID": "0020|000e",
    "SeriesNumber": "0020|0011",
    "InstanceNumber": "0020|0013",
    "ImagePositionPatient": "0020|0032",
    "NumberOfFrames": "0028|0008",
    # Tags that may distinguish two images at one position under one UID, the most specific first.
    "AcquisitionNumber": "0020|0012",
    "TemporalPositionIdentifier": "0020|0100",
    "NominalPercentageOfCardiacPhase": "0020|9241",
    "TriggerTime": "0018|1060",
    "EchoTime": "0018|0081",
    "ConvolutionKernel": "0018|1210",
    "KVP": "0018|0060",
    "SliceThickness": "0018|0050",
    "ImageType": "0008|0008",
    "ImageComments": "0020|4000",
    "AcquisitionTime": "0008|0032",
    "ContentTime": "0008|0033",
}
DISTINCTIONS = tuple(TAGS)[tuple(TAGS).index("AcquisitionNumber") :]


@dataclass(frozen=True, eq=False)
class Header:
    """Header of one file, or of one of its frames.

    Args:
        path: The file.
        size: Columns, rows, frames.
        spacing_mm: Spacing along columns, rows and frames.
        origin: Position of the first voxel, in mm, LPS+.
        direction: Directions of the axes as columns, LPS+, of shape ``(3, 3)``.
        dtype: Type of the rescaled voxels.
        components: Values per voxel: 3 for colours.
        tags: Values by keyword, of those in :data:`TAGS`.
        frame: Index in the file.
        frames: Number of frames in the file, if each has a header.
    """

    path: Path
    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: Array
    dtype: np.dtype[Any]
    components: int = 1
    tags: dict[str, str] = field(default_factory=dict)
    frame: int = 0
    frames: int = 1

    @property
    def normal(self) -> Array:
        """Direction of the slices' normal, right-handed."""
        normal: Array = np.cross(self.direction[:, 0], self.direction[:, 1])
        return normal

    @property
    def is_localizer(self) -> bool:
        """Whether the tags call it a scout."""
        return "LOCALIZER" in self.tags.get("ImageType", "").upper()

    def __str__(self) -> str:
        if self.frames > 1:
            return f"{self.path.name} (frame {self.frame + 1})"
        number = self.tags.get("InstanceNumber")
        return self.path.name if number is None else f"{self.path.name} (instance {number})"


def read_headers(folder: Path) -> tuple[list[Header], dict[Path, str]]:
    """Headers of all DICOM images in a folder, and the kinds of its other DICOM files; all else is ignored.

    Raises:
        ValueError: If DICOM files are broken; the first ones are named.
    """
    reader = series_reader()
    headers, others, broken = [], {}, []
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        sop_class = _sop_class(path)
        if sop_class is None and path.suffix.lower() not in DICOM_SUFFIXES and _is_named(path):
            continue
        try:
            headers.append(read_header(reader, path))
        except RuntimeError:
            if kind := _kind_without_pixels(sop_class):
                others[path] = kind
            elif sop_class is not None or path.suffix.lower() in DICOM_SUFFIXES:
                broken.append(path)
    if broken:
        msg = f"{folder}: DICOM files must be sound, got {len(broken)} of {len(headers) + len(broken)} that cannot be read"
        msg += f", perhaps cut short: {abbreviated(p.name for p in broken)}; fetch them anew, or move away what is no slice"
        raise ValueError(msg)
    return headers, {path: kind for path, kind in others.items() if kind != "DICOMDIR"}


def series_reader() -> Any:
    """SimpleITK reader for DICOM files of any name."""
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    return reader


def read_header(reader: Any, path: Path) -> Header:
    """Header of a file.

    Raises:
        RuntimeError: If it is not a sound DICOM image.
        ValueError: If its voxels are not numbers.
    """
    if is_overrun(path):
        msg = "an element goes on beyond the end of the file, or is of an unknown kind"
        raise RuntimeError(msg)
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    held = {name: reader.GetMetaData(key).strip(" \0") for name, key in TAGS.items() if reader.HasMetaDataKey(key)}
    return Header(
        path,
        size=(*reader.GetSize(), 1)[:3],
        spacing_mm=(*reader.GetSpacing(), 1.0)[:3],
        origin=(*reader.GetOrigin(), 0.0)[:3],
        direction=np.array(reader.GetDirection()).reshape(3, 3),
        dtype=stored_dtype(reader.GetPixelID(), path),
        components=reader.GetNumberOfComponents(),
        tags={name: value for name, value in held.items() if value},
    )


def abbreviated(names: Iterable[Any], most: int = 3) -> str:
    """First names, and the number of the others."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def _is_named(path: Path) -> bool:
    """Whether the file has a suffix; ``1.2.840.113.7`` and ``IM0001`` have none."""
    return bool(path.suffix) and not path.suffix[1:].isdigit()


def _sop_class(path: Path) -> str | None:
    """SOP class UID of a DICOM file, empty if it has none; None if the file does not begin as DICOM."""
    with path.open("rb") as file:
        head = file.read(META_BYTES)
    if head[MAGIC_AT : MAGIC_AT + len(MAGIC)] != MAGIC:
        return None
    at = head.find(SOP_CLASS_TAG, MAGIC_AT)
    value = at + len(SOP_CLASS_TAG) + 2
    length = int.from_bytes(head[value - 2 : value], "little") if at >= 0 else 0
    return head[value : value + length].decode("ascii", "replace").strip(" \0")


def _kind_without_pixels(sop_class: str | None) -> str:
    """Kind of a file without pixels; empty if it should have pixels."""
    if sop_class == DICOMDIR:
        return "DICOMDIR"
    if not sop_class or any(sop_class == image or sop_class.startswith(f"{image}.") for image in IMAGE_CLASSES):
        return ""
    return next((kind for start, kind in WITHOUT_PIXELS.items() if sop_class.startswith(start)), "")
