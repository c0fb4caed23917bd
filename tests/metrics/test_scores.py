from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from stseg3d import metrics
from stseg3d.metrics import METRICS, score_masks, score_objects
from tests.metrics.pairs import EMPTY, PAIRS

SPACING = (0.7, 0.9, 3.0)


def test_the_registry_has_each_score_and_no_other() -> None:
    pair = PAIRS["shifted"]
    masks, objects = score_masks(*pair, SPACING), score_objects(*pair)
    assert list(METRICS) == [*masks, *objects]
    assert [name for name, metric in METRICS.items() if metric.group == "objects"] == list(objects)
    assert all(name == metric.name for name, metric in METRICS.items())


def test_headings_have_units() -> None:
    assert (METRICS["dice"].heading, METRICS["hd95_mm"].heading) == ("Dice", "HD95 [mm]")


def test_better_scores_are_better_as_the_registry_says() -> None:
    ours, theirs = PAIRS["shifted"]
    good = score_masks(theirs, theirs, SPACING) | score_objects(theirs, theirs)
    bad = score_masks(ours[::-1], theirs, SPACING) | score_objects(ours * 0, theirs)
    for name, metric in METRICS.items():
        if metric.higher_is_better is None:
            assert good[name] == 0, name
        elif not np.isnan(bad[name]) and name != "objects_false":
            assert (good[name] > bad[name]) == metric.higher_is_better, name


def test_each_score_is_that_of_its_own_function() -> None:
    ours, theirs = PAIRS["blobs"]
    scores = score_masks(ours, theirs, SPACING, tolerance_mm=0.8, boundary_mm=1.5)
    counts = metrics.confusion(ours, theirs)
    distances = metrics.surface_distances(ours, theirs, SPACING)
    assert scores["dice"] == metrics.dice(counts)
    assert scores["specificity"] == metrics.specificity(counts, ours.size)
    assert scores["hd95_mm"] == metrics.hausdorff(distances)
    assert scores["asd_prediction_mm"] == metrics.average_distance_from_prediction(distances)
    assert scores["nsd"] == metrics.surface_dice(distances, 0.8)
    assert scores["boundary_iou"] == score_masks(ours, theirs, SPACING, boundary_mm=0.02 * distances.worst_mm)["boundary_iou_fixed"]
    assert scores["volume_difference_mm3"] == pytest.approx((ours.sum() - theirs.sum()) * 0.7 * 0.9 * 3.0)


@pytest.mark.parametrize("case", [case for case in PAIRS if PAIRS[case][0].ndim == 3])
def test_order_and_direction_of_axes_do_not_matter(case: str) -> None:
    ours, theirs = PAIRS[case]
    turned = score_masks(ours.transpose(2, 0, 1)[::-1], theirs.transpose(2, 0, 1)[::-1], (3.0, 0.7, 0.9))
    assert turned == pytest.approx(score_masks(ours, theirs, SPACING), abs=1e-6)


def test_length_scales_with_spacing_and_the_rest_does_not() -> None:
    once = score_masks(*PAIRS["blobs"], SPACING)
    twice = score_masks(*PAIRS["blobs"], tuple(2 * s for s in SPACING), tolerance_mm=2, boundary_mm=4)
    factor = {"": 1, "mm": 2, "mm3": 8}
    assert twice == pytest.approx({name: value * factor[METRICS[name].unit] for name, value in once.items()})


def test_depth_one_is_two_dimensions() -> None:
    flat = score_masks(*(mask[:, None] for mask in PAIRS["plane"]), (0.7, 5.0, 0.9))
    true = score_masks(*PAIRS["plane"], (0.7, 0.9))
    assert flat.pop("volume_difference_mm3") == pytest.approx(5 * true.pop("volume_difference_mm3"))
    assert flat == true


def test_the_image_around_changes_only_what_depends_on_its_size() -> None:
    near, far = ([np.pad(mask, n) for mask in PAIRS["shifted"]] for n in (1, 6))
    ours, theirs = score_masks(*near, SPACING), score_masks(*far, SPACING)
    changed = {name for name in ours if ours[name] != pytest.approx(theirs[name], abs=1e-9)}
    assert changed <= {"specificity", "boundary_iou"}


def test_all_classes_above_zero_are_foreground() -> None:
    ours, theirs = (np.where(mask, value, 0).astype(np.uint16) for mask, value in zip(PAIRS["blobs"], (3, 700), strict=True))
    assert score_masks(ours, theirs, SPACING) == score_masks(*PAIRS["blobs"], SPACING)


def test_two_empty_masks_have_the_best_of_each() -> None:
    same = score_masks(PAIRS["blobs"][0], PAIRS["blobs"][0], SPACING)
    assert score_masks(EMPTY, EMPTY, SPACING) == same


@pytest.mark.parametrize("pair", [(EMPTY, PAIRS["shifted"][0]), (PAIRS["shifted"][0], EMPTY)], ids=["prediction", "label"])
def test_one_empty_mask_has_the_worst_of_each(pair: tuple[np.ndarray, np.ndarray]) -> None:
    scores = score_masks(*pair, SPACING)
    diagonal = np.linalg.norm([n * s for n, s in zip(EMPTY.shape, SPACING, strict=True)])
    for name, value in scores.items():
        if METRICS[name].higher_is_better and name != "specificity":
            assert value == 0, name
        elif METRICS[name].unit == "mm":
            assert value == pytest.approx(diagonal), name
    assert np.isnan(scores["volume_difference"]) == (not pair[1].any())


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: score_masks(EMPTY, EMPTY, SPACING, tolerance_mm=-1), "tolerance_mm must not be negative, got -1"),
        (lambda: score_masks(EMPTY, EMPTY, SPACING, boundary_mm=-1), "must not be negative, got -1"),
        (lambda: score_masks(EMPTY, EMPTY, (1, 1)), "spacing_mm must be 3 positive numbers"),
        (lambda: score_masks(EMPTY[1:], EMPTY, SPACING), "prediction must have the label's shape"),
    ],
)
def test_bad_arguments_are_refused(call: Callable[[], object], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        call()
