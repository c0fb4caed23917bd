"""DICOM headers of the files in a folder, one per slice, and which files are not slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from stseg3d.machine.files import visible_files
from stseg3d.machine.tables import abbreviated
from stseg3d.volumes.dicom.elements import (
    PLAIN,
    begins_as_dicom,
    frames_of,
    integer,
    numbers,
    raw,
    read_elements,
    sop_class,
    sound,
    tag,
    text,
)
from stseg3d.volumes.dicom.kinds import DICOM_SUFFIXES, PLANE_CLASSES, STORAGE, kind_without_image
from stseg3d.volumes.dicom.overrun import is_overrun
from stseg3d.volumes.sitk import sitk_errors, stored_dtype
from stseg3d.volumes.volume import Array

TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "Modality", "SeriesDescription", "SeriesDate", "SeriesTime", "SeriesInstanceUID", "SeriesNumber"),
    *("InstanceNumber", "ImagePositionPatient", "NumberOfFrames"),
    # Tags that may distinguish two images at one position under one UID, the most specific first.
    *("AcquisitionNumber", "TemporalPositionIdentifier", "NominalPercentageOfCardiacPhase", "TriggerTime", "EchoTime", "ConvolutionKernel"),
    *("KVP", "SliceThickness", "ImageType", "ImageComments", "AcquisitionTime", "ContentTime"),
)
DISTINCTIONS = TAGS[TAGS.index("AcquisitionNumber") :]
# Elements that say where a slice is, and their numbers.
PLANE = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
# GDCM makes the axes of a slice units at a right angle: writers round them.
MAX_TURNED = 1e-2
# What the grid and the type of voxels depend on, but for the place, in an uncompressed slice of these SOP classes (CT, MR, PET, captures).
SAME_FORM = (*PLANE_CLASSES, f"{STORAGE}7")
FORM = (
    *("SOPClassUID", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "ImageOrientationPatient"),
    *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio", "SpacingBetweenSlices", "SliceThickness"),
)


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


class HeaderReader:
    """Reader of headers, which asks GDCM once for all slices that differ in nothing but their place."""

    def __init__(self) -> None:
        self._gdcm = gdcm_reader()
        self._forms: dict[tuple[Any, ...], Header] = {}

    def read(self, path: Path) -> Header:
        """Header of a file.

        Raises:
            ValueError: If it is not a sound DICOM image, lacks voxels or its place, or its voxels are not numbers.
        """
        if is_overrun(path):
            msg = f"{path}: file must be sound DICOM, got an element that goes on beyond the end of the file, or is of an unknown kind"
            raise ValueError(msg)
        content = read_elements(path, (*TAGS, *PLANE, *FORM, "RealWorldValueMappingSequence"))
        with sound(path):
            tags = {name: found for name in TAGS if (found := text(content, name))}
            origin, axes, spacing_mm = (numbers(content, name, count) for name, count in PLANE.items())
            header = replace(self._form(path, content, origin), path=path, tags=tags)
        placed = origin and axes and spacing_mm and _is_placed(header, origin, axes, spacing_mm)
        if tags.get("SOPClassUID") in PLANE_CLASSES and not placed:
            got = ", ".join(f"{name} {text(content, name)!r}" for name in PLANE)
            msg = f"{path}: slice must say where it is, how it is turned and how large its pixels are, got {got}"
            raise ValueError(msg)
        return header

    def _form(self, path: Path, content: Any, origin: Sequence[float] | None) -> Header:
        """Header of a file without tags, perhaps made from that of another one which differs in its place only."""
        uid, syntax = text(content, "SOPClassUID"), content.file_meta.TransferSyntaxUID
        plain = syntax in PLAIN and uid in SAME_FORM and frames_of(content) == 1 and tag("RealWorldValueMappingSequence") not in content
        if not plain or origin is None:  # compressed voxels have a header of their own
            return self._read(path, content)
        key = (syntax, *(raw(content, name) for name in FORM))
        if key not in self._forms:
            self._forms[key] = self._read(path, content)
        x, y, z = origin
        return replace(self._forms[key], origin=(x, y, z))

    def _read(self, path: Path, content: Any) -> Header:
        reader = self._gdcm
        reader.SetFileName(str(path))
        with sitk_errors(path):
            reader.ReadImageInformation()
        size = (*reader.GetSize(), 1)[:3]
        if size != (told := (integer(content, "Columns"), integer(content, "Rows"), frames_of(content))):
            msg = f"{path}: header must give one size, got {told} and {size} voxels"
            raise ValueError(msg)
        return Header(
            path,
            size=size,
            spacing_mm=(*reader.GetSpacing(), 1.0)[:3],
            origin=(*reader.GetOrigin(), 0.0)[:3],
            direction=np.array(reader.GetDirection()).reshape(3, 3),
            dtype=stored_dtype(reader.GetPixelID(), path),
            components=reader.GetNumberOfComponents(),
        )


def read_headers(folder: Path) -> tuple[list[Header], dict[Path, str]]:
    """Headers of all DICOM images in a folder, and the kinds of its other DICOM files; all else is ignored.

    Raises:
        ValueError: If DICOM files are broken; the first ones are named.
    """
    reader = HeaderReader()
    headers, others, broken = [], {}, {}
    for path in visible_files(folder):
        due = path.suffix.lower() in DICOM_SUFFIXES or begins_as_dicom(path)
        if not due and _is_named(path):
            continue
        try:
            header = reader.read(path)
            kind = kind_without_image(header.tags.get("SOPClassUID"))
            if not kind:
                headers.append(header)
        except ValueError as error:
            kind = kind_without_image(sop_class(path))
            if due and not kind:
                broken[path] = error
        if kind:
            others[path] = kind
    if broken:
        msg = f"{folder}: DICOM files must be sound, got {len(broken)} of {len(headers) + len(broken)} that cannot be read: "
        msg += f"{abbreviated(p.name for p in broken)}; fetch them anew, or move away what is no slice; the first: "
        msg += str(next(iter(broken.values())))
        raise ValueError(msg)
    return headers, {path: kind for path, kind in others.items() if kind != "DICOMDIR"}


def gdcm_reader() -> Any:
    """SimpleITK reader for DICOM files of any name."""
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    return reader


def _is_placed(header: Header, origin: Sequence[float], axes: Sequence[float], spacing_mm: Sequence[float]) -> bool:
    """Whether GDCM understood what a slice says of its place: what is none, such as a spacing of 0, it makes up."""
    same = header.origin == tuple(origin) and header.spacing_mm[:2] == tuple(spacing_mm[::-1]) and min(spacing_mm) > 0
    return same and bool(np.abs(header.direction[:, :2].T.ravel() - axes).max() <= MAX_TURNED)


def _is_named(path: Path) -> bool:
    """Whether the file has a suffix; ``1.2.840.113.7`` and ``IM0001`` have none."""
    return bool(path.suffix) and not path.suffix[1:].isdigit()
