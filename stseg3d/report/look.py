"""Content of one case in the page: pictures, scores, and data of the viewer; errors become remarks."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from stseg3d.evaluate import Pair, evaluate_case
from stseg3d.geometry import Box
from stseg3d.report.drawing import Picture, resize
from stseg3d.report.gather import CaseRecord
from stseg3d.report.panels import draw_panels, panels_of_case
from stseg3d.report.viewer import LEVELS, Scene, scene_data
from stseg3d.results.journal import LOG_NAME
from stseg3d.volumes import ArrayVolume, Volume, open_volume, read_classes, read_label

logger = logging.getLogger(__name__)

PANEL_HEIGHT, PANELS_WIDTH = 520, 2400  # pixels
THUMBNAIL = 96
QUALITY, THUMBNAIL_QUALITY = 84, 70  # of JPEG


@dataclass(frozen=True)
class Shot:
    """A picture in the page.

    Args:
        title: What it shows; empty if there is only one view.
        jpeg: JPEG file in base64.
        width: Width in pixels.
        height: Height in pixels.
    """

    title: str
    jpeg: str
    width: int
    height: int


@dataclass
class Look:
    """Content of a case in the page.

    Attributes:
        record: The case.
        shots: Its pictures.
        thumbnail: The first of them, small and square.
        viewer: JSON for the viewer; empty without viewer.
        scores: Metrics of the foreground against the label.
        drawn: Which outlines the pictures have: ``rough``, ``truth``, ``boxes``, ``labels``.
    """

    record: CaseRecord
    shots: list[Shot] = field(default_factory=list)
    thumbnail: Shot | None = None
    viewer: str = ""
    scores: dict[str, float] = field(default_factory=dict)
    drawn: list[str] = field(default_factory=list)


def look_at(record: CaseRecord, viewer_bytes: float = 0) -> Look:
    """Content of a case, drawn and scored.

    Args:
        record: The case; remarks are added to it.
        viewer_bytes: Size limit of the viewer's copies; 0 for none.
    """
    look = Look(record)
    if record.labels is None:
        return look
    if record.truth is not None:
        _try(look, "not scored", _score)
    if record.image is None:
        why = f"is not one that {LOG_NAME} names" if os.path.lexists(record.input) else "is not there"
        record.remarks.append(f"image {record.input or 'unknown'} {why}: no pictures (--images says where images are)")
        return look
    _try(look, "not drawn", lambda one: _draw(one, viewer_bytes))
    return look


def _try(look: Look, what: str, action: Callable[[Look], None]) -> None:
    try:
        action(look)
    except Exception as error:  # one case never stops the report
        sentence = " ".join(str(error).split()) or type(error).__name__
        logger.warning("%s: %s: %s", look.record.name, what, sentence)
        look.record.remarks.append(f"{what}: {sentence}")


def _score(look: Look) -> None:
    record = look.record
    assert record.labels is not None
    assert record.truth is not None
    if record.known.kind == "probabilities":
        record.remarks.append("not scored: the output holds probabilities, not labels")
        return
    look.scores = evaluate_case(Pair(record.name, record.labels, record.truth, record.label_values))[0].values


def _draw(look: Look, viewer_bytes: float) -> None:
    record = look.record
    assert record.image is not None
    assert record.labels is not None
    volume = open_volume(record.image, channels_last=True)
    labels = _labels(open_volume(record.labels, channels_last=True))
    if labels.shape != volume.grid.shape:
        msg = f"image {record.image} must have the shape of its labels, {labels.shape}, got {volume.grid.shape}"
        raise ValueError(msg)
    boxes = _boxes(record, volume)
    truth = _truth(record, volume)
    rough, threshold = _rough(record)
    panels = panels_of_case(volume, labels, boxes, truth=truth, rough=rough, threshold=threshold)
    pictures, _ = draw_panels(panels, volume, height=PANEL_HEIGHT, width=PANELS_WIDTH)
    look.shots = [_shot(panel.title, picture, QUALITY) for panel, picture in zip(panels, pictures, strict=True)]
    look.thumbnail = _shot("", _square(pictures[0]), THUMBNAIL_QUALITY)
    there = {"labels": labels.any(), "rough": rough is not None, "truth": truth is not None, "boxes": bool(boxes)}
    look.drawn = [name for name, present in there.items() if present]
    if viewer_bytes:
        look.viewer = json.dumps(scene_data(Scene(volume, labels, boxes, rough, threshold), viewer_bytes))


def _labels(volume: Volume) -> NDArray[np.integer]:
    """Label map; the most probable class if the volume holds probabilities."""
    if volume.dtype.kind != "f":
        return read_classes(volume)
    probabilities = volume.read()
    best = probabilities.argmax(axis=0) + 1
    labels: NDArray[np.integer] = np.where(probabilities.sum(axis=0) >= 0.5, best, 0).astype(np.uint8)
    return labels


def _boxes(record: CaseRecord, volume: Volume) -> list[Box]:
    notes = record.known
    if notes.box_count > len(notes.boxes):
        record.remarks.append(f"only the first {len(notes.boxes)} of {notes.box_count} boxes are drawn")
    clipped = (Box(b.start, b.stop).clip(volume.grid.shape) for b in notes.boxes)
    return [box for box in clipped if not box.is_empty()]


def _truth(record: CaseRecord, volume: Volume) -> NDArray[np.integer] | None:
    if record.truth is None:
        return None
    try:
        return read_label(record.truth, volume, record.label_values, meaning="foreground").classes
    except ValueError:
        return None  # scoring has reported it


def _rough(record: CaseRecord) -> tuple[Volume | None, float]:
    """Foreground probability of the rough stage, and the threshold of its mask."""
    if record.rough is None or record.known.rough is None:
        return None, 0.5
    stored = open_volume(record.rough)
    array = stored.read().astype(np.float32) / LEVELS
    return ArrayVolume(array, stored.grid, stored.name), record.known.rough.threshold


def _square(picture: Picture) -> Picture:
    """Thumbnail of the middle of a picture."""
    rows, columns = picture.shape[:2]
    side = min(rows, columns)
    top, left = (rows - side) // 2, (columns - side) // 2
    middle = picture[top : top + side, left : left + side]
    return np.stack([resize(middle[..., c], (THUMBNAIL, THUMBNAIL)) for c in range(3)], axis=-1)


def _shot(title: str, picture: Picture, quality: int) -> Shot:
    levels = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.jpg"
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(levels, isVector=True), str(path), useCompression=True, compressionLevel=quality)
        return Shot(title, b64encode(path.read_bytes()).decode("ascii"), levels.shape[1], levels.shape[0])
