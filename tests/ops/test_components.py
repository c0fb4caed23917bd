"""Components of a mask: which voxels belong together, how much they weigh, in which order they come."""

from __future__ import annotations

import numpy as np
import pytest

from stseg3d.geometry import Box
from stseg3d.ops.components import find_components, structure

BY_FACE, BY_EDGE, BY_CORNER = [(0, 0, 0), (0, 0, 1)], [(0, 0, 0), (0, 1, 1)], [(0, 0, 0), (1, 1, 1)]


def mask_of(voxels, shape=(3, 3, 3)):
    mask = np.zeros(shape, bool)
    mask[tuple(np.transpose(voxels))] = True
    return mask


@pytest.mark.parametrize(("connectivity", "joined"), [(6, [BY_FACE]), (18, [BY_FACE, BY_EDGE]), (26, [BY_FACE, BY_EDGE, BY_CORNER])])
def test_neighbours_count_as_in_three_dimensions(connectivity, joined):
    for pair in (BY_FACE, BY_EDGE, BY_CORNER):
        assert len(find_components(mask_of(pair), connectivity)[1]) == (1 if pair in joined else 2)


@pytest.mark.parametrize(("connectivity", "neighbours"), [(6, 6), (18, 18), (26, 26)])
def test_a_structure_has_as_many_neighbours_as_it_says(connectivity, neighbours):
    assert structure(3, connectivity).sum() - 1 == neighbours
    assert structure(2, connectivity).sum() - 1 == (4 if connectivity == 6 else 8)


def test_measures_by_hand():
    mask = mask_of([(0, 0, 0), (0, 0, 1), (2, 2, 2)])
    weights = np.zeros((3, 3, 3))
    weights[0, 0, :2], weights[2, 2, 2] = (0.25, 0.5), 1.0
    ids, (single, pair) = find_components(mask, 26, weights)
    assert (single.box, single.voxels, single.weight) == (Box((2, 2, 2), (3, 3, 3)), 1, 1.0)
    assert (pair.box, pair.voxels, pair.weight) == (Box((0, 0, 0), (1, 1, 2)), 2, 0.75)
    assert ids[2, 2, 2] == single.id
    assert (ids[0, 0, :2] == pair.id).all()
    assert np.count_nonzero(ids) == 3


def test_without_weights_the_largest_comes_first_and_of_equals_the_first_met():
    mask = mask_of([(0, 0, 0), (2, 0, 0), (2, 0, 1), (2, 2, 2)])
    assert [c.voxels for c in find_components(mask, 6)[1]] == [2, 1, 1]
    assert [c.weight for c in find_components(mask, 6)[1]] == [2, 1, 1]
    assert [c.id for c in find_components(mask, 6)[1]] == [2, 1, 3]


def test_nothing_found_gives_an_empty_list():
    ids, components = find_components(np.zeros((2, 3, 4), bool))
    assert components == []
    assert not ids.any()


def test_every_voxel_is_in_the_box_of_its_component_and_in_no_other_component(rng):
    mask = rng.random((6, 7, 8)) > 0.8
    ids, components = find_components(mask, 6)
    np.testing.assert_array_equal(ids > 0, mask)
    for component in components:
        assert (ids == component.id).sum() == component.voxels == (ids[component.box.slices] == component.id).sum()
        faces = [np.argwhere(ids == component.id).min(0), np.argwhere(ids == component.id).max(0) + 1]
        assert component.box == Box(*map(tuple, faces))


@pytest.mark.parametrize("connectivity", [0, 4, 8, 27])
def test_other_connectivities_are_refused(connectivity):
    with pytest.raises(ValueError, match=rf"connectivity must be one of \[6, 18, 26\], got {connectivity}"):
        structure(3, connectivity)
