"""Output of a comparison for people: tables, figures, example overlays and a sentence."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from stseg3d.compare.advice import advise
from stseg3d.compare.comparison import WAY_TITLES, Comparison
from stseg3d.compare.csv_rows import difference_rows, score_rows, summary_rows
from stseg3d.compare.examples import Example, Slice, choose_cases, draw_examples
from stseg3d.compare.experiment import kept_boxes
from stseg3d.compare.figure_style import can_draw
from stseg3d.compare.figures import draw_figures
from stseg3d.compare.runs import SLIDING, TWO_STAGE
from stseg3d.compare.text_tables import summary_markdown
from stseg3d.machine.files import atomic_write_text
from stseg3d.machine.tables import csv_text, without_nan
from stseg3d.volumes import CanonicalVolume, Case, load_dataset, open_volume, output_name, read_label

logger = logging.getLogger(__name__)

FIGURES = "figures"
OVERLAY_WAYS = ("rough_only", "two_stage", "sliding_window")


def write_outputs(comparison: Comparison, data: Path, folder: Path) -> list[Path]:
    """Write tables, figures and overlays of a comparison whose runs lie in ``folder``.

    Without matplotlib the tables are written all the same, and a warning says how to get the figures.

    Returns:
        The files.
    """
    files = write_tables(comparison, folder)
    if not can_draw():
        logger.warning("figures need matplotlib, which is not installed: pip install 'stseg3d[report]'; the tables are complete without")
        return files
    (folder / FIGURES).mkdir(exist_ok=True)
    files += draw_figures(comparison, folder / FIGURES)
    size = example_size(comparison)
    if size is not None:
        files += _draw_overlays(comparison, data, folder, size)
    return files


def write_tables(comparison: Comparison, folder: Path) -> list[Path]:
    """Write ``scores.csv``, ``summary.csv``, ``differences.csv`` and ``summary.md`` into an existing folder.

    Returns:
        The files.
    """
    rows = {"scores.csv": score_rows(comparison), "summary.csv": summary_rows(comparison), "differences.csv": difference_rows(comparison)}
    texts = {name: csv_text(without_nan(found)) for name, found in rows.items()} | {"summary.md": summary_markdown(comparison)}
    return [atomic_write_text(folder / name, text) for name, text in texts.items()]


def example_size(comparison: Comparison) -> int | None:
    """The advised size, or the largest with two stages; None without two stages."""
    sizes = [size for size in comparison.sizes if comparison.at("two_stage", size)]
    advised = advise(comparison).size
    return advised if advised in sizes else max(sizes, default=None)


def _draw_overlays(comparison: Comparison, data: Path, folder: Path, size: int) -> list[Path]:
    cases = {case.id: case for case in getattr(load_dataset(data), comparison.part)}
    chosen = choose_cases(comparison, size)
    ways = [way for way in OVERLAY_WAYS if comparison.at(way, size)]
    rows = [_row(comparison, cases[case], folder, size, ways, rank) for rank, case in chosen.items()]
    return draw_examples(rows, folder / FIGURES / "examples")


def _row(comparison: Comparison, case: Case, folder: Path, size: int, ways: Sequence[str], rank: str) -> list[Example]:
    """Panels of one case: the result of each way on the slice with most of the object."""
    assert case.label is not None
    image = open_volume(case.image, channels_last=True)
    lies_flat = image.grid.shape[2] == 1  # a picture, which is seen as it is; a patient is seen from below, the front and the left
    view = CanonicalVolume(image, image.grid.orientation if lies_flat else "LPI")
    truth = view.view(read_label(case.label, image, case.label_values, meaning="foreground").classes)
    cut = Slice.best(truth > 0)
    pixels = cut.pixels(view.read())
    pixels = pixels[..., 0] if pixels.shape[-1] < 3 else pixels[..., :3]
    row = []
    for way in ways:
        run = folder / f"{size:03d}" / (SLIDING if way == "sliding_window" else TWO_STAGE)
        prediction = view.view(open_volume(run / "predictions" / way / output_name(case.id)).read()[0])
        boxes = kept_boxes(run, way, case.id)
        dice = comparison.at(way, size)[case.id].value("dice")
        row.append(
            Example(
                title=f"{rank} case: {WAY_TITLES[way]}\nDice {dice:.3f}",
                image=pixels,
                label=cut.pixels(truth),
                prediction=cut.pixels(prediction),
                rectangles=cut.rectangles(view.view_box(b) for b in boxes),
                pixel_mm=None if lies_flat else cut.pixel_mm(view.grid.spacing_mm),
                way=way,
            )
        )
    return row
