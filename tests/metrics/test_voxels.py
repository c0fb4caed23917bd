from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.spatial.distance import dice as scipy_dice
from scipy.spatial.distance import jaccard as scipy_jaccard

from stseg3d.metrics import OVERLAPS, Confusion, confusion, dice, iou, precision, recall, specificity, volume_difference

SHAPES = [(7,), (5, 6), (4, 5, 1), (3, 4, 5)]


@pytest.fixture(params=range(6))
def pair(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """Two label maps of 0..3 that agree in part."""
    rng = np.random.default_rng(request.param)
    label = rng.integers(0, 4, (6, 9, 5)).astype(np.uint8)
    prediction = np.where(rng.random(label.shape) < 0.6, label, rng.integers(0, 4, label.shape)).astype(np.uint8)
    return prediction, label


def slow_counts(prediction: np.ndarray, label: np.ndarray) -> Confusion:
    """Voxel by voxel, as one would on paper."""
    pairs = [(bool(p), bool(t)) for p, t in zip(prediction.ravel(), label.ravel(), strict=True)]
    return Confusion(pairs.count((True, True)), pairs.count((True, False)), pairs.count((False, True)))


@pytest.mark.parametrize("shape", SHAPES)
def test_counts_are_those_of_a_count_voxel_by_voxel(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    prediction, label = rng.integers(0, 3, (2, *shape)).astype(np.uint8)
    assert confusion(prediction, label) == slow_counts(prediction, label)


def test_dice_and_iou_are_scipys(pair: tuple[np.ndarray, np.ndarray]) -> None:
    prediction, label = (array.ravel() > 0 for array in pair)
    counts = confusion(prediction, label)
    assert dice(counts) == pytest.approx(1 - scipy_dice(prediction, label), abs=1e-6)
    assert iou(counts) == pytest.approx(1 - scipy_jaccard(prediction, label), abs=1e-6)


def test_every_metric_is_monais(pair: tuple[np.ndarray, np.ndarray]) -> None:
    import torch
    from monai.metrics import DiceMetric, MeanIoU, compute_confusion_matrix_metric, get_confusion_matrix

    prediction, label = (torch.from_numpy(array).long()[None, None] for array in pair)
    one_hot = [torch.cat([array == c for c in range(4)], dim=1).float() for array in (prediction, label)]
    counts = get_confusion_matrix(*one_hot, include_background=False)
    theirs = {name: compute_confusion_matrix_metric(name, counts)[0] for name in ("precision", "recall")}
    theirs |= {"dice": DiceMetric(include_background=False)(*one_hot)[0], "iou": MeanIoU(include_background=False)(*one_hot)[0]}
    ours = {c: confusion(*(array == c for array in pair)) for c in (1, 2, 3)}
    for name, metric in OVERLAPS.items():
        assert [metric(ours[c]) for c in (1, 2, 3)] == pytest.approx(theirs[name].tolist(), abs=1e-6), name


def test_numbers_by_hand() -> None:
    prediction = np.array([[1, 1, 1, 0], [0, 0, 0, 0]])
    label = np.array([[0, 1, 1, 1], [1, 0, 0, 0]])
    counts = confusion(prediction, label)
    assert counts == Confusion(both=2, prediction_only=1, label_only=2)
    assert (dice(counts), iou(counts), precision(counts), recall(counts)) == (4 / 7, 2 / 5, 2 / 3, 2 / 4)


@pytest.mark.parametrize("metric", OVERLAPS.values(), ids=OVERLAPS)
def test_two_empty_masks_agree(metric: Callable[[Confusion], float]) -> None:
    assert metric(Confusion(0, 0, 0)) == 1


@pytest.mark.parametrize("metric", OVERLAPS.values(), ids=OVERLAPS)
@pytest.mark.parametrize("counts", [Confusion(0, 5, 0), Confusion(0, 0, 5), Confusion(0, 2, 3)])
def test_nothing_shared_is_zero(metric: Callable[[Confusion], float], counts: Confusion) -> None:
    assert metric(counts) == 0


def test_foreground_is_what_is_above_zero_whatever_its_class() -> None:
    assert confusion(np.array([1, 2, 0]), np.array([3, 0, 4])) == Confusion(1, 1, 1)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"label's shape \(3,\), got \(2,\)"):
        confusion(np.zeros(2, np.uint8), np.zeros(3, np.uint8))


def test_specificity_and_volume_difference_by_hand() -> None:
    counts = Confusion(both=2, prediction_only=1, label_only=4)
    assert specificity(counts, 16) == 9 / 10  # of 10 voxels outside the label, 9 are outside the prediction
    assert volume_difference(counts) == -3 / 6


def test_specificity_is_one_where_the_label_is_everywhere() -> None:
    assert specificity(Confusion(both=3, prediction_only=0, label_only=1), 4) == 1


def test_the_relative_difference_to_no_volume_is_undefined_but_for_none() -> None:
    assert np.isnan(volume_difference(Confusion(0, 5, 0)))
    assert volume_difference(Confusion(0, 0, 0)) == 0


def test_overlaps_are_those_of_simpleitk(pair: tuple[np.ndarray, np.ndarray]) -> None:
    import SimpleITK as sitk  # noqa: N813

    prediction, label = pair
    theirs = sitk.LabelOverlapMeasuresImageFilter()
    theirs.Execute(sitk.GetImageFromArray(prediction), sitk.GetImageFromArray(label))
    for c in (1, 2, 3):
        counts = confusion(prediction == c, label == c)
        assert dice(counts) == pytest.approx(theirs.GetDiceCoefficient(c), abs=1e-6)
        assert iou(counts) == pytest.approx(theirs.GetJaccardCoefficient(c), abs=1e-6)
        assert recall(counts) == pytest.approx(1 - theirs.GetFalseNegativeError(c), abs=1e-6)
        assert specificity(counts, label.size) == pytest.approx(1 - theirs.GetFalsePositiveError(c), abs=1e-6)
