from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from stseg3d.metrics import find_overlaps, score_objects


def slow_table(prediction: np.ndarray, label: np.ndarray) -> np.ndarray:
    """IoU of each object with each other."""
    ours, theirs = ([array == i for i in np.unique(array) if i] for array in (prediction, label))
    return np.array([[(a & b).sum() / (a | b).sum() for b in theirs] for a in ours]).reshape(len(ours), len(theirs))


def slow_match(table: np.ndarray, above: float) -> tuple[int, float]:
    """Most pairs, then most IoU, of all one-to-one matches there are."""
    if table.shape[0] > table.shape[1]:
        table = table.T
    best = (0, 0.0)
    for columns in permutations(range(table.shape[1]), table.shape[0]):
        values = [table[i, j] for i, j in enumerate(columns) if table[i, j] > above]
        best = max(best, (len(values), round(sum(values), 12)))
    return best


@pytest.fixture(params=range(12))
def maps(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """Instance maps of up to six objects that overlap one another in many ways; ids have gaps and differ between the two."""
    rng = np.random.default_rng(request.param)
    found = []
    for step in (3, 1000):
        ids = np.zeros((12, 10), np.int32)
        for i in range(1, rng.integers(2, 7)):
            (a, b), (c, d) = np.sort(rng.integers(0, 12, 2)), np.sort(rng.integers(0, 10, 2))
            ids[a : b + 2, c : d + 2] = i * step
        found.append(ids)
    return found[0], found[1]


@pytest.mark.parametrize("above", [0.0, 0.1, 0.3, 0.5])
def test_the_match_is_the_best_of_all(maps: tuple[np.ndarray, np.ndarray], above: float) -> None:
    matched = find_overlaps(*maps).match(above)
    assert (len(matched), matched.sum()) == pytest.approx(slow_match(slow_table(*maps), above), abs=1e-6)


def test_every_score_follows_from_the_match(maps: tuple[np.ndarray, np.ndarray]) -> None:
    table = slow_table(*maps)
    predictions, labels = table.shape
    scores = score_objects(*maps)
    found, _ = slow_match(table, 0.1)
    half, total = slow_match(table, 0.5)
    assert (scores["objects_found"], scores["objects_missed"], scores["objects_false"]) == (found, labels - found, predictions - found)
    assert scores["object_f1_10"] == pytest.approx(2 * found / (predictions + labels), abs=1e-6)
    assert scores["object_f1_50"] == pytest.approx(2 * half / (predictions + labels), abs=1e-6)
    assert scores["panoptic_quality"] == pytest.approx(total / (half + (predictions + labels - 2 * half) / 2), abs=1e-6)
    assert scores["object_iou"] == pytest.approx(total / half if half else np.nan, abs=1e-6, nan_ok=True)


def test_panoptic_quality_is_monais(maps: tuple[np.ndarray, np.ndarray]) -> None:
    import torch
    from monai.metrics.panoptic_quality import compute_panoptic_quality

    pair = [torch.from_numpy(np.unique(ids, return_inverse=True)[1].reshape(ids.shape)) for ids in maps]  # MONAI wants 1, 2, 3, ...
    theirs = {name: compute_panoptic_quality(*pair, metric_name=name).item() for name in ("pq", "rq")}
    scores = score_objects(*maps)
    assert [scores["panoptic_quality"], scores["object_f1_50"]] == pytest.approx([theirs["pq"], theirs["rq"]], abs=1e-5)  # it adds 1e-6


def test_numbers_by_hand() -> None:
    label = np.array([1, 1, 1, 1, 0, 2, 2, 0, 3, 3])
    prediction = np.array([7, 7, 7, 0, 0, 8, 9, 0, 0, 0])
    # 7 has 3 of 4 voxels of 1; 8 and 9 are half of 2 each, and only one of them counts; 3 is missed.
    scores = score_objects(prediction, label)
    assert (scores["objects_found"], scores["objects_missed"], scores["objects_false"]) == (2, 1, 1)
    assert scores["object_f1_10"] == 4 / 6
    assert scores["object_f1_50"] == 2 / 6  # an IoU of 0.5 is not above 0.5
    assert scores["object_iou"] == 3 / 4
    assert scores["panoptic_quality"] == 0.75 / 3


def test_more_pairs_come_before_better_ones() -> None:
    # A overlaps 1 (IoU 5/9) and 2 (3/8), B overlaps only 1 (1/6): A goes to 2, so that both are found.
    label = np.array([1, 1, 1, 1, 1, 1, 2, 2, 2, 0])
    prediction = np.array([6, 5, 5, 5, 5, 5, 5, 5, 5, 0])
    assert sorted(find_overlaps(prediction, label).match(0.1)) == pytest.approx([1 / 6, 3 / 8])


def test_components_are_objects_whatever_their_values() -> None:
    label = np.array([[1, 2, 0, 0, 3], [0, 0, 0, 0, 0], [4, 0, 0, 0, 0]])
    assert score_objects(label, label)["objects_found"] == 4
    assert score_objects(label, label, objects="components")["objects_found"] == 3


def test_voxels_that_share_a_corner_touch() -> None:
    diagonal = np.eye(3, dtype=np.uint8)[..., None]
    assert score_objects(diagonal, diagonal, objects="components")["objects_found"] == 1


def test_found_has_its_own_threshold() -> None:
    label, prediction = np.array([1, 1, 1, 1, 1]), np.array([1, 0, 0, 0, 0])
    scores = score_objects(prediction, label)  # at an IoU of 0.2
    assert (scores["objects_found"], scores["object_f1_50"]) == (1, 0)


def test_empty_maps() -> None:
    nothing, one = np.zeros(4, np.uint8), np.array([0, 1, 1, 0], np.uint8)
    best = {"objects_found": 0, "objects_missed": 0, "objects_false": 0}
    assert score_objects(nothing, nothing) == best | dict.fromkeys(("object_f1_10", "object_f1_50", "object_iou", "panoptic_quality"), 1.0)
    for scores, missed in [(score_objects(nothing, one), 1), (score_objects(one, nothing), 0)]:
        assert (scores["objects_missed"], scores["objects_false"]) == (missed, 1 - missed)
        assert scores["object_f1_10"] == scores["object_f1_50"] == scores["panoptic_quality"] == 0
        assert np.isnan(scores["object_iou"])


def test_many_objects_do_not_need_a_table_of_all_pairs() -> None:
    ids = np.arange(1, 40_001, dtype=np.uint32).reshape(200, 200)  # a table would be 12 GiB
    assert score_objects(ids, ids[::-1])["panoptic_quality"] == 1


def test_other_objects_are_refused() -> None:
    with pytest.raises(ValueError, match=r"objects must be .* got 'boxes'"):
        score_objects(np.zeros(2, np.uint8), np.zeros(2, np.uint8), objects="boxes")


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"label's shape \(3,\), got \(2,\)"):
        score_objects(np.zeros(2, np.uint8), np.zeros(3, np.uint8))
