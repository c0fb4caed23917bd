from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import binary_dilation, find_objects, label

from stseg3d.geometry import Grid
from stseg3d.synthesis.phantoms import ct_phantom, write_dataset
from stseg3d.synthesis.phantoms.dataset import main
from stseg3d.synthesis.phantoms.patient import Dissection, draw_patient
from stseg3d.synthesis.phantoms.shapes import Painter
from stseg3d.synthesis.phantoms.vessels import paint_aorta

SMALL = (48, 48, 40)
SEEDS = range(6)


@cache
def phantom(seed):
    return ct_phantom(SMALL, seed=seed)


def no_bend(z):
    return np.zeros_like(z), np.zeros_like(z)


def painter(shape=(24, 24, 24), spacing_mm=(1.0, 1.0, 1.0)):
    return Painter(Grid(shape, spacing_mm=spacing_mm), (1, 1, 1), no_bend)


def components(mask):
    return label(mask, np.ones((3, 3, 3)))[1]


@pytest.mark.slow
def test_same_seed_same_phantom():
    first, second = phantom(3), ct_phantom(SMALL, seed=3)
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])
    assert first[2] == second[2]
    assert not np.array_equal(first[0], phantom(4)[0])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.slow
def test_aorta_is_one_piece_inside_the_body(seed):
    image, aorta, grid = phantom(seed)
    assert (image.dtype, aorta.dtype, image.shape, aorta.shape) == (np.int16, np.uint8, SMALL, SMALL)
    assert grid.orientation == "RAS"
    assert set(np.unique(aorta)) == {0, 1}
    assert components(aorta) == 1
    assert 20 < aorta.sum() * grid.voxel_mm3 / 1000 < 900  # ml
    assert 0 < np.median(image[aorta > 0]) < 450
    assert image.min() == -1024  # air around the body
    assert image.max() > 250  # bone
    assert image[:, :, SMALL[2] // 2].max() <= 3071


def test_one_box_of_a_whole_aorta_is_mostly_not_aorta():
    for seed in SEEDS:
        _, aorta, _ = phantom(seed)
        assert aorta.sum() < 0.25 * aorta[find_objects(aorta)[0]].size


def test_contrast_differs_from_none_to_strong():
    medians = [np.median(image[aorta > 0]) for image, aorta, _ in map(phantom, SEEDS)]
    assert min(medians) < 60
    assert max(medians) > 250


@pytest.mark.slow
def test_same_body_at_any_resolution():
    spacing = np.array([8.0, 8.0, 9.0])
    coarse = ct_phantom((42, 42, 50), spacing_mm=spacing, seed=5)
    fine = ct_phantom((84, 84, 100), spacing_mm=spacing / 2, seed=5)
    millilitres = [aorta.sum() * grid.voxel_mm3 / 1000 for _, aorta, grid in (coarse, fine)]
    assert millilitres[0] == pytest.approx(millilitres[1], rel=0.05)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("phantoms") / "new" / "phantoms", 1, 1, seed=1, shape=(32, 32, 24))


@pytest.mark.slow
def test_data_set_has_the_decathlon_layout(written):
    path, content = written, json.loads(written.read_text())
    assert [len(content[part]) for part in ("training", "validation")] == [1, 1]
    assert content["labels"] == {"0": "background", "1": "aorta"}
    for entry in content["training"] + content["validation"]:
        image, aorta = (nib.load(path.parent / entry[kind]) for kind in ("image", "label"))
        assert image.shape == aorta.shape == (32, 32, 24)
        assert np.array_equal(image.affine, aorta.affine)
        assert (image.get_data_dtype(), aorta.get_data_dtype()) == (np.int16, np.uint8)
        assert np.asarray(aorta.dataobj).any()


@pytest.mark.slow
def test_case_of_a_data_set_does_not_depend_on_how_many_there_are(written, tmp_path):
    main([str(tmp_path), "--training", "1", "--validation", "0", "--shape", "32", "32", "24", "--seed", "1"])
    first, second = (nib.load(folder / "imagesTr" / "phantom_00000.nii.gz").get_fdata() for folder in (written.parent, tmp_path))
    assert np.array_equal(first, second)


def test_ellipsoid_has_its_volume():
    stroke = painter().ellipsoid((12, 12, 12), (8, 6, 5))
    assert stroke.occupancy.sum() == pytest.approx(4 / 3 * np.pi * 8 * 6 * 5, rel=0.03)


def test_turned_ellipsoid_has_its_volume():
    c, s = np.cos(0.5), np.sin(0.5)
    stroke = painter().ellipsoid((12, 12, 12), (8, 6, 5), axes=np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]))
    assert stroke.occupancy.sum() == pytest.approx(4 / 3 * np.pi * 8 * 6 * 5, rel=0.03)


def test_tube_equals_the_distance_to_every_segment():
    points, radii = np.array([[4, 4, 3], [12, 15, 8], [14, 12, 21]], dtype=float), np.array([2.0, 4.0, 3.0])
    canvas = painter()
    stroke = canvas.tube(points, radii)
    voxels = np.moveaxis(np.indices((24, 24, 24)), 0, -1).astype(float)
    distance = np.full((24, 24, 24), np.inf)
    for a, b, ra, rb in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
        along = np.clip((voxels - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
        distance = np.minimum(distance, np.linalg.norm(voxels - a - along[..., None] * (b - a), axis=-1) - (ra + along * (rb - ra)))
    expected = np.clip(0.5 - distance / 1.5, 0, 1)
    np.testing.assert_allclose(stroke.occupancy, expected[stroke.region.slices], atol=1e-4)
    assert np.delete(expected.ravel(), np.arange(24**3).reshape((24,) * 3)[stroke.region.slices].ravel()).max() == 0


def test_shape_outside_the_image_paints_nothing():
    canvas = painter()
    assert canvas.ellipsoid((200, 0, 0), (5, 5, 5)) is None
    assert canvas.tube([(0, 0, 100), (0, 0, 120)], 3) is None
    assert canvas.paint(None, 100) is None
    assert (canvas.image == -1024).all()


def test_a_dissection_parts_the_lumen_and_leaves_the_label_as_it_is():
    grid = Grid((96, 96, 96), np.diag([3.0, 3.0, 4.0, 1.0]) @ np.array([[1, 0, 0, -48], [0, 1, 0, -48], [0, 0, 1, -60], [0, 0, 0, 1.0]]))
    healthy = replace(draw_patient(np.random.default_rng(11)), dissection=None)
    torn = Dissection(start=0.1, stop=0.95, angle=0.5, turns=0.4, shift=0.0, width_mm=2.0, hu=healthy.hu["aorta"] - 150)
    images, labels = [], []
    for dissection in (None, torn):
        body = replace(draw_patient(np.random.default_rng(11)), dissection=dissection)
        painter = Painter(grid, body.scale, body.bend)
        whole = paint_aorta(painter, body)
        images.append(painter.image)
        labels.append(np.zeros(grid.shape, dtype=bool))
        labels[-1][whole.region.slices] = whole.occupancy > 0.5
    np.testing.assert_array_equal(*labels)
    changed = np.abs(images[0] - images[1]) > 60
    assert 0.2 < changed[labels[0]].mean() < 0.8
    assert not changed[~binary_dilation(labels[0])].any()


def test_some_bodies_with_contrast_are_dissected_and_none_without():
    bodies = [draw_patient(np.random.default_rng(seed)) for seed in range(150)]
    torn = [body for body in bodies if body.dissection]
    assert 5 < len(torn) < 40
    assert all(body.hu["aorta"] >= 120 for body in torn)
    assert max(body.iliac_mm for body in bodies) > 6
