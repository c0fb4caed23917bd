"""Figures of a comparison, after those of Benčević et al. 2023: scores and time against size, all cases, score against cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stseg3d.compare.comparison import Comparison, Vector
from stseg3d.compare.figure_style import (
    INK,
    SIZE_LABEL,
    WAY_COLOURS,
    WAY_LINES,
    WAY_MARKERS,
    add_way_legend,
    new_figure,
    save_figure,
    set_plain_ticks,
    set_size_axis,
    styled,
)
from stseg3d.compare.means import mean_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MIN_VIOLIN_CASES = 20  # fewer cases are shown as points alone
DODGE = 0.02  # of the axis in powers of two between two ways, so that their bars do not hide each other
SLOT = 0.8  # of the distance between two sizes that the ways fill in the figure of all cases
SAME_COST = 0.08  # powers of ten between two points whose labels would overlap


class Point(NamedTuple):
    """Cost and score of a way at a size."""

    way: str
    size: int
    cost: float
    score: float


def draw_figures(comparison: Comparison, folder: Path) -> list[Path]:
    """Files of all figures, ``scores``, ``cases`` and ``costs``, of a comparison with at least one score, in an existing folder."""
    drawings: dict[str, Callable[[Comparison], Figure]] = {"scores": draw_scores, "cases": draw_cases, "costs": draw_costs}
    with styled():
        figures = {name: draw(comparison) for name, draw in drawings.items()}
    return [path for name, figure in figures.items() for path in save_figure(figure, folder / name)]


def draw_scores(comparison: Comparison) -> Figure:
    """Dice and recall against size, with 95 % intervals."""
    figure = new_figure(8.6, 4.0)
    names = [("dice", "Dice"), ("recall", "Recall")]
    both = np.ravel(figure.subplots(1, 2, sharey=True))
    for axes, (name, title) in zip(both, names, strict=True):
        _draw_against_size(axes, comparison, name, error_bars=True)
        axes.set_ylabel(f"{title} (mean, 95 % CI)")
        axes.tick_params(labelleft=True)
    _limit_score(both[0])
    add_way_legend(figure, comparison.ways)
    return figure


def draw_cases(comparison: Comparison) -> Figure:
    """Dice of each case: points, their median, and violins where there are enough cases for a shape."""
    ways, sizes = comparison.ways, comparison.sizes
    figure = new_figure(min(max(5.6, 2.4 + 1.5 * len(sizes)), 11), 4.2)
    axes = figure.subplots()
    step = SLOT / max(len(ways), 3)
    everything = np.array([v for score in comparison.scores if math.isfinite(v := score.value("dice"))])
    near = 0.025 * float(np.ptp(everything)) if everything.size else 0.0
    for column, size in enumerate(sizes):
        for n, way in enumerate(ways):
            values = comparison.values("dice", way, size)
            _draw_distribution(axes, values, column + (n - (len(ways) - 1) / 2) * step, step, way, near)
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set_xlim(-0.55, len(sizes) - 0.45)
    axes.tick_params(axis="x", length=0)
    for edge in range(len(sizes) - 1):
        axes.axvline(edge + 0.5, color="#CCCCCC", linewidth=0.6)
    axes.set(xlabel=SIZE_LABEL, ylabel=f"Dice of a case (n = {len(comparison.cases)}, bar: median)")
    _limit_score(axes)
    add_way_legend(figure, ways, lines=False)
    return figure


def draw_costs(comparison: Comparison) -> Figure:
    """Seconds a case against size, and Dice against multiply-adds with the efficiency frontier."""
    figure = new_figure(8.6, 4.0)
    left, right = figure.subplots(1, 2)
    _draw_against_size(left, comparison, "seconds")
    left.set_yscale("log")
    set_plain_ticks(left.yaxis)
    left.set_ylabel("Time a case [s]")
    left.grid(axis="y")
    _draw_frontier(right, comparison)
    add_way_legend(figure, comparison.ways)
    return figure


def _draw_against_size(axes: Axes, comparison: Comparison, name: str, *, error_bars: bool = False) -> None:
    ways, octaves = comparison.ways, max(math.log2(comparison.sizes[-1] / comparison.sizes[0]) + 0.64, 1.0)
    for n, way in enumerate(ways):
        shift = 2 ** ((n - (len(ways) - 1) / 2) * DODGE * octaves) if error_bars else 1.0
        intervals = {size: mean_of(comparison, name, (way, size)) for size in comparison.sizes}
        found = {size: i for size, i in intervals.items() if math.isfinite(i.mean)}
        bars = [[i.mean - i.low for i in found.values()], [i.high - i.mean for i in found.values()]]
        axes.errorbar(
            [size * shift for size in found],
            [i.mean for i in found.values()],
            yerr=np.maximum(bars, 0) if error_bars and found else None,
            elinewidth=1.3,
            capsize=2.5,
            **_style(way),
        )
    set_size_axis(axes, comparison.sizes)
    axes.grid(axis="y")


def _style(way: str) -> dict[str, Any]:
    line = {"color": WAY_COLOURS[way], "marker": WAY_MARKERS[way], "linestyle": WAY_LINES[way]}
    return line | {"linewidth": 1.8, "markersize": 6, "zorder": 3 if way == "two_stage" else 2}


def _draw_distribution(axes: Axes, values: Vector, at: float, step: float, way: str, near: float) -> None:
    """Points beside each other where they would overlap; a violin behind many; a dark line at the median."""
    if not values.size:
        return
    many = values.size >= MIN_VIOLIN_CASES
    if many and np.ptp(values) > 0:
        bodies = axes.violinplot(values, [at], widths=0.92 * step, showextrema=False)["bodies"]
        for body in bodies:  # type: ignore[attr-defined] # a list of collections, whatever its type says
            body.set(facecolor=WAY_COLOURS[way], alpha=0.35, edgecolor="none")
    size, edge = (5, 0.0) if many else (30, 0.6)
    places = at + step * (spread(values, near / 2, 0.07) if many else spread(values, near))  # inside the violin, or free of each other
    axes.scatter(places, values, s=size, color=WAY_COLOURS[way], marker=WAY_MARKERS[way], linewidths=edge, edgecolors="white", zorder=3)
    axes.hlines(np.median(values), at - 0.4 * step, at + 0.4 * step, color=INK, linewidth=1.8, zorder=4)


def spread(values: Vector, near: float, gap: float = 0.2) -> Vector:
    """Positions between -0.4 and 0.4 for points at these heights: points within ``near`` of each other lie side by side, ``gap`` apart.

    Example:
        >>> spread(np.array([0.1, 0.5, 0.501]), 0.02).round(2).tolist()
        [0.0, -0.1, 0.1]
    """
    order = np.argsort(values, kind="stable")
    starts = np.zeros(len(values), dtype=int)
    for n in range(1, len(order)):
        starts[n] = starts[n - 1] if values[order[n]] - values[order[starts[n - 1]]] < near else n
    places = np.zeros(len(values))
    for start in np.unique(starts):
        members = order[starts == start]
        places[members] = (np.arange(len(members)) - (len(members) - 1) / 2) * min(gap, 0.8 / max(len(members) - 1, 1))
    return places


def _draw_frontier(axes: Axes, comparison: Comparison) -> None:
    """Dice against multiply-adds, a line a way, and the steps of what is best at its cost."""
    points: list[Point] = []
    for way in comparison.ways:
        means = {size: [mean_of(comparison, n, (way, size)).mean for n in ("gmacs", "dice")] for size in comparison.sizes}
        found = [Point(way, size, cost, score) for size, (cost, score) in means.items() if cost > 0 and math.isfinite(score)]
        axes.plot([p.cost for p in found], [p.score for p in found], **_style(way))
        points += found
    best = frontier((p.cost, p.score) for p in points if p.way != "true_boxes")  # nobody has true boxes
    if len(best) > 1:
        axes.step([c for c, _ in best], [s for _, s in best], where="post", color="#999999", linewidth=5, alpha=0.35, zorder=1)
    axes.set_xscale("log")
    axes.margins(0.1, 0.14)
    _label_sizes(axes, points, best)
    set_plain_ticks(axes.xaxis)
    axes.set(xlabel="Multiply-adds a case [$10^9$]", ylabel="Dice (mean)")
    axes.set_title("numbers: network input; grey: best at its cost", fontsize=9, loc="left")
    axes.grid(axis="y")


def _label_sizes(axes: Axes, points: Sequence[Point], best: Sequence[tuple[float, float]]) -> None:
    """Label each point with its size, above or below the frontier; overlapping points of one way share a label, ``32 to 96``."""
    shared: list[list[Point]] = []
    for point in points:
        before = shared[-1][-1] if shared else None
        if before and before.way == point.way and abs(math.log10(point.cost / before.cost)) < SAME_COST:
            shared[-1].append(point)
        else:
            shared.append([point])
    for group in shared:
        above = group[0].way == "true_boxes" or any((p.cost, p.score) in best for p in group)
        place = group[-1].cost, (max if above else min)(p.score for p in group)
        text = str(group[0].size) if len(group) == 1 else f"{group[0].size} to {group[-1].size}"
        shift, colour = (0, 7 if above else -15), WAY_COLOURS[group[0].way]
        axes.annotate(text, place, shift, textcoords="offset points", ha="center", fontsize=9, color=colour)


def _limit_score(axes: Axes) -> None:
    """End the axis of a score at 1."""
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -0.02), min(high, 1.0 + 0.02 * (1.0 - max(low, 0.0))))


def frontier(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (cost, score) that no other beats at its cost or less, by cost.

    Example:
        >>> frontier([(1, 0.5), (2, 0.4), (4, 0.8)])
        [(1, 0.5), (4, 0.8)]
    """
    best: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda p: (p[0], -p[1])):
        if not best or score > best[-1][1]:
            best.append((cost, score))
    return best
