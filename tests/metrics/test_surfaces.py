from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from stseg3d.metrics import (
    average_distance,
    average_distance_from_label,
    average_distance_from_prediction,
    hausdorff,
    surface_dice,
    surface_distances,
    surfaces,
)
from tests.metrics.pairs import CASES, EMPTY, PAIRS, box, slow_surface


def slow_distances(prediction: np.ndarray, label: np.ndarray, spacing: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Every surface voxel against every other."""
    table = cdist(slow_surface(prediction) * spacing, slow_surface(label) * spacing)
    return table.min(axis=1), table.min(axis=0)


@pytest.mark.parametrize(("name", "spacing"), CASES)
def test_every_metric_is_that_of_all_pairs_of_surface_voxels(name: str, spacing: tuple[float, ...]) -> None:
    prediction, label = PAIRS[name]
    ours = surface_distances(prediction, label, spacing)
    there, back = slow_distances(prediction, label, spacing)
    assert np.sort(ours.from_prediction) == pytest.approx(np.sort(there), abs=1e-6)
    assert np.sort(ours.from_label) == pytest.approx(np.sort(back), abs=1e-6)
    assert hausdorff(ours) == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), abs=1e-6)
    assert average_distance(ours) == pytest.approx((there.sum() + back.sum()) / (len(there) + len(back)), abs=1e-6)
    assert average_distance_from_prediction(ours) == pytest.approx(there.mean(), abs=1e-6)
    assert average_distance_from_label(ours) == pytest.approx(back.mean(), abs=1e-6)
    for tolerance in (0.0, 0.9, 1.2):
        near = (there <= tolerance + 1e-9).sum() + (back <= tolerance + 1e-9).sum()
        assert surface_dice(ours, tolerance) == pytest.approx(near / (len(there) + len(back)), abs=1e-6)


@pytest.mark.parametrize(("name", "spacing"), CASES)
def test_many_surface_voxels_take_another_way_to_the_same_distances(
    name: str, spacing: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = surface_distances(*PAIRS[name], spacing)
    monkeypatch.setattr(surfaces, "MAX_TREE_VOXELS", 0)
    monkeypatch.setattr("scipy.spatial.cKDTree", None)
    many = surface_distances(*PAIRS[name], spacing)
    assert many.from_prediction == pytest.approx(few.from_prediction, abs=1e-6, rel=1e-6)
    assert many.from_label == pytest.approx(few.from_label, abs=1e-6, rel=1e-6)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI 1.6 warns of itself
@pytest.mark.parametrize(("name", "spacing"), [case for case in CASES if case[0] != "line"])
def test_every_metric_is_monais(name: str, spacing: tuple[float, ...]) -> None:
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

    ours = surface_distances(*PAIRS[name], spacing)
    pair = [torch.from_numpy(mask)[None, None].float() for mask in PAIRS[name]]
    options = {"include_background": True, "spacing": list(spacing)}
    theirs = {
        "hd95": compute_hausdorff_distance(*pair, percentile=95, **options),
        "hd": compute_hausdorff_distance(*pair, **options),
        "from prediction": compute_average_surface_distance(*pair, **options),
        "both": compute_average_surface_distance(*pair, symmetric=True, **options),
        # Of a distance that is the tolerance, 32 bits make either; there is none of 1.05 mm.
        "nsd": compute_surface_dice(*pair, class_thresholds=[1.05], **options),
    }
    found = [
        hausdorff(ours),
        hausdorff(ours, 100),
        average_distance_from_prediction(ours),
        average_distance(ours),
        surface_dice(ours, 1.05),
    ]
    assert found == pytest.approx([value.item() for value in theirs.values()], abs=1e-6, rel=1e-6)


def test_hausdorff_is_simpleitks_for_boxes_apart() -> None:
    import SimpleITK as sitk  # noqa: N813

    spacing = (0.7, 0.9, 3.0)
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in PAIRS["far apart"]]
    for image in images:
        image.SetSpacing(spacing[::-1])
    theirs = sitk.HausdorffDistanceImageFilter()
    theirs.Execute(*images)
    assert hausdorff(surface_distances(*PAIRS["far apart"], spacing), 100) == pytest.approx(theirs.GetHausdorffDistance(), abs=1e-6)


def test_numbers_by_hand() -> None:
    # ..PPP...  0.5 mm a voxel: the surface of an interval is its two ends.
    # ...LLLL.  From P: 2 -> 3, 4 -> 3 (1 voxel each). From L: 3 -> 2 or 4 (1 voxel), 6 -> 4 (2 voxels).
    distances = surface_distances(box((8,), (2, 5)), box((8,), (3, 7)), (0.5,))
    assert distances.from_prediction.tolist() == [0.5, 0.5]
    assert distances.from_label.tolist() == [0.5, 1.0]
    assert hausdorff(distances) == pytest.approx(0.975)  # 95 % of the way from 0.5 to 1
    assert average_distance(distances) == 0.625
    assert surface_dice(distances, 0.5) == 0.75
    assert surface_dice(distances, 0.49) == 0


def test_a_distance_of_the_tolerance_is_within_whatever_the_rounding() -> None:
    for spacing in np.float32([0.1, 0.3, 0.7, 0.9, 1.1]).astype(float):  # as a NIfTI header has them
        distances = surface_distances(box((40,), (9, 30)), box((40,), (12, 30)), (spacing,))
        assert surface_dice(distances, 3 * round(spacing, 1)) == 1
        assert surface_dice(distances, 2.99 * spacing) == 0.5


def test_a_depth_of_one_voxel_is_no_surface() -> None:
    flat = surface_distances(*(mask[..., None] for mask in PAIRS["plane"]), (0.7, 0.9, 5.0))
    true = surface_distances(*PAIRS["plane"], (0.7, 0.9))
    assert np.array_equal(flat.from_prediction, true.from_prediction)
    assert np.array_equal(flat.from_label, true.from_label)
    assert flat.worst_mm == true.worst_mm == pytest.approx(np.hypot(17 * 0.7, 14 * 0.9))


def test_an_object_one_voxel_thin_in_a_deep_image_is_all_surface() -> None:
    assert surface_distances(*PAIRS["one voxel thin"], (1, 1, 1)).from_prediction.size == 8 * 7


def test_an_image_of_one_voxel_has_a_surface() -> None:
    assert average_distance(surface_distances(np.ones((1, 1, 1), bool), np.ones((1, 1, 1), bool), (1, 1, 1))) == 0


@pytest.mark.parametrize("swapped", [False, True])
def test_where_one_is_empty_distances_are_the_diagonal(swapped: bool) -> None:
    pair = [EMPTY, PAIRS["shifted"][0]]
    distances = surface_distances(*(pair[::-1] if swapped else pair), (0.7, 0.9, 3.0))
    diagonal = np.linalg.norm([11 * 0.7, 9 * 0.9, 8 * 3.0])
    for metric in (hausdorff, average_distance, average_distance_from_prediction, average_distance_from_label):
        assert metric(distances) == pytest.approx(diagonal)
    assert surface_dice(distances, 1e6) == 0


def test_where_both_are_empty_they_agree() -> None:
    distances = surface_distances(EMPTY, EMPTY, (1, 1, 1))
    for metric in (hausdorff, average_distance, average_distance_from_prediction, average_distance_from_label):
        assert metric(distances) == 0
    assert surface_dice(distances, 0) == 1


def test_no_distance_is_longer_than_the_diagonal() -> None:
    corners = box(EMPTY.shape, (0, 1), (0, 1), (0, 1)), box(EMPTY.shape, (10, 11), (8, 9), (7, 8))
    distances = surface_distances(*corners, (0.7, 0.9, 3.0))
    assert distances.worst_mm * 0.8 < hausdorff(distances, 100) < distances.worst_mm


@pytest.mark.parametrize("spacing", [(1, 1), (1, 1, 0), (1, 1, -1), (1, 1, float("nan")), (1, 1, float("inf"))])
def test_bad_spacing_is_refused(spacing: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="spacing_mm must be 3 positive numbers"):
        surface_distances(EMPTY, EMPTY, spacing)


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"label's shape \(11, 9, 8\), got \(11, 9\)"):
        surface_distances(EMPTY[..., 0], EMPTY, (1, 1, 1))
