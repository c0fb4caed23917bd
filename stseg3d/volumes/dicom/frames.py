"""Enhanced DICOM: one file of many frames, each with its own position."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from stseg3d.volumes.dicom.headers import Header

# SOP classes whose frames have positions in functional groups: enhanced and legacy converted CT, MR and PET (DICOM PS3.4, B.5).
ENHANCED = tuple(f"1.2.840.10008.5.1.4.1.1.{number}" for number in ("2.1", "2.2", "4.1", "4.4", "130", "128.1"))
# Attributes that may distinguish frames at one position: sequence, attribute, and the equivalent tag of plain files.
FRAME_DISTINCTIONS = (
    ("FrameContentSequence", "FrameAcquisitionNumber", "AcquisitionNumber"),
    ("FrameContentSequence", "TemporalPositionIndex", "TemporalPositionIdentifier"),
    ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase", "NominalPercentageOfCardiacPhase"),
    ("MREchoSequence", "EffectiveEchoTime", "EchoTime"),
    ("CTReconstructionSequence", "ConvolutionKernel", "ConvolutionKernel"),
)


def is_enhanced(header: Header) -> bool:
    """Whether the file's frames have positions of their own."""
    return header.size[2] > 1 and header.tags.get("SOPClassUID") in ENHANCED


def frame_headers(header: Header) -> list[Header]:
    """A header for each frame of an enhanced file.

    Raises:
        ImportError: If pydicom, which reads them, is missing.
        ValueError: If a frame has no position, or the frames are rescaled differently.
    """
    # GDCM 3.0 (SimpleITK 2.5) assumes ordered, even frames, and gives 1 mm if they are not; mixes time points; ignores tilt; and rescales
    # all like the first (tests/volumes/test_dicom.py). So the attributes of the file itself are read.
    shared, frames = _functional_groups(header)
    if len(frames) != header.size[2]:
        msg = f"{header.path}: each frame must say where it is, got {len(frames)} places for {header.size[2]} frames"
        raise ValueError(msg)
    scales = {_scale([frame, shared]) for frame in frames}
    if len(scales) > 1:
        msg = f"{header.path}: frames must have one rescale slope and intercept, got {len(scales)}, such as {min(scales)} and {max(scales)}"
        raise ValueError(msg)
    return [_header_of(header, number, [frame, shared]) for number, frame in enumerate(frames)]


def _functional_groups(header: Header) -> tuple[Any, list[Any]]:
    """Functional groups shared by all frames (or None), and those of each frame."""
    try:
        import pydicom
    except ImportError as error:
        msg = f"{header.path}: a DICOM file of many frames needs pydicom, got none: pip install 'stseg3d[dicom]'"
        raise ImportError(msg) from error
    content = pydicom.dcmread(header.path, stop_before_pixels=True)
    shared = content.get("SharedFunctionalGroupsSequence") or [None]
    return shared[0], list(content.get("PerFrameFunctionalGroupsSequence") or [])


def _header_of(header: Header, number: int, groups: list[Any]) -> Header:
    try:
        direction = np.array(_value(groups, "PlaneOrientationSequence", "ImageOrientationPatient"), dtype=float).reshape(2, 3)
        x, y, z = (float(value) for value in _value(groups, "PlanePositionSequence", "ImagePositionPatient"))
        down, across = (float(value) for value in _value(groups, "PixelMeasuresSequence", "PixelSpacing"))
    except (TypeError, ValueError) as error:
        msg = f"{header.path}: each frame must say where it is, got no place or spacing for frame {number + 1}"
        raise ValueError(msg) from error
    told = {tag: _value(groups, sequence, name) for sequence, name, tag in FRAME_DISTINCTIONS}
    tags = header.tags | {tag: str(value) for tag, value in told.items() if value is not None} | {"ImagePositionPatient": f"{x}\\{y}\\{z}"}
    return replace(
        header,
        size=(*header.size[:2], 1),
        spacing_mm=(across, down, header.spacing_mm[2]),
        origin=(x, y, z),
        direction=np.stack([*direction, np.cross(*direction)], axis=1),
        tags=tags,
        frame=number,
        frames=header.size[2],
    )


def _scale(groups: list[Any]) -> tuple[float, float]:
    found = (_value(groups, "PixelValueTransformationSequence", name) for name in ("RescaleSlope", "RescaleIntercept"))
    slope, inter = (None if value is None else float(value) for value in found)
    return 1.0 if slope is None else slope, 0.0 if inter is None else inter


def _value(groups: list[Any], sequence: str, name: str) -> Any:
    """An attribute of the first group that has it; None if none has."""
    for group in groups:
        items = None if group is None else group.get(sequence)
        if items and items[0].get(name) is not None:
            return items[0].get(name)
    return None
