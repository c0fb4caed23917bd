from __future__ import annotations

from itertools import combinations, permutations, product

import nibabel as nib
import numpy as np
import pytest

from stseg3d.geometry import Box, Grid

AXCODES = ["".join(c) for order in permutations(("LR", "PA", "IS")) for c in product(*order)]
# A rotation about an odd axis, times spacings, plus an origin: scipy.spatial.transform.Rotation.from_rotvec([0.2, -0.3, 0.1]).
OBLIQUE = np.array(
    [
        [0.9506 * 0.8, -0.1241 * 0.9, -0.2846 * 2.5, -31.0],
        [0.0650 * 0.8, 0.9752 * 0.9, -0.2114 * 2.5, 17.5],
        [0.3038 * 0.8, 0.1825 * 0.9, 0.9351 * 2.5, -204.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)


def oriented(axcodes: str, shape: tuple[int, int, int] = (4, 5, 6)) -> Grid:
    """Grid whose axes run along ``axcodes``, made by nibabel."""
    ornt = nib.orientations.axcodes2ornt(axcodes)
    matrix = nib.orientations.inv_ornt_aff(ornt, shape)
    return Grid(shape, np.diag([0.7, 1.1, 2.5, 1.0]) @ np.linalg.inv(matrix))


@pytest.mark.parametrize("axcodes", AXCODES)
def test_orientation_is_nibabels(axcodes):
    grid = oriented(axcodes)
    assert grid.orientation == "".join(nib.aff2axcodes(grid.affine))


@pytest.mark.parametrize("axcodes", AXCODES)
def test_the_canonical_view_of_any_orientation_keeps_every_voxel_in_its_place(axcodes):
    grid = oriented("LPS")
    order, flips = grid.canonical(axcodes)
    view = grid.view(order, flips)
    assert view.orientation == axcodes
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"))
    seen = index.transpose(0, *(1 + axis for axis in order))
    seen = seen[(slice(None), *(slice(None, None, -1 if flip else None) for flip in flips))]
    assert seen.shape[1:] == view.shape
    here = np.stack(np.meshgrid(*map(np.arange, view.shape), indexing="ij")).reshape(3, -1).T
    np.testing.assert_allclose(view.world_mm(here + 0.5), grid.world_mm(seen.reshape(3, -1).T + 0.5), atol=1e-9)


def test_an_oblique_grid_is_seen_along_the_nearest_axes():
    grid = Grid((4, 5, 6), OBLIQUE)
    assert grid.orientation == "RAS"
    assert grid.canonical("RAS") == ((0, 1, 2), (False, False, False))
    assert grid.canonical("IPR") == ((2, 1, 0), (True, True, False))


def test_edges_and_world_are_inverse_and_edge_zero_is_the_outer_face():
    grid = Grid((4, 5, 6), OBLIQUE)
    points = np.array([[0.0, 0, 0], [4, 5, 6], [0.5, 0.5, 0.5], [-3, 2.5, 9]])
    np.testing.assert_allclose(grid.edges(grid.world_mm(points)), points, atol=1e-9)
    np.testing.assert_allclose(grid.world_mm([[0.5, 0.5, 0.5]])[0], OBLIQUE[:3, 3])
    np.testing.assert_allclose(Grid((3,)).world_mm([[0.0], [3.0]]), [[-0.5], [2.5]])


@pytest.mark.parametrize("shape", [(5,), (4, 5), (4, 5, 1), (3, 4, 5)])
def test_a_resized_grid_covers_the_same_extent(shape):
    grid = Grid(shape, spacing_mm=(0.5, 2.0, 3.0)[: len(shape)])
    for size in product(range(1, 5), repeat=len(shape)):
        other = grid.resized(size)
        ends = [[0] * len(shape), size]
        np.testing.assert_allclose(other.world_mm(ends), grid.world_mm([[0] * len(shape), shape]), atol=1e-9)
        assert other.resized(shape).is_close(grid)


@pytest.mark.parametrize(("shape", "size"), [((5,), (3,)), ((4, 5), (7, 2)), ((4, 5, 1), (2, 9, 1)), ((3, 4, 5), (5, 4, 3))])
def test_a_box_mapped_there_covers_it_and_mapped_back_too(shape, size):
    grid, other = Grid(shape), Grid(shape).resized(size)
    spans = [list(combinations(range(n + 1), 2)) for n in shape]
    for axes in product(*spans):
        box = Box(tuple(a for a, _ in axes), tuple(b for _, b in axes))
        there = grid.map(box, other)
        assert other.box.contains(there)
        edges = other.edges(grid.world_mm([box.start, box.stop]))
        assert (edges[0] >= np.array(there.start) - 1e-5).all()
        assert (edges[1] <= np.array(there.stop) + 1e-5).all()
        assert (edges[0] < np.array(there.start) + 1).all()  # the smallest that does
        assert (edges[1] > np.array(there.stop) - 1).all()
        assert other.map(there, grid).contains(box)
    assert grid.map(grid.box, other) == other.box


def test_a_map_by_a_third_does_not_grow_by_a_voxel():
    assert Grid((9,)).map(Box((3,), (6,)), Grid((9,)).resized((30,))) == Box((10,), (20,))


def test_cropping_keeps_the_voxels_in_their_place():
    grid = Grid((4, 5, 6), OBLIQUE)
    box = Box((1, 2, 3), (3, 4, 6))
    crop = grid.crop(box)
    assert crop.shape == box.shape
    np.testing.assert_allclose(crop.world_mm([[0, 0, 0], box.shape]), grid.world_mm([box.start, box.stop]))


def test_grids_are_equal_by_shape_and_affine_and_close_by_the_distance_of_their_corners():
    grid = Grid((4, 5, 6), OBLIQUE)
    moved = OBLIQUE.copy()
    moved[0, 3] += 0.005
    assert grid == Grid((4, 5, 6), OBLIQUE)
    assert hash(grid) == hash(Grid((4, 5, 6), OBLIQUE))
    assert grid != Grid((4, 5, 6), moved)
    assert grid.is_close(Grid((4, 5, 6), moved))
    assert not grid.is_close(Grid((4, 5, 6), moved), tolerance_voxels=1e-3)
    assert not grid.is_close(Grid((4, 5, 5), OBLIQUE))


def test_spacing_and_voxel_volume_come_from_the_affine():
    grid = oriented("SLP")
    assert sorted(np.round(grid.spacing_mm, 9)) == [0.7, 1.1, 2.5]
    assert grid.voxel_mm3 == pytest.approx(0.7 * 1.1 * 2.5)
    assert Grid((2, 2), spacing_mm=(0.001, 0.001)).voxel_mm3 == pytest.approx(1e-6)


def test_an_affine_cannot_be_changed_from_outside():
    affine = np.eye(4)
    grid = Grid((1, 2, 3), affine)
    affine[0, 3] = 9
    assert grid.affine[0, 3] == 0
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 3] = 9


@pytest.mark.parametrize(
    ("shape", "affine", "message"),
    [
        ((), None, "shape must have at least one voxel on each axis, got"),
        ((3, 0), None, "shape must have at least one voxel on each axis, got"),
        ((3, 3), np.eye(4), r"affine must be of shape \(3, 3\) for 2 axes, got \(4, 4\)"),
        ((3, 3), np.full((3, 3), np.nan), "affine must be finite, got"),
        ((3, 3), np.diag([1.0, 0, 1]), "affine must not be singular, got"),
        ((3, 3), np.array([[1.0, 2, 0], [2, 4, 0], [0, 0, 1]]), "affine must not be singular, got"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(shape, affine, message):
    with pytest.raises(ValueError, match=message):
        Grid(shape, affine)


def test_grids_of_other_places_are_not_mapped():
    with pytest.raises(ValueError, match=r"grids must cover the same extent, got .* 1.00 voxels apart"):
        Grid((4,)).map(Box((0,), (1,)), Grid((5,)))
    with pytest.raises(ValueError, match="grids must have as many axes"):
        Grid((4,)).map(Box((0,), (1,)), Grid((4, 1)))


@pytest.mark.parametrize("axcodes", ["RAA", "RA", "XYZ"])
def test_axcodes_that_name_no_view_are_refused(axcodes):
    with pytest.raises(ValueError, match=f"axcodes must name each of 3 world axes once, got '{axcodes}'"):
        Grid((2, 3, 4)).canonical(axcodes)
