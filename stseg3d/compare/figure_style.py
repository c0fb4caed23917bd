"""Style of the figures: fonts, colours, axes, legend, files. Needs matplotlib, from the extra ``report``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stseg3d.compare.comparison import WAY_TITLES
from stseg3d.machine.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

DPI = 200
ONE_LINE_WIDTH = 7.0  # inches, where all ways stand in one line of a legend
FORMATS = ("png", "pdf")
# Okabe and Ito, "Color Universal Design" (2008); of their eight, those that are told apart on white and on grey images as well.
WAY_COLOURS = {"rough_only": "#D55E00", "two_stage": "#0072B2", "sliding_window": "#009E73", "true_boxes": "#CC79A7"}
WAY_MARKERS = {"rough_only": "s", "two_stage": "o", "sliding_window": "^", "true_boxes": "D"}
WAY_LINES: dict[str, Any] = {"rough_only": "-", "two_stage": "-", "sliding_window": "-", "true_boxes": (0, (4, 2))}
SIZE_LABEL = "Network input [voxels along an axis]"
INK, FAINT = "#222222", "#DDDDDD"
SETTINGS: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10.5,
    "legend.fontsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # letters stay letters, as journals ask
}


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


@contextmanager
def styled() -> Iterator[None]:
    """Context with the style of the figures; matplotlib's settings are restored afterwards."""
    import matplotlib as mpl

    with mpl.rc_context(SETTINGS):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches; no window, no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """The figure in files, one for each of :data:`FORMATS`; ``path`` has no suffix. The same figure gives the same files."""
    paths = [path.with_name(f"{path.name}.{suffix}") for suffix in FORMATS]
    with styled():
        for one in paths:
            with atomic_write(one) as temporary:
                figure.savefig(temporary, dpi=DPI, metadata={"CreationDate": None} if one.suffix == ".pdf" else None)
    return paths


def add_way_legend(figure: Figure, ways: Iterable[str], *, lines: bool = True) -> None:
    """The ways below the figure, where they cover nothing."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=WAY_COLOURS[w], marker=WAY_MARKERS[w], linestyle=WAY_LINES[w] if lines else "none", label=WAY_TITLES[w])
        for w in ways
    ]
    columns = len(handles) if figure.get_figwidth() >= ONE_LINE_WIDTH else 2
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=2.2, columnspacing=1.6)


def set_size_axis(axes: Axes, sizes: list[int]) -> None:
    """A horizontal axis of sizes, in powers of two, a mark at each."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, map(str, sizes))
    axes.set_xticks([], minor=True)
    axes.set(xlim=(sizes[0] / 1.25, sizes[-1] * 1.25), xlabel=SIZE_LABEL)


def set_plain_ticks(axis: Axis) -> None:
    """Numbers as people write them along a logarithmic axis: 0.5, 20, 3000."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.axes.autoscale_view()
    low, high = axis.get_view_interval()
    few = low > 0 and high / low < 300
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
