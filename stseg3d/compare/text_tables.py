"""Tables of a comparison: Markdown for a supplement, aligned text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stseg3d.compare.advice import advise
from stseg3d.compare.comparison import WAY_TITLES, Comparison
from stseg3d.compare.csv_rows import metric_names
from stseg3d.compare.means import Place, differences, mean_of, title_of
from stseg3d.evaluate import Interval
from stseg3d.machine.tables import Table
from stseg3d.metrics import METRICS


@dataclass(frozen=True, slots=True)
class Column:
    """A value of :meth:`~stseg3d.compare.comparison.Score.value` in a table."""

    name: str  # the value's name
    title: str  # head of the column, with the unit
    digits: int | None = 3  # decimals; None for about three significant digits


SCORES = (
    Column("dice", "Dice"),
    Column("recall", "Recall"),
    Column("precision", "Precision"),
    Column("hd95_mm", "HD95 [mm]", 2),
    Column("nsd", "NSD"),
    Column("coverage", "Coverage"),
)
COSTS = (
    Column("boxes", "Boxes", 1),
    Column("gmacs", "GMACs", None),
    Column("read_s", "Read [s]", None),
    Column("rough_s", "Rough [s]", None),
    Column("fine_s", "Fine [s]", None),
    Column("seconds", "Time [s]", None),
    Column("peak_mib", "Peak [MiB]", 0),
)
SHORT_COSTS = tuple(column for column in COSTS if column.name in ("gmacs", "seconds", "peak_mib"))


def score_table(comparison: Comparison) -> Table:
    """Mean scores of each way at each size, with 95 % intervals."""
    columns = _measured(comparison, SCORES)
    rows = [
        [*_names(size, way), str(len(scores)), *(show_mean(mean_of(comparison, c.name, (way, size)), c.digits) for c in columns)]
        for size, way, scores in comparison.groups()
    ]
    return Table(["size", "way", "cases", *(c.title for c in columns)], rows, title="Scores")


def cost_table(comparison: Comparison) -> Table:
    """Mean costs of a case for each way at each size."""
    columns = _measured(comparison, COSTS)
    rows = []
    for size, way, scores in comparison.groups():
        means = [show(mean_of(comparison, c.name, (way, size)).mean, c.digits) for c in columns]
        weights = comparison.parameters.get(way)
        rows.append([*_names(size, way), "x".join(map(str, scores[0].size)), *means, "" if weights is None else f"{weights:,}"])
    return Table(["size", "way", "Input [voxels]", *(c.title for c in columns), "Parameters"], rows, title="Costs a case")


def difference_table(comparison: Comparison) -> Table:
    """Paired differences, with 95 % intervals."""
    columns = [c for c in _measured(comparison, SCORES) if c.name != "coverage"]
    found: dict[tuple[Place, Place], dict[str, Interval]] = {}
    for column in columns:
        for difference in differences(comparison, column.name):
            found.setdefault((difference.one, difference.other), {})[column.name] = difference.interval
    rows = []
    for places, cells in found.items():
        values = [show_signed(cells[c.name], c.digits or 0) if c.name in cells else "" for c in columns]
        rows.append([*map(title_of, places), str(max(interval.n for interval in cells.values())), *values])
    return Table(["of", "minus", "cases", *(c.title for c in columns)], rows, title="Paired differences")


def metric_tables(comparison: Comparison) -> list[Table]:
    """Every metric at each size, a way in a column."""
    names = metric_names(comparison)
    digits = {name: 2 if METRICS.get(name, METRICS["dice"]).unit else 3 for name in names}
    tables = []
    for size in comparison.sizes:
        ways = [way for way in comparison.ways if comparison.at(way, size)]
        rows = [[_heading(n), _better(n), *(show_mean(mean_of(comparison, n, (way, size)), digits[n]) for way in ways)] for n in names]
        tables.append(Table(["metric", "better", *(WAY_TITLES[way] for way in ways)], rows, title=f"All metrics at {size}"))
    return tables


def terminal_table(comparison: Comparison) -> Table:
    """The short form: scores and costs in one line, with the interval of Dice alone."""
    scores, costs = _measured(comparison, SCORES), _measured(comparison, SHORT_COSTS)
    rows = []
    for size, way, _ in comparison.groups():
        means = {c.name: mean_of(comparison, c.name, (way, size)) for c in (*scores, *costs)}
        cells = [show_mean(means[c.name], c.digits) if c.name == "dice" else show(means[c.name].mean, c.digits) for c in (*scores, *costs)]
        rows.append([*_names(size, way), *cells])
    titles = ["Dice (95 % CI)" if c.name == "dice" else c.title for c in (*scores, *costs)]
    return Table(["size", "way", *titles], rows, title="Means")


def summary_text(comparison: Comparison) -> str:
    """Text for the terminal: the short table, differences of Dice, the notes and the advice."""
    changes = [f"{title_of(d.one)} - {title_of(d.other)}: Dice {show_signed(d.interval, 3)}" for d in differences(comparison, "dice")]
    parts = [terminal_table(comparison).text(), "\n".join(changes), "\n".join(comparison.notes), advise(comparison).sentence]
    return "\n\n".join(part for part in parts if part) + "\n"


def summary_markdown(comparison: Comparison) -> str:
    """A page for a supplement: conditions, scores, differences, costs, notes and advice."""
    tables = [score_table(comparison), difference_table(comparison), cost_table(comparison), *metric_tables(comparison)]
    head = [f"# {comparison.bundle} on {comparison.data}", "", advise(comparison).sentence, "", *_conditions(comparison), ""]
    return "\n".join([*head, *(table.markdown() for table in tables if table.rows)])


def show(value: float, digits: int | None) -> str:
    """A number, or nothing for NaN; without ``digits`` about three significant ones."""
    if math.isnan(value):
        return ""
    if digits is None:
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"


def show_mean(mean: Interval, digits: int | None) -> str:
    """A mean with its interval, and the number of its cases if some have no value."""
    if not mean.n:
        return ""
    found = show(mean.mean, digits)
    if mean.n > 1:
        found += f" ({show(mean.low, digits)} to {show(mean.high, digits)})"
    return found + (f" [{mean.n} of {mean.n + mean.n_undefined}]" if mean.n_undefined else "")


def show_signed(interval: Interval, digits: int) -> str:
    """A difference with its interval."""
    ends = (interval.mean, interval.low, interval.high)
    mean, low, high = ("" if math.isnan(v) else f"{round(v, digits) + 0.0:+.{digits}f}" for v in ends)  # + 0.0: no minus before zero
    return f"{mean} ({low} to {high})" if low else mean


def _conditions(comparison: Comparison) -> list[str]:
    count = len(comparison.cases)
    lines = [
        f"- {count} {comparison.part} case{'s' * (count != 1)}; means with 95 % bootstrap intervals over cases.",
        "- Size: network input in voxels along an axis. Coverage: share of the ground truth inside the boxes that were looked into.",
    ]
    if any(math.isnan(v) for score in comparison.scores for v in score.values.values()):
        lines.append("- [n of m]: the metric is defined in n of the m cases, and the mean is theirs.")
    if comparison.downscaling:
        ratios = ", ".join(f"{ratio:.1f}x at {size}" for size, ratio in sorted(comparison.downscaling.items()))
        lines.append(f"- Downscaling in the rough stage, median of the cases: {ratios}.")
    if not math.isnan(comparison.object_share):
        lines.append(f"- The objects' boxes fill {comparison.object_share:.0%} of the field of view, median of the cases.")
    if comparison.training_seconds:
        runs = ", ".join(f"{name} {seconds / 60:.0f} min" for name, seconds in comparison.training_seconds.items())
        lines.append(f"- Training: {runs}.")
    return lines + [f"- {note}" for note in comparison.notes]


def _names(size: int, way: str) -> list[str]:
    return [str(size), WAY_TITLES[way]]


def _heading(name: str) -> str:
    return METRICS[name].heading if name in METRICS else name


def _better(name: str) -> str:
    """Whether a higher or a lower value is better."""
    better = METRICS[name].higher_is_better if name in METRICS else None
    return {None: "nearer to 0", True: "higher", False: "lower"}[better]


def _measured(comparison: Comparison, columns: Sequence[Column]) -> list[Column]:
    """The columns with any number in them."""
    return [c for c in columns if any(math.isfinite(score.value(c.name)) for score in comparison.scores)]
