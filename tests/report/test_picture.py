from __future__ import annotations

import numpy as np
import pytest
import SimpleITK
from scipy.ndimage import find_objects, label

from stseg3d.geometry import Box, Grid
from stseg3d.report import picture_of_case
from stseg3d.report.drawing import LETTERS, ROWS, contour, draw_frame, resize, write_text
from stseg3d.report.panel import BOX_COLOUR, LABEL_COLOURS, TRUTH_COLOUR
from stseg3d.report.views import best_slices, radiographs, surface
from stseg3d.volumes import ArrayVolume, CanonicalVolume
from tests.phantoms import many_objects, thin_curved_tube, touching_objects

SHAPE = (40, 30, 36)
AFFINE = np.array([[2.0, 0, 0, 10], [0, 2, 0, -5], [0, 0, 3, 7], [0, 0, 0, 1]])


@pytest.fixture
def small(monkeypatch):
    """Pictures of a quarter of their height, where their size does not matter."""
    monkeypatch.setattr("stseg3d.report.picture.PANEL_HEIGHT", 190)


def tube():
    image, mask = thin_curved_tube(SHAPE, radius=3)
    box = Box.from_slices(find_objects(mask.astype(np.uint8))[0])
    return ArrayVolume(image[None], Grid(SHAPE, AFFINE), "a/tube.nii.gz"), mask.astype(np.uint8), box


def pixels(path):
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


def count(picture, colour, tolerance=12):
    return int((np.abs(picture.astype(int) - np.rint(255 * np.array(colour))).max(axis=-1) <= tolerance).sum())


@pytest.mark.slow
def test_five_panels_with_contour_truth_and_boxes(tmp_path):
    volume, mask, box = tube()
    path = picture_of_case(volume, mask, [box], tmp_path / "case.png", truth=np.roll(mask, 3, axis=0))
    picture = pixels(path)
    assert path == tmp_path / "case.png"
    assert [p.name for p in tmp_path.iterdir()] == ["case.png"]
    assert picture.dtype == np.uint8
    assert 760 < picture.shape[0] < 900
    assert 2000 < picture.shape[1] < 4200
    assert all(count(picture, colour) > 500 for colour in (LABEL_COLOURS[0], TRUTH_COLOUR, BOX_COLOUR))


@pytest.mark.usefixtures("small")
def test_nothing_found_and_no_boxes(tmp_path):
    volume, mask, _ = tube()
    picture = pixels(picture_of_case(volume, np.zeros_like(mask), [], tmp_path / "empty.png"))
    assert all(count(picture, colour) == 0 for colour in (LABEL_COLOURS[0], TRUTH_COLOUR, BOX_COLOUR))
    assert picture.max() > 200  # the image itself is there


@pytest.mark.slow
def test_each_label_has_its_colour(tmp_path):
    volume, mask, _ = tube()
    labels = mask * (1 + (np.arange(SHAPE[2]) >= SHAPE[2] // 2)).astype(np.uint16)
    picture = pixels(picture_of_case(volume, labels, [], tmp_path / "two.png"))
    assert all(count(picture, colour, 25) > 300 for colour in LABEL_COLOURS[:2])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("axcodes", ["LPS", "SAL", "AIR"])
def test_same_picture_however_the_file_runs(tmp_path, axcodes):
    volume, mask, box = tube()
    other = CanonicalVolume(volume, axcodes)
    ends = np.array([other.grid.edges(volume.grid.world_mm([c]))[0] for c in (box.start, box.stop)])
    turned = Box(tuple(np.rint(ends.min(axis=0)).astype(int)), tuple(np.rint(ends.max(axis=0)).astype(int)))
    stored = ArrayVolume(other.read(), other.grid, volume.name)
    first = pixels(picture_of_case(volume, mask, [box], tmp_path / "first.png"))
    second = pixels(picture_of_case(stored, other.view(mask), [turned], tmp_path / "second.png"))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_depth_one_is_one_panel_the_way_up_it_is_stored(tmp_path, channels):
    image = np.full((channels, 60, 40, 1), 10, dtype=np.uint8)
    image[:, :30, :10] = 250  # upper left
    mask = np.zeros((60, 40, 1), dtype=np.uint8)
    mask[40:55, 20:35] = 1
    volume = ArrayVolume(image, Grid((60, 40, 1)), "cells.png")
    picture = pixels(picture_of_case(volume, mask, [Box((38, 18, 0), (57, 37, 1))], tmp_path / "flat.png"))
    assert picture.shape[1] < 1300
    assert picture[100, 100].min() > 200  # below the title
    assert picture[100, -100].max() < 40
    assert count(picture, LABEL_COLOURS[0]) > 500


def test_a_slice_of_a_patient_is_one_panel_seen_from_below(tmp_path):
    image = np.zeros((1, 50, 50, 1), dtype=np.float32)
    image[0, 25:, 25:] = 1  # right and in front: upper left on the screen
    volume = ArrayVolume(image, Grid((50, 50, 1), AFFINE))
    picture = pixels(picture_of_case(volume, np.zeros((50, 50, 1), np.uint8), [], tmp_path / "slice.png"))
    assert picture[120, 120].min() > 200
    assert picture[-120, -120].max() < 40


@pytest.mark.usefixtures("small")
def test_image_of_one_value_and_image_with_nan(tmp_path):
    grid = Grid((12, 10, 8))
    labels = np.zeros(grid.shape, dtype=np.uint8)
    labels[5, 5, 5] = 1
    for n, image in enumerate((np.zeros((1, *grid.shape), np.int16), np.full((1, *grid.shape), np.nan, np.float32))):
        assert picture_of_case(ArrayVolume(image, grid), labels, [Box((5, 5, 5), (6, 6, 6))], tmp_path / f"{n}.png").exists()


@pytest.mark.usefixtures("small")
def test_many_boxes(tmp_path):
    image, mask = many_objects((40, 40, 40), 200)
    boxes = [Box.from_slices(s) for s in find_objects(label(mask)[0])]
    assert picture_of_case(ArrayVolume(image[None], Grid(image.shape)), mask.astype(np.uint8), boxes, tmp_path / "many.png").exists()


def test_what_is_not_on_the_grid_is_refused(tmp_path):
    volume, mask, box = tube()
    with pytest.raises(ValueError, match="labels must be of the volume's shape"):
        picture_of_case(volume, mask[1:], [box], tmp_path / "x.png")
    with pytest.raises(ValueError, match="truth must be of the volume's shape"):
        picture_of_case(volume, mask, [box], tmp_path / "x.png", truth=mask[1:])
    with pytest.raises(ValueError, match="boxes must be inside"):
        picture_of_case(volume, mask, [box.shift((100, 0, 0))], tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


def test_radiographs_are_mean_brightness_slab_by_slab(monkeypatch):
    volume, _, _ = tube()
    monkeypatch.setattr("stseg3d.report.views.READ_VOXELS", 3 * 40 * 30)
    front, side = radiographs(volume, lambda image: image.astype(np.float32))
    np.testing.assert_allclose(front, volume.array[0].mean(axis=1), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(side, volume.array[0].mean(axis=0), rtol=1e-4, atol=1e-3)


def test_of_huge_images_only_some_slices_are_read(monkeypatch):
    volume, _, _ = tube()
    monkeypatch.setattr("stseg3d.report.views.PROJECTED_VOXELS", volume.grid.box.voxels // 4)
    front, _ = radiographs(volume, lambda image: image.astype(np.float32))
    assert front.shape == (40, 9)


def test_slices_with_most_of_the_object():
    _, mask = touching_objects((40, 24, 24))
    i, j, k = best_slices(mask, [])
    assert mask[i].sum() == mask.sum(axis=(1, 2)).max()
    assert (mask[:, j].sum(), mask[:, :, k].sum()) == (mask.sum(axis=(0, 2)).max(), mask.sum(axis=(0, 1)).max())
    assert best_slices(np.zeros((40, 24, 24)), [Box((0, 0, 0), (10, 10, 10))]) == (5, 5, 5)
    assert best_slices(np.zeros((40, 24, 1)), []) == (20, 12, 0)


def test_surface_shows_the_nearer_label():
    labels = np.zeros((20, 20, 20), dtype=np.uint8)
    labels[4:16, 2:8, 4:16], labels[4:16, 12:18, 4:16] = 1, 2
    low, high = (surface(labels, 1, (1, 1, 1), from_low=flag) for flag in (True, False))
    assert (low.label[10, 10], high.label[10, 10]) == (1, 2)
    assert low.cover[10, 10] > 0.9
    assert low.cover[0, 0] < 0.1
    assert surface(np.zeros_like(labels), 1, (1, 1, 1), from_low=True).cover.max() == 0


def test_letters_are_complete_and_written_within_the_picture():
    assert len(ROWS) == 7 * len(LETTERS)
    picture = np.zeros((30, 60, 3), dtype=np.float32)
    assert write_text(picture, "L2é", (4, 4), (1, 1, 1)) == 36
    assert picture.max() > 0.9
    write_text(picture, "long text that leaves the picture", (-3, -5), (1, 1, 1))
    assert write_text(picture, "", (0, 0), (1, 1, 1)) == 0


def test_frame_and_contour_have_the_width_asked_for():
    square = np.zeros((40, 40, 3), dtype=np.float32)
    draw_frame(square, (10, 10), (30, 25), (1, 1, 1), strength=0.5)
    assert np.count_nonzero(square[..., 0] == 0.5) == np.count_nonzero(square[..., 0]) == 20 * 15 - 16 * 11
    assert not square[12:28, 12:23].any()
    draw_frame(square, (5, 5), (6, 6), (1, 1, 1))  # thinner than its line
    draw_frame(square, (38, 38), (40, 40), (1, 1, 1))
    soft = resize((np.indices((10, 10))[0] > 4).astype(np.float32), (80, 80))
    assert contour(soft, 3)[:, 40].sum() == pytest.approx(3, abs=0.5)


def test_the_scale_of_micrometres_fits_and_leaves_room_for_the_name(tmp_path):
    image = np.zeros((1, 60, 40, 1), np.uint8)
    image[:, 20:30, 10:30] = 200
    written = []
    for mm in (1, 0.0005):
        volume = ArrayVolume(image, Grid((60, 40, 1), spacing_mm=(mm, mm, 1)), "cells.png")
        written.append(pixels(picture_of_case(volume, image[0], [], tmp_path / "a.png")))
    assert written[0].shape == written[1].shape
    np.testing.assert_array_equal(written[0][-40:, -130:], written[1][-40:, -130:])  # the name, in the corner
    assert (written[0][-40:, -130:].max(axis=-1) > 100).any()
