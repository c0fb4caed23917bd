"""Enhanced DICOM: one file of many frames, each with its own position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from stseg3d.volumes.dicom.elements import frames_of, read_elements, sound
from stseg3d.volumes.dicom.headers import Header
from stseg3d.volumes.dicom.kinds import ENHANCED
from stseg3d.volumes.volume import Array

# Attributes that may distinguish frames at one position: sequence, attribute, and the equivalent tag of plain files.
FRAME_DISTINCTIONS = (
    ("FrameContentSequence", "FrameAcquisitionNumber", "AcquisitionNumber"),
    ("FrameContentSequence", "TemporalPositionIndex", "TemporalPositionIdentifier"),
    ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase", "NominalPercentageOfCardiacPhase"),
    ("MREchoSequence", "EffectiveEchoTime", "EchoTime"),
    ("CTReconstructionSequence", "ConvolutionKernel", "ConvolutionKernel"),
)
GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
# Lengths and angle of a frame's two axes may differ by this from units and a right angle: writers round them.
MAX_SKEW = 1e-2


@dataclass(frozen=True, eq=False)
class Frame:
    """Place of a frame, LPS+, in mm, and the functional groups that describe it: its own, and those that all share.

    Args:
        groups: The groups.
        axes: Directions along a row and along a column, of shape ``(2, 3)``.
        origin: Position of the first voxel.
        spacing_mm: Spacing along columns and rows.
    """

    groups: Sequence[Any]
    axes: Array
    origin: tuple[float, float, float]
    spacing_mm: tuple[float, float]


def is_enhanced(header: Header) -> bool:
    """Whether the file's frames have positions of their own."""
    return header.size[2] > 1 and header.tags.get("SOPClassUID") in ENHANCED


def read_frames(path: Path, content: Any) -> list[Frame]:
    """Frames of a file whose functional groups are among the elements of ``content``.

    Raises:
        ValueError: If a frame has no place.
    """
    with sound(path):
        shared, own = (list(content.get(name) or []) for name in GROUPS)
        if len(own) != (frames := frames_of(content)):
            msg = f"{path}: each frame must say where it is, got {len(own)} places for {frames} frames"
            raise ValueError(msg)
        return [_frame(path, number, [group, *shared[:1]]) for number, group in enumerate(own, start=1)]


def frame_headers(header: Header) -> list[Header]:
    """A header for each frame of an enhanced file.

    Raises:
        ValueError: If a frame has no position, or the frames are rescaled differently.
    """
    # GDCM 3.0 (SimpleITK 2.5) assumes ordered, even frames, and gives 1 mm if they are not; mixes time points; ignores tilt; and rescales
    # all like the first (tests/volumes/test_dicom.py). So the attributes of the file itself are read.
    frames = read_frames(header.path, read_elements(header.path, GROUPS))
    with sound(header.path):
        scales = {_scale(frame) for frame in frames}
        if len(scales) > 1:
            msg = f"{header.path}: frames must have one rescale slope and intercept, got {len(scales)}, "
            msg += f"such as {min(scales)} and {max(scales)}"
            raise ValueError(msg)
        return [_header_of(header, number, frame) for number, frame in enumerate(frames)]


def _frame(path: Path, number: int, groups: list[Any]) -> Frame:
    try:
        axes = np.array(value(groups, "PlaneOrientationSequence", "ImageOrientationPatient"), dtype=float).reshape(2, 3)
        x, y, z = (float(part) for part in value(groups, "PlanePositionSequence", "ImagePositionPatient"))
        down, across = (float(part) for part in value(groups, "PixelMeasuresSequence", "PixelSpacing"))
    except (TypeError, ValueError) as error:
        msg = f"{path}: each frame must say where it is, got no place or spacing for frame {number}"
        raise ValueError(msg) from error
    if not (np.abs(axes @ axes.T - np.eye(2)).max() <= MAX_SKEW and np.isfinite([x, y, z]).all() and 0 < min(across, down) < np.inf):
        msg = f"{path}: each frame must have two axes at a right angle, a place and a spacing, got {axes.tolist()}, {[x, y, z]} and "
        msg += f"{[across, down]} mm for frame {number}"
        raise ValueError(msg)
    return Frame(groups, axes, (x, y, z), (across, down))


def _header_of(header: Header, number: int, frame: Frame) -> Header:
    told = {tag: value(frame.groups, sequence, name) for sequence, name, tag in FRAME_DISTINCTIONS}
    tags = header.tags | {tag: str(found) for tag, found in told.items() if found is not None}
    return replace(
        header,
        size=(*header.size[:2], 1),
        spacing_mm=(*frame.spacing_mm, header.spacing_mm[2]),
        origin=frame.origin,
        direction=np.stack([*frame.axes, np.cross(*frame.axes)], axis=1),
        tags=tags | {"ImagePositionPatient": "\\".join(map(str, frame.origin))},
        frame=number,
        frames=header.size[2],
    )


def _scale(frame: Frame) -> tuple[float, float]:
    slope, inter = (value(frame.groups, "PixelValueTransformationSequence", name) for name in ("RescaleSlope", "RescaleIntercept"))
    return 1.0 if slope is None else float(slope), 0.0 if inter is None else float(inter)


def value(groups: Sequence[Any], sequence: str, name: str) -> Any:
    """An attribute of the first functional group that has it; None if none has."""
    for group in groups:
        items = group.get(sequence)
        if items and items[0].get(name) is not None:
            return items[0].get(name)
    return None
