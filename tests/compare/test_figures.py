from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
import SimpleITK
from matplotlib.colors import to_hex

from stseg3d.compare import examples, figure_style, figures
from stseg3d.compare.comparison import WAYS, Comparison
from stseg3d.compare.examples import Example, Slice, choose_cases, draw_examples, outline
from stseg3d.compare.figure_style import WAY_COLOURS, styled
from stseg3d.compare.figures import draw_figures, frontier, spread
from stseg3d.geometry import Box, Grid
from stseg3d.volumes import ArrayVolume, CanonicalVolume
from tests.compare.made_up import all_ways, made_up, score

pytestmark = pytest.mark.slow  # thorough; the nightly run has them


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """What is drawn does not depend on how finely, nor in how many files."""
    monkeypatch.setattr(figure_style, "DPI", 72)
    monkeypatch.setattr(figure_style, "FORMATS", ("png",))


def pixels(path):
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


def draw(how, comparison):
    with styled():
        figure = how(comparison)
        figure.canvas.draw()
    return figure


COMPARISONS = {
    "all ways": all_ways((32, 48, 64), cases=6),
    "one size": all_ways((64,), cases=6),
    "many cases": all_ways((32, 64), cases=30),
    "one case": all_ways((32, 64), cases=1),
    "two ways": made_up({(way, size): 0.8 for way in WAYS[:2] for size in (32, 64)}),
    "one way": made_up({("two_stage", 32): 0.8}),
    "sizes that differ": made_up({("rough_only", 128): 0.8, ("two_stage", 32): 0.8}),
    "all the same": made_up({("rough_only", 32): 0.8}, noise=0, cases=30),
}


@pytest.mark.parametrize("comparison", COMPARISONS.values(), ids=COMPARISONS)
def test_every_figure_is_written_and_holds_the_colour_of_each_way(tmp_path, comparison):
    paths = draw_figures(comparison, tmp_path)
    assert [p.name for p in paths] == ["scores.png", "cases.png", "costs.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in paths)
    for path in paths:
        codes = pixels(path)[..., :3].astype(np.int64) @ [65536, 256, 1]
        seen = {f"#{code:06X}" for code in np.unique(codes)}
        assert {WAY_COLOURS[way] for way in comparison.ways} <= seen


@pytest.mark.slow
def test_files_are_reproducible_and_settings_of_matplotlib_as_before(tmp_path, monkeypatch):
    monkeypatch.undo()
    before = dict(mpl.rcParams)
    comparison = all_ways((32,), cases=3)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = (draw_figures(comparison, tmp_path / name) for name in "ab")
    assert [p.suffix for p in first] == [".png", ".pdf"] * 3
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("how", [figures.draw_scores, figures.draw_cases, figures.draw_costs])
def test_every_axis_has_a_label_and_nothing_is_cut_off(how):
    figure = draw(how, all_ways((32, 48, 64), cases=6))
    width, height = figure.bbox.width, figure.bbox.height
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in figure.axes)
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert 0 <= box.x0 < box.x1 <= width
        assert 0 <= box.y0 < box.y1 <= height
        assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)


def test_a_narrow_figure_keeps_its_legend_inside():
    figure = draw(figures.draw_cases, all_ways((64,), cases=6))
    box = figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width


def test_sizes_are_marked_on_an_axis_of_powers_of_two():
    axes = draw(figures.draw_scores, all_ways((32, 48, 96), cases=3)).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["32", "48", "96"]
    places = axes.transData.transform([(s, 0.8) for s in (24, 48, 96)])[:, 0]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1])


def test_intervals_are_those_of_the_cases():
    comparison = made_up({("two_stage", 32): 0.8, ("two_stage", 64): 0.9}, cases=8)
    axes = draw(figures.draw_scores, comparison).axes[0]
    bars = [path.vertices[:, 1] for path in axes.collections[0].get_paths()]
    for (low, high), size in zip(bars, (32, 64), strict=True):
        interval = figures.mean_of(comparison, "dice", ("two_stage", size))
        assert (low, high) == pytest.approx((interval.low, interval.high))


def test_few_cases_are_all_points_and_many_have_a_violin():
    few, many = (draw(figures.draw_cases, made_up({("two_stage", 32): 0.8}, cases=n)).axes[0] for n in (6, 30))
    assert sorted(len(c.get_offsets()) for c in few.collections if len(c.get_offsets()) > 1) == [6]
    assert 30 in [len(c.get_offsets()) for c in many.collections]
    assert len(many.collections) == len(few.collections) + 1


def test_points_side_by_side_keep_their_heights_apart():
    assert spread(np.array([0.5, 0.5, 0.5]), 0.01).round(3).tolist() == [-0.2, 0, 0.2]
    crowd = spread(np.full(50, 0.5), 0.01)
    assert len(np.unique(crowd)) == 50
    assert np.abs(crowd).max() <= 0.4
    assert spread(np.array([]), 0.01).size == 0


def test_the_frontier_is_what_no_other_beats_for_less():
    rng = np.random.default_rng(0)
    points = [tuple(p) for p in rng.random((40, 2)).tolist()]
    twin = sorted(p for p in points if not any(q[0] <= p[0] and q[1] >= p[1] and q != p for q in points))
    assert frontier(points) == twin


def test_colours_of_ways_differ_from_those_of_truth_and_boxes():
    colours = [to_hex(c) for c in (*WAY_COLOURS.values(), examples.TRUTH_COLOUR, examples.BOX_COLOUR)]
    assert len(set(colours)) == len(WAYS) + 2


# --- overlays ----------------------------------------------------------------


def disc(shape, centre, radius):
    grid = np.indices(shape)
    return sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2


def example(**changes):
    label = disc((60, 80), (30, 40), 12)
    image = 100 * label + np.random.default_rng(0).normal(0, 5, label.shape)
    given = {"title": "worst: two stages, Dice 0.912", "image": image, "label": label, "prediction": np.roll(label, 3, axis=1)}
    return Example(**given | {"rectangles": [(15, 25, 45, 60)], "pixel_mm": (2.0, 1.0)} | changes)


def has(path, colour, least=30):
    wanted = np.array([int(colour[n : n + 2], 16) for n in (1, 3, 5)])
    return (np.abs(pixels(path)[..., :3].astype(int) - wanted).max(axis=-1) <= 3).sum() >= least


def test_truth_prediction_and_boxes_are_drawn_in_their_colours(tmp_path):
    [path] = draw_examples([[example(way=way) for way in WAYS[:3]]], tmp_path / "examples")
    assert all(has(path, WAY_COLOURS[way]) for way in WAYS[:3])
    assert has(path, examples.BOX_COLOUR)
    assert not has(path, WAY_COLOURS["true_boxes"])


@pytest.mark.parametrize(
    "changes",
    [
        {"prediction": np.zeros((60, 80), bool)},
        {"label": np.zeros((60, 80), bool), "prediction": np.zeros((60, 80), bool), "rectangles": []},
        {"image": np.full((60, 80), 7.0)},
        {"image": np.full((60, 80), np.nan)},
        {"image": np.random.default_rng(0).integers(0, 255, (60, 80, 4), dtype=np.uint8), "pixel_mm": None},
        {"pixel_mm": (9.0, 0.5)},
        {"rectangles": [(-5.0, -5.0, 200.0, 200.0)]},
    ],
    ids=["nothing found", "nothing there", "one value", "no value", "colours", "thick slices", "box beyond the image"],
)
def test_odd_cases_are_drawn(tmp_path, changes):
    [path] = draw_examples([[example(**changes)]], tmp_path / "examples")
    assert pixels(path).std() > 0


def test_rows_may_differ_in_shape_and_length(tmp_path):
    small = {"image": np.zeros((20, 90)), "label": np.ones((20, 90)), "prediction": np.ones((20, 90)), "rectangles": []}
    [path] = draw_examples([[example(), example()], [example(**small)]], tmp_path / "examples")
    assert path.is_file()


def test_pixels_keep_their_aspect():
    row = [example(pixel_mm=(3.0, 1.0))]
    with styled():
        figure = examples._compose([row])
        figure.canvas.draw()
    box, (top, left, bottom, right) = figure.axes[0].get_window_extent(), examples._view(row)
    assert box.height / box.width == pytest.approx(3 * (bottom - top) / (right - left), rel=0.02)


def test_the_scale_bar_is_as_long_as_it_says():
    with styled():
        axes = examples._compose([[example(pixel_mm=(2.0, 0.5))]]).axes[0]
    [bar] = axes.lines
    [text] = [t.get_text() for t in axes.texts]
    assert text.endswith(" mm")
    assert np.ptp(bar.get_xdata()) * 0.5 == pytest.approx(float(text.split()[0]))


def test_everything_that_is_marked_is_seen():
    far = example(prediction=disc((60, 80), (5, 75), 3))
    top, left, bottom, right = examples._view([example(), far])
    assert top <= 2
    assert left <= 25
    assert bottom >= 45
    assert right >= 79


@pytest.mark.parametrize("shape", [(1, 1), (3, 4), (6, 5)])
def test_the_outline_has_an_edge_wherever_neighbours_differ(shape):
    labels = np.random.default_rng(1).integers(0, 3, shape)
    padded = np.pad(labels, 1)
    twin = sum(padded[r, c] != padded[r + 1, c] for r in range(shape[0] + 1) for c in range(1, shape[1] + 1))
    twin += sum(padded[r, c] != padded[r, c + 1] for r in range(1, shape[0] + 1) for c in range(shape[1] + 1))
    lines = outline(labels)
    assert len(lines) == twin
    assert (np.abs(np.diff(lines, axis=1)).sum(axis=-1) == 1).all()


def test_worst_median_and_best_are_chosen_each_once():
    def of(dice):
        return Comparison("b", "d", scores=[score(name, "two_stage", 32, d) for name, d in dice.items()])

    assert choose_cases(of({"a": 0.9, "b": 0.1, "c": 0.5, "d": float("nan")}), 32) == {"worst": "b", "median": "c", "best": "a"}
    assert choose_cases(of({"a": 0.9, "b": 0.1}), 32) == {"worst": "b", "best": "a"}
    assert choose_cases(of({"a": 0.9}), 32) == {"worst": "a"}
    assert choose_cases(of({}), 32) == {}


# --- slices ------------------------------------------------------------------


@pytest.mark.parametrize("axis", range(3))
def test_the_fullest_slice_of_all_axes_is_found(axis):
    mask = np.zeros((12, 13, 14), np.uint8)
    np.moveaxis(mask, axis, 0)[5, 2:9, 2:9] = 1
    assert Slice.best(mask) == Slice(axis, 5)


def test_flat_and_empty_volumes_have_a_slice():
    assert Slice.best(np.ones((8, 9, 1))) == Slice(2, 0)
    assert Slice.best(np.zeros((8, 9, 1))) == Slice(2, 0)
    assert Slice.best(np.zeros((8, 5, 9))) == Slice(1, 2)


@pytest.mark.parametrize("axis", range(3))
def test_rectangles_lie_where_the_voxels_of_their_boxes_are_seen(axis):
    shape, box = (7, 8, 9), Box((1, 2, 3), (4, 4, 8))
    mask = np.zeros(shape, bool)
    mask[box.slices] = True
    cut = Slice(axis, 3)
    [(top, left, bottom, right)] = cut.rectangles([box, Box((6, 7, 8), (7, 8, 9))])
    seen = cut.pixels(mask)
    twin = np.zeros_like(seen)
    twin[int(top) : int(bottom), int(left) : int(right)] = True
    assert np.array_equal(seen, twin)


def test_patients_are_seen_from_the_front_and_pictures_as_they_are():
    volume = np.arange(24).reshape(2, 3, 4)
    patient = CanonicalVolume(ArrayVolume(volume[None], Grid(volume.shape), "patient"), "LPI").read()[0]
    assert Slice(1, 2).pixels(patient)[0, -1] == volume[0, 0, -1]  # upper right: the patient's left hand side is, its head above
    assert Slice(2, 0).pixels(volume)[2, 1] == volume[1, 2, 0]
    assert Slice(2, 0).pixels(np.stack([volume] * 3)).shape == (3, 2, 3)
    assert Slice(0, 0).pixel_mm((1, 2, 3)) == (3, 2)
