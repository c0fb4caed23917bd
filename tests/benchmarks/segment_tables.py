"""The figures of ``bench_segment.py`` as Markdown and as a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from segment_ways import FLOOR_ROW, OWN, ROWS

HEAD = ("way", "runs", "wall s", "CPU s", "peak MiB", "wall, times segment", "memory, times segment", "seconds of stages")
# Okabe and Ito's colours, which the colour-blind tell apart; markers and lines tell the rest. From the top of the plot to its end.
STYLES = {
    "MONAI, overlap 0.5": ("#d55e00", "s"),
    "MONAI, overlap 0.25": ("#e69f00", "D"),
    "inferer on a tensor": ("#cc79a7", "^"),
    "monai.bundle run": ("#009e73", "v"),
    OWN: ("#0072b2", "o"),
    FLOOR_ROW: ("#000000", "x"),
}


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median, and the range where there is one."""
    text = f"{median(values):.{digits}f}"
    return text if len(values) < 2 else f"{text} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def ratios(cell: Mapping[str, Any], name: str, key: str) -> list[float]:
    """Of each round, to ``stseg3d segment`` of the same round."""
    return [run[key] / own[key] for run, own in zip(cell["runs"][name], cell["runs"].get(OWN, []), strict=False)]


def stages(runs: Sequence[Mapping[str, Any]]) -> str:
    """Median seconds of each stage."""
    told = [run["stages_s"] for run in runs if "stages_s" in run]
    return ", ".join(f"{name} {median(one.get(name, 0.0) for one in told):.2f}" for name in (told[0] if told else ()))


def table(cell: Mapping[str, Any]) -> str:
    """One size's table, and what of it is neither network nor bare reading and writing."""
    boxes = [run["boxes"] for run in cell["runs"].get(OWN, [])]
    told = f", {boxes[-1]} boxes" if boxes else ""
    rows = [
        f"512 x 512 x {cell['slices']} int16 {cell['suffix']}{told}; medians (least to most)",
        "",
        f"| {' | '.join(HEAD)} |",
        f"|{'---|' * len(HEAD)}",
    ]
    for name in (name for name in ROWS if cell["runs"].get(name)):
        runs = cell["runs"][name]
        columns = [spread([run[key] for run in runs], digits) for key, digits in (("wall_s", 1), ("cpu_s", 1), ("peak_mib", 0))]
        columns += [spread(found, 2) if (found := ratios(cell, name, key)) else "" for key in ("wall_s", "peak_mib")]
        rows.append(f"| {name} | {len(runs)} | {' | '.join(columns)} | {stages(runs)} |")
    rows += [f"\n{name}: left out, {why}" for name, why in cell["skipped"].items()]
    return "\n".join([*rows, *(["", inside(cell["inside"])] if cell["inside"] else [])])


def inside(found: Sequence[Mapping[str, Any]]) -> str:
    """Everything but the networks against bare reading and writing."""
    floor_s = [min(one["read_s"].values()) + min(one["write_s"].values()) for one in found]
    networks_s = [sum(one["networks_s"].values()) for one in found]
    total_s = [one["total_s"] for one in found]
    rest_s = [total - own for total, own in zip(total_s, networks_s, strict=True)]
    over = [rest / floor for rest, floor in zip(rest_s, floor_s, strict=True)]
    columns = {"case": total_s, "networks": networks_s, "the rest": rest_s, "bare read + write": floor_s, "rest / bare": over}
    cells = " | ".join(spread(values, 2) for values in columns.values())
    libraries = ", ".join(
        f"{what} {name} {median(one[f'{what}_s'][name] for one in found):.2f}" for what in ("read", "write") for name in found[0]["read_s"]
    )
    head = " | ".join(name if name.startswith("rest") else f"{name}, s" for name in columns)
    rows = [f"| imports not counted | {head} | bare, s | stages, s |", f"|{'---|' * (len(columns) + 3)}"]
    return "\n".join([*rows, f"| {len(found)} runs | {cells} | {libraries} | {stages(found)} |"])


def markdown(suite: Mapping[str, Any]) -> str:
    """All tables, and the machine."""
    about = ", ".join(f"{key} {value}" for key, value in suite["about"].items() if key not in ("processor", "weights"))
    return "\n\n".join([f"{suite['about']['processor']}, {about}", *(table(cell) for cell in suite["sizes"] if cell["runs"])]) + "\n"


def style(name: str, suffix: str) -> dict[str, Any]:
    """How a line is drawn: dashed and hollow for files without compression."""
    colour, marker = STYLES[name]
    whole = {"color": colour, "marker": marker, "markersize": 7}
    return whole if suffix == ".nii.gz" else whole | {"linestyle": "--", "markerfacecolor": "white"}


def plot(cells: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Time and memory of each way against the number of slices; of ``.nii`` only what is ours to compare."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    mpl.use("Agg")
    figure, axes = plt.subplots(1, 2, figsize=(9, 5), layout="constrained")
    for suffix, name in product((".nii.gz", ".nii"), STYLES):
        own = [cell for cell in cells if cell["suffix"] == suffix and cell["runs"].get(name)]
        both = name in (OWN, FLOOR_ROW)
        if not own or (suffix == ".nii" and not both):
            continue
        for axis, key in zip(axes, ("wall_s", "peak_mib"), strict=True):
            found = [sorted(run[key] for run in cell["runs"][name]) for cell in own]
            middle = [median(values) for values in found]
            bars = [[m - v[0] for m, v in zip(middle, found, strict=True)], [v[-1] - m for m, v in zip(middle, found, strict=True)]]
            label = f"{name}, {suffix}" if both else name
            axis.errorbar([cell["slices"] for cell in own], middle, bars, label=label, capsize=3, linewidth=1.8, **style(name, suffix))
    slices = sorted({cell["slices"] for cell in cells})
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    for axis, label in zip(axes, ("seconds, imports included", "peak memory [MiB]"), strict=True):
        axis.set(xscale="log", yscale="log", xticks=slices)
        axis.set_xlabel("slices of 512 x 512", fontsize=12)
        axis.set_ylabel(label, fontsize=12)
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(plain)
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_formatter(plain)
        axis.tick_params(labelsize=11)
        axis.grid(visible=True, color="0.9")
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=11)
    figure.savefig(path, dpi=150)
    plt.close(figure)
