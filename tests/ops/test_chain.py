"""Boxes in order along a vessel."""

from __future__ import annotations

import numpy as np
import pytest

from stseg3d.geometry import Grid
from stseg3d.ops import BoxPolicy, propose_boxes
from stseg3d.ops.chain import chain_order


def arch() -> np.ndarray:
    """Centres along an aorta: up, over the arch, and down to the belly."""
    turn = np.linspace(0, np.pi, 7)
    over = np.column_stack([np.zeros(7), -40 * np.cos(turn), 400 + 40 * np.sin(turn)])
    return np.vstack([over, [(0, 40, z) for z in range(360, 0, -40)]])


def test_a_shuffled_chain_is_put_in_order_from_the_head_end() -> None:
    centres = arch()
    shuffle = np.random.default_rng(0).permutation(len(centres))
    order = shuffle[chain_order(centres[shuffle])]
    np.testing.assert_array_equal(order, np.arange(len(centres)))  # the ascending end lies higher than the bifurcation


def test_equal_places_lose_no_box() -> None:
    centres = np.repeat(arch()[:3], 2, axis=0)
    assert sorted(chain_order(centres)) == list(range(6))


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_boxes(n: int) -> None:
    order = chain_order(np.array([(0.0, 0.0, 10.0 * k) for k in range(n)]).reshape(n, 3))
    assert order == list(range(n))[::-1]


def test_the_policy_gives_boxes_along_a_bent_tube() -> None:
    mask = np.zeros((40, 12, 80), dtype=np.float32)
    for z in range(80):
        x = round(18 + 14 * np.sin(z / 14))
        mask[x : x + 3, 4:7, z] = 1
    grid = Grid(mask.shape, spacing_mm=(2.0, 2.0, 2.0))
    boxes = propose_boxes(mask, grid, grid, (12, 12, 12), BoxPolicy(max_spacing_mm=2.0, chain=True)).boxes
    centres = np.array([(np.array(b.box.start) + b.box.stop) / 2 for b in boxes])
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    assert len(boxes) > 6
    assert centres[0, 2] > centres[-1, 2]
    assert steps.max() < 20


def test_nothing_found_is_an_empty_chain() -> None:
    grid = Grid((8, 8, 8))
    assert propose_boxes(np.zeros(grid.shape), grid, grid, (8, 8, 8), BoxPolicy(chain=True, bridge_mm=10.0)).boxes == []
