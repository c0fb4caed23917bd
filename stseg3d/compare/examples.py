"""Overlays: a case in a row, a way in a column; ground truth, prediction and boxes on the image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stseg3d.compare.comparison import WAY_TITLES, Comparison
from stseg3d.compare.figure_style import ONE_LINE_WIDTH, WAY_COLOURS, new_figure, save_figure, styled
from stseg3d.geometry import Box
from stseg3d.report.views import best_slices, choose_window

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rectangle = tuple[float, float, float, float]  # top, left, bottom, right, in pixels, half-open
TRUTH_COLOUR, BOX_COLOUR = "#FFFFFF", "#F0E442"  # white and Okabe and Ito's yellow: no way has them
MIN_WIDTH, MAX_WIDTH, MIN_HEIGHT, MAX_HEIGHT = 1.9, 2.7, 0.9, 3.6  # of a panel, in inches
MARGIN, MIN_SHOWN = 0.12, 0.4  # of the image: room around what is shown, and the least part that is shown
SCALE_BAR_LENGTHS = tuple(m * 10**e for e in range(-4, 4) for m in (1, 2, 5))


@dataclass(frozen=True)
class Example:
    """One panel: a slice with its segmentation."""

    title: str  # text above the panel
    image: NDArray[Any]  # `(rows, columns)` of any intensities, or `(rows, columns, 3 or 4)` for colours of 0..255 or 0..1
    label: NDArray[Any]  # ground truth, `(rows, columns)`
    prediction: NDArray[Any]  # predicted labels, `(rows, columns)`
    rectangles: Sequence[Rectangle] = field(default_factory=tuple)  # boxes, in rows and columns
    pixel_mm: tuple[float, float] | None = None  # height and width of a pixel; None for a picture without a scale
    way: str = "two_stage"  # gives the prediction its colour


@dataclass(frozen=True, slots=True)
class Slice:
    """One slice of a volume whose axes run as a picture's: to the right, down, and down again or away."""

    axis: int  # the axis it lies across
    index: int  # its index along that axis

    @classmethod
    def best(cls, mask: NDArray[Any]) -> Slice:
        """The slice with most voxels of a mask, across any axis; the middle one across the shortest axis if the mask is empty."""
        at = best_slices(mask, [])
        axis = max(range(3), key=lambda a: (np.count_nonzero(np.take(mask, at[a], axis=a)), -mask.shape[a]))
        return cls(axis, at[axis])

    def pixels(self, array: NDArray[Any]) -> NDArray[Any]:
        """Rows and columns of the slice: ``(*S) -> (rows, columns)``, ``(C, *S) -> (rows, columns, C)``."""
        plane: NDArray[Any] = np.take(array, self.index, axis=self.axis - 3)
        return plane.T

    def rectangles(self, boxes: Iterable[Box]) -> list[Rectangle]:
        """The boxes that the slice cuts, in its rows and columns."""
        across, down = (axis for axis in range(3) if axis != self.axis)
        cut = (b for b in boxes if b.start[self.axis] <= self.index < b.stop[self.axis])
        return [(b.start[down], b.start[across], b.stop[down], b.stop[across]) for b in cut]

    def pixel_mm(self, spacing_mm: Sequence[float]) -> tuple[float, float]:
        """Height and width of a pixel."""
        across, down = (spacing for axis, spacing in enumerate(spacing_mm) if axis != self.axis)
        return down, across


def choose_cases(comparison: Comparison, size: int) -> dict[str, str]:
    """Ids of the cases with the worst, the median and the best Dice of two stages at a size; fewer if there are fewer cases.

    Returns:
        Case by ``"worst"``, ``"median"`` and ``"best"``, each case once.
    """
    scores = [s for s in comparison.at("two_stage", size).values() if np.isfinite(s.value("dice"))]
    ranked = [s.case for s in sorted(scores, key=lambda s: (s.value("dice"), s.case))]
    if not ranked:
        return {}
    picks = {"worst": ranked[0], "median": ranked[(len(ranked) - 1) // 2], "best": ranked[-1]}
    return {rank: case for n, (rank, case) in enumerate(picks.items()) if case not in list(picks.values())[:n]}


def draw_examples(rows: Sequence[Sequence[Example]], path: Path) -> list[Path]:
    """Files of a figure of all panels, each row one case; ``path`` has no suffix.

    All panels of a row show the same part of the image, around everything that any of them marks, in the same grey scale.
    """
    with styled():
        figure = _compose(rows)
    return save_figure(figure, path)


def _compose(rows: Sequence[Sequence[Example]]) -> Figure:
    columns = max(map(len, rows))
    views = [_view(row) for row in rows]
    ratios = [_aspect(row[0], view) for row, view in zip(rows, views, strict=True)]
    width = min(max(MAX_HEIGHT / max(min(ratios), 0.1), MIN_WIDTH), MAX_WIDTH)
    heights = [min(max(ratio * width, MIN_HEIGHT), MAX_HEIGHT) for ratio in ratios]
    figure = new_figure(columns * width, sum(heights) + 0.4 * len(rows) + 0.45)
    grid = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    for line, row, view in zip(grid, rows, views, strict=True):
        shown = _brightness(row[0].image, view)
        for axes in line[len(row) :]:
            axes.set_axis_off()
        for n, (axes, example) in enumerate(zip(line, row, strict=False)):
            _draw_panel(axes, example, shown, view)
            axes.set_title(example.title, fontsize=9.5)
            if n == 0:
                _draw_scale(axes, example, view)
    _add_legend(figure, rows)
    return figure


def _view(row: Sequence[Example]) -> Rectangle:
    """The part of the image around everything that is marked, with room, and no less than :data:`MIN_SHOWN` of it along an axis."""
    marked = np.zeros(row[0].image.shape[:2], dtype=bool)
    for example in row:
        marked |= (example.label > 0) | (example.prediction > 0)
        for top, left, bottom, right in example.rectangles:
            marked[int(max(top, 0)) : int(np.ceil(bottom)), int(max(left, 0)) : int(np.ceil(right))] = True
    ends = []
    for axis, n in enumerate(map(int, marked.shape)):
        seen = np.flatnonzero(marked.any(axis=1 - axis))
        low, high = (seen[0], seen[-1] + 1) if seen.size else (0, n)
        room = max(MARGIN * n, (MIN_SHOWN * n - (high - low)) / 2)
        ends.append((max(int(low - room), 0), min(int(np.ceil(high + room)), n)))
    (top, bottom), (left, right) = ends
    return top, left, bottom, right


def _aspect(example: Example, view: Rectangle) -> float:
    """Height by width of the visible part."""
    tall, wide = example.pixel_mm or (1.0, 1.0)
    top, left, bottom, right = view
    return (bottom - top) * tall / ((right - left) * wide)


def _brightness(image: NDArray[Any], view: Rectangle) -> NDArray[np.float32]:
    """Colours unchanged; a grey image windowed to its visible part."""
    if image.ndim == 3:
        top = 255.0 if image.max(initial=0) > 1 else 1.0
        colours: NDArray[np.float32] = np.clip(image[..., :3].astype(np.float32) / top, 0, 1)
        return colours
    top_row, left, bottom, right = map(int, view)
    grey = np.nan_to_num(image.astype(np.float32), nan=0, posinf=0, neginf=0)
    return choose_window([grey[top_row:bottom, left:right]])(grey)


def _draw_panel(axes: Axes, example: Example, shown: NDArray[np.float32], view: Rectangle) -> None:
    from matplotlib.patches import Rectangle as Patch

    top, left, bottom, right = view
    tall, wide = example.pixel_mm or (1.0, 1.0)
    axes.imshow(
        shown, cmap="gray", vmin=0, vmax=1, extent=(0, shown.shape[1], shown.shape[0], 0), aspect=tall / wide, interpolation="bilinear"
    )
    _draw_contours(axes, example)
    for upper, leftmost, lower, rightmost in example.rectangles:
        size = (rightmost - leftmost, lower - upper)
        axes.add_patch(Patch((leftmost, upper), *size, fill=False, edgecolor=BOX_COLOUR, linewidth=1.1, linestyle=(0, (4, 2))))
    axes.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _draw_contours(axes: Axes, example: Example) -> None:
    """Draw lines on the edges of pixels, those of ground truth thinner and on top, so that both are seen where they agree."""
    from matplotlib.collections import LineCollection

    truth, found = list(outline(example.label)), list(outline(example.prediction))
    # Dark lines below all of them show them on a bright ground.
    for lines, colour, width, alpha in (
        (truth, "#000000", 1.6, 0.6),
        (found, "#000000", 3.0, 0.6),
        (found, WAY_COLOURS[example.way], 2.3, 1.0),
        (truth, TRUTH_COLOUR, 0.7, 1.0),
    ):
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=width, capstyle="projecting", alpha=alpha))


def outline(labels: NDArray[Any]) -> NDArray[np.float64]:
    """Edges between pixels of different labels, as lines of two points (x, y): ``(rows, columns) -> (lines, 2, 2)``.

    Example:
        >>> len(outline(np.array([[0, 1, 1, 0]])))
        6
    """
    padded = np.pad(labels, 1)
    across = np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])  # below each of these stands another label: row, column
    along = np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])
    level = [[[column, row], [column + 1, row]] for row, column in across]
    upright = [[[column, row], [column, row + 1]] for row, column in along]
    return np.array(level + upright, dtype=np.float64).reshape(-1, 2, 2)


def _draw_scale(axes: Axes, example: Example, view: Rectangle) -> None:
    """A bar of a round length, a fifth to a third of the panel, in mm or pixels."""
    from matplotlib.patheffects import withStroke

    top, left, bottom, right = view
    wide = (example.pixel_mm or (1.0, 1.0))[1]
    length = max((n for n in SCALE_BAR_LENGTHS if n <= 0.35 * (right - left) * wide), default=SCALE_BAR_LENGTHS[0])
    start, row = left + 0.05 * (right - left), bottom - 0.06 * (bottom - top)
    halo = [withStroke(linewidth=3, foreground="black")]
    axes.plot([start, start + length / wide], [row, row], color="white", linewidth=2.2, solid_capstyle="butt", path_effects=halo)
    text = f"{length:g} {'mm' if example.pixel_mm else 'px'}"
    axes.annotate(text, (start, row), (0, 3), textcoords="offset points", color="white", fontsize=9, path_effects=halo)


def _add_legend(figure: Figure, rows: Sequence[Sequence[Example]]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import withStroke

    examples = [example for row in rows for example in row]
    ways = [way for way in WAY_TITLES if any(e.way == way for e in examples)]
    edge = [withStroke(linewidth=3.2, foreground="#444444")]
    handles = [Line2D([], [], color=TRUTH_COLOUR, linewidth=1.8, path_effects=edge, label="ground truth")]
    handles += [Line2D([], [], color=WAY_COLOURS[way], linewidth=2, label=WAY_TITLES[way]) for way in ways]
    if any(example.rectangles for example in examples):
        handles.append(Line2D([], [], color=BOX_COLOUR, linewidth=1.8, linestyle=(0, (3, 1.2)), path_effects=edge, label="boxes"))
    columns = len(handles) if figure.get_figwidth() >= ONE_LINE_WIDTH else 3 if max(map(len, rows)) > 1 else 1
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=9, handlelength=1.8, columnspacing=1.4)
