"""Distributions and shares as inline SVG in the colours of the page, without a plotting library."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from stseg3d.report.markup import Markup, element, join

WIDTH, HEIGHT, FOOT, SIDE = 320, 120, 22, 10
BINS = 16
MAX_DOTS = 8  # per bin; with more cases bars are drawn
RADIUS = 5.5
PART_COLOURS = 6  # number of colours of parts in report.css


def distribution(title: str, values: Mapping[str, float], text: Callable[[float], str]) -> Markup:
    """Plot of a number over cases: a dot per case, or bars for many cases, and a line at the median.

    Args:
        title: Name of the number.
        values: Numbers by case.
        text: Formats a number with its unit.
    """
    numbers = np.array(list(values.values()))
    low, high, median = float(numbers.min()), float(numbers.max()), float(np.median(numbers))
    if low == high:  # equal values lie in the middle
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    where = np.minimum(((numbers - low) / (high - low) * BINS).astype(int), BINS - 1)
    counts = np.bincount(where, minlength=BINS)
    marks = _dots(values, where, counts, text) if counts.max() <= MAX_DOTS else _bars(counts)
    across = SIDE + (median - low) / (high - low) * (WIDTH - 2 * SIDE)
    line = element("line", x1=f"{across:.1f}", x2=f"{across:.1f}", y1=4, y2=HEIGHT - FOOT, class_="median")
    axis = element("line", x1=SIDE, x2=WIDTH - SIDE, y1=HEIGHT - FOOT, y2=HEIGHT - FOOT, class_="axis")
    ends = [text(float(numbers.min())), text(float(numbers.max()))]
    labels = [
        element("text", end, x=x, y=HEIGHT - 6, text_anchor=side)
        for end, x, side in zip(ends, (SIDE, WIDTH - SIDE), ("start", "end"), strict=True)
    ]
    said = f"{title} of {len(values)} cases: {ends[0]} to {ends[1]}, median {text(median)}"
    picture = element(
        "svg", element("title", said), axis, marks, line, *labels, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=said
    )
    caption = element("figcaption", element("b", title), element("span", f"median {text(median)}"))
    return element("figure", caption, picture, class_="plot")


def _dots(values: Mapping[str, float], where: Sequence[int] | np.ndarray, counts: np.ndarray, text: Callable[[float], str]) -> Markup:
    step = (WIDTH - 2 * SIDE) / BINS
    rise = min(2 * RADIUS + 1, (HEIGHT - FOOT - 8) / max(int(counts.max()), 1))
    stacked = [0] * BINS
    dots = []
    for (name, value), place in zip(values.items(), where, strict=True):
        x, y = SIDE + (place + 0.5) * step, HEIGHT - FOOT - RADIUS - 2 - rise * stacked[place]
        stacked[place] += 1
        dots.append(element("circle", element("title", f"{name}: {text(value)}"), cx=f"{x:.1f}", cy=f"{y:.1f}", r=RADIUS, class_="dot"))
    return join(*dots)


def _bars(counts: np.ndarray) -> Markup:
    step, room = (WIDTH - 2 * SIDE) / BINS, HEIGHT - FOOT - 8
    bars = []
    for place, count in enumerate(counts):
        height = room * count / counts.max()
        x, y = SIDE + place * step + 1, HEIGHT - FOOT - height
        bars.append(element("rect", x=f"{x:.1f}", y=f"{y:.1f}", width=f"{step - 2:.1f}", height=f"{height:.1f}", class_="dot"))
    return join(*bars)


def shares(parts: Mapping[str, float], text: Callable[[float], str]) -> Markup:
    """Bar that shows parts of a whole.

    Args:
        parts: Sizes by name, none negative.
        text: Formats a size with its unit.
    """
    total = sum(parts.values()) or 1.0
    left, bars = 0.0, []
    for n, value in enumerate(parts.values()):
        width = 100 * value / total
        bars.append(element("rect", x=f"{left:.2f}", y=0, width=f"{width:.2f}", height=10, class_=f"part{n % PART_COLOURS}"))
        left += width
    said = ", ".join(f"{name} {text(value)}" for name, value in parts.items())
    return element("svg", *bars, viewBox="0 0 100 10", preserveAspectRatio="none", role="img", aria_label=said, class_="shares")


def swatch(n: int) -> Markup:
    """Square in the colour of a bar's n-th part."""
    square = element("rect", width=10, height=10, class_=f"part{n % PART_COLOURS}")
    return element("svg", square, viewBox="0 0 10 10", aria_hidden="true", class_="swatch")
