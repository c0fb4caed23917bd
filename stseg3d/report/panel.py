"""One panel of a picture, from brightness and labels to pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from stseg3d.report.drawing import Colour, Picture, contour, draw_frame, mix, resize
from stseg3d.report.views import Labels, Plane, Surface

Span = tuple[tuple[int, int], tuple[int, int]]
BOX_COLOUR: Colour = (0.98, 0.93, 0.55)
TRUTH_COLOUR: Colour = (0.96, 0.55, 0.10)
ROUGH_COLOUR: Colour = (1.0, 0.36, 0.44)
DASH_PIXELS = 6  # length of the rough mask's dashes
# After Okabe and Ito's colour-blind safe palette, lighter for a dark background; further labels start again. Orange is for the truth.
LABEL_COLOURS: tuple[Colour, ...] = ((0.30, 0.76, 0.98), (0.90, 0.55, 0.80), (0.20, 0.80, 0.58), (0.72, 0.70, 1.0), (0.95, 0.95, 0.95))


@dataclass(frozen=True)
class Panel:
    """One panel of the picture.

    Args:
        title: What it shows.
        axes: Image axes that run to the left and up in it, or, for a picture that is not of a patient, to the right and down.
        image: Brightness over these axes.
        labels: Labels of a slice over these axes.
        truth: True labels over these axes; None if unknown.
        boxes: Start and stop of each box on these axes.
        body: The object seen from outside, instead of ``labels``.
        rough: Rough map of a slice over these axes, whose outline is at 0.5.
    """

    title: str
    axes: tuple[int, int]
    image: Plane
    labels: Labels
    truth: Labels | None
    boxes: list[Span]
    body: Surface | None = None
    rough: Plane | None = None


def cropped(panel: Panel, low: tuple[int, int], high: tuple[int, int]) -> Panel:
    """Part of a panel between two corners."""
    part = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    spans = [[tuple(min(max(p, a), b) - a for p, a, b in zip(ends, low, high, strict=True)) for ends in span] for span in panel.boxes]
    return replace(
        panel,
        image=panel.image[part],
        labels=panel.labels[part],
        truth=None if panel.truth is None else panel.truth[part],
        boxes=[((a[0], a[1]), (b[0], b[1])) for a, b in spans],
        body=panel.body and Surface(panel.body.cover[part], panel.body.shade[part], panel.body.label[part]),
        rough=None if panel.rough is None else panel.rough[part],
    )


def colour_of(label: int) -> Colour:
    """Colour of a label, from 1."""
    return LABEL_COLOURS[(label - 1) % len(LABEL_COLOURS)]


@dataclass(frozen=True)
class Screen:
    """Conversion from planes to pixels.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        lies_flat: Whether a plane's axes run to the right and down, as in a picture file, and not to the left and up, as for patients.
    """

    width: int
    height: int
    lies_flat: bool

    def upright(self, plane: NDArray[np.floating], order: int = 1) -> Picture:
        """Plane in pixels."""
        pixels = resize(plane.astype(np.float32), (self.width, self.height), order).T
        return pixels if self.lies_flat else pixels[::-1, ::-1]

    def soft(self, mask: NDArray[np.bool_]) -> Picture:
        """Mask in pixels, smoothed by less than a voxel."""
        return self.upright(gaussian_filter(mask.astype(np.float32), 0.6, mode="nearest"))

    def rectangle(self, span: Span, shape: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Upper left and lower right corner (row, column), in whole pixels, of a box on a plane of this shape."""
        (a0, b0), (a1, b1) = span
        columns, rows = (a0, a1), (b0, b1)
        if not self.lies_flat:
            columns, rows = (shape[0] - a1, shape[0] - a0), (shape[1] - b1, shape[1] - b0)
        ends = [(round(r * self.height / shape[1]), round(c * self.width / shape[0])) for r, c in zip(rows, columns, strict=True)]
        return ends[0], ends[1]


def draw(panel: Panel, screen: Screen) -> Picture:
    """Panel in pixels."""
    brightness = np.clip(screen.upright(panel.image, 3), 0, 1)
    if panel.body is not None:
        brightness = np.clip(0.75 * brightness / max(float(np.percentile(brightness, 99.5)), 1e-6), 0, 1)
    picture: Picture = 0.02 + 0.96 * np.repeat(brightness[..., None], 3, axis=2)
    if panel.body is not None:
        draw_body(picture, panel.body, screen)
    if panel.truth is not None and panel.truth.any():  # wider and below, so that both lines are visible where they agree
        mix(picture, contour(screen.soft(panel.truth != 0), 4.4 if panel.body is None else 1.6), TRUTH_COLOUR)
    if panel.body is None:
        draw_labels(picture, panel.labels, screen)
    if panel.rough is not None:
        draw_dashes(picture, screen.upright(panel.rough))
    strength = 1.0 if panel.body is None else float(np.clip(8 / max(len(panel.boxes), 1) ** 0.7, 0.12, 0.75))
    for span in panel.boxes:
        low, high = screen.rectangle(span, panel.image.shape)
        draw_frame(picture, low, high, BOX_COLOUR, strength=strength)
    return picture


def draw_labels(picture: Picture, labels: Labels, screen: Screen) -> None:
    """Draw a tint and a contour for every label."""
    for label in np.unique(labels[labels != 0]):
        soft = screen.soft(labels == label)
        mix(picture, np.float32(0.22) * np.clip(2 * soft - 0.5, 0, 1), colour_of(int(label)))
        mix(picture, contour(soft, 2.2), colour_of(int(label)))


def draw_dashes(picture: Picture, soft: Picture) -> None:
    """Draw a dashed line along the level 0.5."""
    rows, columns = np.indices(soft.shape)
    mix(picture, contour(soft, 1.8) * ((rows + columns) // DASH_PIXELS % 2), ROUGH_COLOUR)


def draw_body(picture: Picture, body: Surface, screen: Screen) -> None:
    """Draw the object as a solid, lit body."""
    palette = np.array([(0, 0, 0), *LABEL_COLOURS], dtype=np.float32)
    index = np.where(body.label == 0, 0, (body.label.astype(np.int64) - 1) % len(LABEL_COLOURS) + 1)
    colours = np.stack([screen.upright(palette[index, c]) for c in range(3)], axis=-1)
    shade = screen.upright(body.shade)[..., None]
    gloss = np.clip(shade - 0.93, 0, 1) * 5
    soft = screen.upright(body.cover)
    slope = np.maximum(np.hypot(*np.gradient(soft)), 1e-3)
    mix(picture, np.clip((soft - 0.5) / slope + 0.5, 0, 1), np.clip(colours * (0.18 + 0.85 * shade) + gloss, 0, 1))
