"""Training samples: the fine network learns on what it will be given, image and label are moved together, bad labels are named."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader, MetaTensor, list_data_collate
from monai.transforms import Compose, NormalizeIntensity, RandFlipd
from monai.utils import set_determinism

from stseg3d.geometry import Box, Grid
from stseg3d.inference import FinePolicy, NetworkProposer, Stage
from stseg3d.inference.fine import FineStage
from stseg3d.networks import RoughFineNet
from stseg3d.ops import BoxPolicy, Canvas
from stseg3d.ops.resample import resample
from stseg3d.plan import ImageView
from stseg3d.training import AppendRoughd, FineBoxesd, OpenCased, RandFineCropsd, RoughSampled, augmentation
from stseg3d.training.samples import class_fractions, label_tensor
from stseg3d.volumes import ArrayVolume, OpenCase
from tests.inference.fakes import Threshold, Witness, pipeline
from tests.phantoms import near

SHAPE = (48, 40, 36)
ROUGH, FINE = Stage((12, 10, 9)), Stage((16, 16, 16))
POLICY = BoxPolicy(margin_fraction=0, margin_mm=2)
TWO = near(np.array([[12.0, 12, 12], [34, 26, 22]]), 7, SHAPE)


@pytest.fixture
def write_case(write_nifti):
    """Image (100 in the label, 0 outside: no noise) and label in files."""

    def write(label, affine=None, suffix=".nii"):
        label = np.asarray(label, np.uint8)
        image = write_nifti(f"image{suffix}", (100 * (label > 0)).astype(np.float32), affine)
        return {"image": str(image), "label": str(write_nifti(f"label{suffix}", label, affine))}

    return write


@pytest.fixture
def two(write_case):
    return OpenCased()(write_case(TWO))


def with_boxes(data, policy=POLICY, rough=ROUGH, fine=FINE):
    return FineBoxesd(rough, fine, policy)(data)


def crops(data, seed=0, stage=FINE, policy=POLICY, **options):
    return RandFineCropsd(stage, policy, **options).set_random_state(seed)(data)


def assert_label_is_where_the_image_is_bright(sample):
    """Noise-free: both went through the same resampling, so that they agree but for ties."""
    image, label = sample["image"].as_tensor(), sample["label"].as_tensor()
    clear = (image - 50).abs() > 0.01
    assert clear.float().mean() > 0.9
    assert torch.equal((image > 50)[clear], (label > 0)[clear])


# --- opening -----------------------------------------------------------------


def test_image_and_label_are_seen_along_the_worlds_axes(write_case):
    label = np.arange(4 * 5 * 6).reshape(4, 5, 6) % 7 == 0
    affine = np.array([[0, 0, 2.0, 0], [-1, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0, 1]])
    case = OpenCased()(write_case(label, affine))["case"]
    assert case.image.grid.orientation == "RAS"
    assert case.label.shape == case.image.grid.shape == (6, 4, 5)
    np.testing.assert_array_equal(case.image.read()[0] > 50, case.label > 0)
    np.testing.assert_array_equal(case.label, label.transpose(2, 0, 1)[:, ::-1])
    own = OpenCased(ImageView(axcodes=None))(write_case(label, affine))["case"]
    np.testing.assert_array_equal(own.label, label)


def test_labels_are_foreground_or_classes(write_case):
    label = np.zeros(SHAPE, np.uint8)
    label[4:8, 4:8, 4:8], label[20:24, 4:8, 4:8] = 1, 3
    data = write_case(label)
    assert np.unique(OpenCased()(data)["case"].label).tolist() == [0, 1]
    assert np.unique(OpenCased(foreground=False, out_channels=4)(data)["case"].label).tolist() == [0, 1, 3]


def test_labels_that_are_no_classes_are_refused(write_case, write_nifti):
    label = np.zeros(SHAPE, np.int16)
    label[4, 4, 4] = 3
    data = write_case(label)
    rule = re.escape(f"{data['label']}: labels must be below out_channels=3, the number of the plan's classes, got 3")
    with pytest.raises(ValueError, match=f"^{rule}$"):
        OpenCased(foreground=False, out_channels=3)(data)
    label[4, 4, 4] = -1
    data["label"] = str(write_nifti("negative.nii", label))
    with pytest.raises(ValueError, match=r"negative.nii: labels must not be negative, got -1 to 0: is it a scan"):
        OpenCased(foreground=False)(data)
    data["label"] = str(write_nifti("fractions.nii", 0.5 * np.abs(label).astype(np.float32)))
    with pytest.raises(ValueError, match=r"fractions.nii: labels must be whole numbers, got 0.5; 1 of 69120 voxels are not$"):
        OpenCased(foreground=False)(data)
    data["label"] = str(write_nifti("no number.nii", np.where(label, np.nan, 0).astype(np.float32)))
    with pytest.raises(ValueError, match=r"no number.nii: labels must be finite, got NaN or infinity in 1 of 69120 voxels$"):
        OpenCased(foreground=False)(data)


@pytest.mark.parametrize(
    ("shape", "affine"),
    [((48, 40, 35), np.eye(4)), (SHAPE, np.diag([1, 1, 2.0, 1])), (SHAPE, np.eye(4) + 5.0 * np.eye(4, k=3))],
)
def test_a_label_on_another_grid_is_refused(shape, affine, write_case, write_nifti):
    data = write_case(TWO) | {"label": str(write_nifti("other.nii", np.zeros(shape, np.uint8), affine))}
    rule = re.escape(f"{data['image']} and its label {data['label']} must be on the same grid, got ")
    with pytest.raises(ValueError, match=rule):
        OpenCased()(data)


# --- rough samples -----------------------------------------------------------


def test_a_rough_sample_is_what_the_rough_network_will_see(two):
    sample = RoughSampled(ROUGH)(two)
    assert sample["image"].shape == sample["label"].shape == (1, *ROUGH.size)
    assert isinstance(sample["image"], MetaTensor)
    assert isinstance(sample["label"], MetaTensor)
    assert_label_is_where_the_image_is_bright(sample)
    network = RoughFineNet(Witness(Threshold(50)), Threshold(50))
    pipeline(ROUGH.size, FINE.size).segment(two["case"].image, network)
    np.testing.assert_array_equal(network.rough.inputs[0][0], sample["image"])


def test_the_stages_transform_runs_on_images_only(two):
    stage = Stage(ROUGH.size, transform=NormalizeIntensity())
    sample = RoughSampled(stage)(two)
    assert abs(float(sample["image"].mean())) < 1e-5
    assert sample["label"].unique().tolist() == [0, 1]


def test_a_cell_belongs_to_the_class_that_fills_most_of_it():
    label = np.array([[0, 1, 2, 2], [1, 1, 0, 2], [0, 0, 1, 2], [0, 1, 2, 2]], np.uint8)
    fractions = class_fractions(label, (2, 2), 3)
    np.testing.assert_allclose(fractions, np.array([[[1, 1], [3, 0]], [[3, 0], [1, 1]], [[0, 3], [0, 3]]]) / 4)
    np.testing.assert_allclose(fractions.sum(axis=0), 1)


# --- fine crops --------------------------------------------------------------


def test_boxes_of_training_are_those_of_inference(two):
    data = with_boxes(two)
    # A rough network that says how full each cell is, in a step at one half.
    proposal = NetworkProposer(Threshold(50), ROUGH, POLICY, FINE.size).propose(two["case"].image)
    assert len(data["proposal"].boxes) == 2
    assert data["proposal"].boxes == proposal.boxes
    np.testing.assert_array_equal(data["proposal"].ids, proposal.ids)


def test_crops_of_validation_are_what_the_fine_network_will_see(two):
    found = crops(with_boxes(two), samples=None)
    network = RoughFineNet(Threshold(50), Witness(Threshold(50)))
    inferer = pipeline(ROUGH.size, FINE.size, POLICY)
    inferer.segment(two["case"].image, network)
    np.testing.assert_array_equal(np.stack([c["image"] for c in found]), network.fine.inputs[0])


@pytest.mark.parametrize("size", [(16, 16, 16), (24, 10, 7), (8, 9, 30)])
def test_crops_have_the_networks_size_and_labels_move_with_images(two, size):
    stage = Stage(size)
    found = crops(with_boxes(two, fine=stage), stage=stage, samples=20, shift=0.3, scale=0.3)
    assert len(found) == 20
    for sample in found:
        assert sample["image"].shape == sample["label"].shape == (1, *size)
        assert sample["image"].dtype == sample["label"].dtype == torch.float32
        assert_label_is_where_the_image_is_bright(sample)
    assert sum(bool(s["label"].any()) for s in found) == 20


def test_jitter_moves_and_scales_boxes_within_its_bounds(two, monkeypatch):
    data = with_boxes(two)
    drawn = []
    monkeypatch.setattr(RandFineCropsd, "_crop", lambda _self, _case, _proposal, box, _rough: drawn.append(box) or {})
    crops(data, samples=200, shift=0.2, scale=0.1)
    originals = {b.components: b.box for b in data["proposal"].boxes}
    for box in drawn:
        before = originals[box.components]
        for axis, n in enumerate(before.shape):
            assert abs(box.box.start[axis] - before.start[axis]) <= 0.3 * n + 1
            assert abs(box.box.stop[axis] - before.stop[axis]) <= 0.3 * n + 1
    assert {b.components for b in drawn} == set(originals)
    assert len({b.box for b in drawn}) > 150
    drawn.clear()
    crops(data, samples=20, shift=0, scale=0)
    assert {b.box for b in drawn} == set(originals.values())


def test_jitter_never_leaves_the_image(two, monkeypatch):
    drawn = []
    monkeypatch.setattr(RandFineCropsd, "_crop", lambda _self, _case, _proposal, box, _rough: drawn.append(box.box) or {})
    crops(with_boxes(two), samples=200, shift=3.0, scale=0.9)
    assert all(Box.of(SHAPE).contains(b) and not b.is_empty() for b in drawn)


def test_the_seed_decides(two):
    data = with_boxes(two)
    one, same, other = (np.stack([c["image"] for c in crops(data, seed, samples=4)]) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_validation_takes_each_box_once_and_is_the_same_every_time(two):
    data = with_boxes(two)
    transform = RandFineCropsd(FINE, POLICY, samples=None)
    first, second = transform(data), transform(data)
    assert len(first) == len(data["proposal"].boxes) == 2
    for one, again in zip(first, second, strict=True):
        np.testing.assert_array_equal(one["image"], again["image"])
        np.testing.assert_array_equal(one["label"], again["label"])


def test_a_case_without_objects_gives_crops_without_objects(write_case):
    data = with_boxes(OpenCased()(write_case(np.zeros(SHAPE))))
    assert data["proposal"].boxes == []
    found = crops(data, samples=3)
    assert len(found) == 3
    assert not any(c["label"].any() for c in found)


def test_validation_of_a_case_without_objects_is_the_same_every_time(write_case, write_nifti):
    data = write_case(np.zeros(SHAPE))
    data["image"] = str(write_nifti("noise.nii", np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)))
    transform = RandFineCropsd(FINE, POLICY, samples=None)
    case = with_boxes(OpenCased()(data))
    (first,), (second,) = transform(case), transform(case)
    np.testing.assert_array_equal(first["image"], second["image"])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_negatives_show_other_places_as_often_as_was_asked(two, share, monkeypatch):
    drawn = []
    monkeypatch.setattr(RandFineCropsd, "_crop", lambda _self, _case, _proposal, box, _rough: drawn.append(box) or {})
    crops(with_boxes(two), samples=300, negatives=share)
    elsewhere = [b for b in drawn if not b.components]
    assert abs(len(elsewhere) / 300 - share) < 0.1
    assert {b.box.shape for b in elsewhere} <= {FINE.size}


def test_negatives_are_labelled_with_what_is_there(two):
    for sample in crops(with_boxes(two), samples=30, negatives=1.0):
        assert_label_is_where_the_image_is_bright(sample)


@pytest.mark.parametrize("gap", [6, 10])
def test_the_target_is_everything_or_the_boxs_own_component(gap, write_case):
    objects = [near(np.array([[x, 20.0, 18]]), 6, SHAPE) for x in (14, 26 + gap)]
    data = with_boxes(OpenCased()(write_case(objects[0] | objects[1])), BoxPolicy(margin_mm=14, merge=False))
    boxes = data["proposal"].boxes
    assert len(boxes) == 2
    policy = BoxPolicy(margin_mm=14, merge=False)
    everything, own = (crops(data, policy=policy, samples=None, target=t) for t in ("foreground", "component"))
    for box, whole, part in zip(boxes, everything, own, strict=True):
        mine = next(o for o in objects if data["proposal"].ids[tuple(np.array(np.argwhere(o).mean(0) // 4, int))] in box.components)
        label = resample(mine[None][(slice(None), *box.box.slices)], FINE.size) > 0.5
        np.testing.assert_array_equal(part["label"], label)
        assert whole["label"].sum() > part["label"].sum() > 0
        np.testing.assert_array_equal(part["image"], whole["image"])


def test_a_crop_that_jitter_took_off_its_component_has_an_empty_target(two, monkeypatch):
    data = with_boxes(two)
    mine, other = data["proposal"].boxes
    monkeypatch.setattr(RandFineCropsd, "_jittered", lambda _self, box, _shape: next(b.box for b in (mine, other) if b.box != box))
    for sample in crops(data, samples=6, target="component"):
        assert not sample["label"].any()
        assert (sample["image"] > 50).any()
    monkeypatch.setattr(RandFineCropsd, "_jittered", lambda _self, _box, _shape: Box((0, 30, 28), (6, 40, 36)))
    assert not any(s["label"].any() for s in crops(data, samples=2, target="component"))


def test_classes_are_kept_in_fine_crops(write_case):
    label = TWO.astype(np.uint8)
    label[24:] *= 2
    data = with_boxes(OpenCased(foreground=False, out_channels=3)(write_case(label)))
    for target in ("foreground", "component"):
        found = crops(data, samples=None, out_channels=3, target=target)
        assert sorted(c["label"].unique().tolist() for c in found) == [[0, 1], [0, 2]]


def test_voxels_that_are_no_numbers_are_refused(write_case, write_nifti):
    data = write_case(TWO)
    broken = (100 * TWO).astype(np.float32)
    broken[12, 12, 10:14] = np.nan
    data["image"] = str(write_nifti("broken.nii", broken))
    case = OpenCased()(data)
    with pytest.raises(ValueError, match=r"broken.nii: voxels must be finite, got 4 NaN or infinite$"):
        RoughSampled(ROUGH)(case)
    with pytest.raises(ValueError, match=r"broken.nii: voxels must be finite, got 4 NaN or infinite in Box"):
        crops(with_boxes(case), samples=None)


def test_an_unknown_target_is_refused():
    with pytest.raises(ValueError, match=r"target must be one of \('foreground', 'component'\), got 'objects'"):
        RandFineCropsd(FINE, POLICY, target="objects")


def test_depth_one_crops_are_those_of_their_slice(write_case):
    flat = TWO[:, :, 17:18] | TWO[:, :, 12:13]
    rough, fine = Stage((12, 10, 1)), Stage((16, 16, 1))
    data = with_boxes(OpenCased()(write_case(flat)), rough=rough, fine=fine)
    for sample in crops(data, stage=fine, samples=10, negatives=0.3, shift=0.3, scale=0.3):
        assert sample["image"].shape == (1, 16, 16, 1)
        assert_label_is_where_the_image_is_bright(sample)


def test_they_run_in_monais_data_loaders(write_case):
    set_determinism(0)
    transform = Compose([OpenCased(), FineBoxesd(ROUGH, FINE, POLICY), RandFineCropsd(FINE, POLICY, samples=2), augmentation(FINE.size)])
    dataset = CacheDataset([write_case(TWO)] * 2, transform, copy_cache=False, progress=False)
    batches = list(DataLoader(dataset, batch_size=2, collate_fn=list_data_collate))
    set_determinism(None)
    (batch,) = batches
    assert batch["image"].shape == batch["label"].shape == (4, 1, *FINE.size)
    assert batch["label"].unique().tolist() == [0, 1]


# --- augmentation ------------------------------------------------------------


def sample_of(size, label=None):
    if label is None:
        label = near(np.array([[(n - 1) / 2 for n in size]]), 5, size)
    label = torch.from_numpy(label[None].astype(np.float32))
    return {"image": MetaTensor(label * 2 - 1), "label": MetaTensor(label)}


def augmented(size, seeds=12, label=None, **options):
    transform = augmentation(size, **options)
    for seed in range(seeds):
        transform.set_random_state(seed)
        yield transform(sample_of(size, label))


SIZES = [(16, 16, 16), (16, 16, 1), (16, 1, 16), (1, 16, 16), (24, 16, 8)]


@pytest.mark.parametrize("size", SIZES)
def test_augmented_samples_keep_size_and_meaning(size):
    for out in augmented(size, mirror_axes=(0, 1, 2)):
        assert out["image"].shape == out["label"].shape == (1, *size)
        assert torch.isfinite(out["image"]).all()
        assert out["label"].unique().tolist() == [0, 1]


@pytest.mark.parametrize("size", SIZES)
def test_image_and_label_are_moved_together(size):
    moved = 0
    for out in augmented(size, strength=0, mirror_axes=(0, 1, 2), shift=0.2, rotation_degrees=25):
        found, label = out["image"].as_tensor() > 0, out["label"].as_tensor() > 0
        assert 2 * (found & label).sum() / (found.sum() + label.sum()) > 0.9
        moved += not torch.equal(label, sample_of(size)["label"].as_tensor() > 0)
    assert moved >= 6


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_on_one_slice_nothing_moves_out_of_the_plane(axis):
    size = tuple(1 if a == axis else 24 for a in range(3))
    # A slice is no thinner after it: what is constant stays so, and the object keeps its area but for the zoom.
    for out in augmented(size, label=np.ones(size, bool), strength=0):
        torch.testing.assert_close(out["image"].as_tensor(), torch.ones(1, *size))
    area = float(sample_of(size)["label"].sum())
    for out in augmented(size, strength=0, scale=0, shift=0.1, rotation_degrees=60):
        assert abs(float(out["label"].sum()) / area - 1) < 0.1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_turns_in_its_plane(axis):
    size = tuple(1 if a == axis else 24 for a in range(3))
    bar = np.zeros((24, 24), bool)
    bar[10:14, 3:21] = True
    tilts = []
    for out in augmented(size, label=bar.reshape(size), strength=0, scale=0, shift=0, rotation_degrees=40):
        at = np.argwhere(out["label"][0].numpy().squeeze() > 0)
        (a, b), (_, c) = np.cov(at.T)
        tilts.append(np.degrees(0.5 * np.arctan2(2 * b, c - a)))
    assert max(np.abs(tilts)) > 15
    assert max(np.abs(tilts)) < 45


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_nothing_moves_along_a_fixed_axis(axis):
    size = (16, 14, 12)
    ramps = torch.stack([r.float() for r in torch.meshgrid(*map(torch.arange, size), indexing="ij")])
    change = augmentation(size, shift=0.2, rotation_degrees=30, strength=0, fixed_axis=axis).set_random_state(1)
    changes = [change({"image": MetaTensor(ramps), "label": MetaTensor(ramps[:1])})["image"].as_tensor() for _ in range(5)]
    for found in changes:
        torch.testing.assert_close(found[axis], ramps[axis], atol=1e-3, rtol=0)
    assert all((changes[-1][other] - ramps[other]).abs().max() > 0.5 for other in range(3) if other != axis)


def test_axes_of_one_voxel_are_never_mirrored():
    for size, axes in product([(16, 16, 1), (1, 16, 16)], [(0, 1, 2), (2,), ()]):
        flips = [t.flipper.spatial_axis for t in augmentation(size, mirror_axes=axes).transforms if isinstance(t, RandFlipd)]
        assert flips == [a for a in axes if size[a] > 1]


def test_no_strength_leaves_intensities_alone():
    for out in augmented((16, 16, 16), strength=0, shift=0, scale=0, shear=0, rotation_degrees=0):
        torch.testing.assert_close(out["image"].as_tensor(), sample_of((16, 16, 16))["image"].as_tensor(), atol=1e-4, rtol=0)
    changed = [out["image"].std() for out in augmented((16, 16, 16), strength=1)]
    assert len({round(float(s), 3) for s in changed}) > 6


# --- predictions, and the rough channel --------------------------------------


def predicted(case, *corners):
    """Data with a prediction that has cubes of 2 rough voxels at these corners."""
    probability = np.zeros((1, *ROUGH.size), np.float16)
    for corner in corners:
        probability[(0, *(slice(c, c + 2) for c in corner))] = 0.75
    data = {"case": replace(case["case"], id="a")}
    return FineBoxesd(ROUGH, FINE, POLICY, {"a": probability})(data)


def test_boxes_come_from_the_prediction_as_often_as_was_asked(two, monkeypatch):
    data = predicted(two, (0, 6, 0))
    [false] = [b.box for b in data["predicted"].boxes]
    assert false not in [b.box for b in data["proposal"].boxes]
    drawn = []
    monkeypatch.setattr(RandFineCropsd, "_crop", lambda _self, _case, _proposal, box, _rough: drawn.append(box.box) or {})
    for chance in (0.0, 0.5, 1.0):
        drawn.clear()
        crops(data, samples=400, shift=0, scale=0, predicted=chance)
        assert np.mean([box == false for box in drawn]) == pytest.approx(chance, abs=0.06)


def test_a_false_box_teaches_that_nothing_is_there(two):
    data = predicted(two, (10, 0, 0))
    for sample in crops(data, samples=5, predicted=1.0, target="component"):
        assert not sample["label"].any()


def test_without_a_prediction_there_is_no_predicted_box(two):
    with pytest.raises(ValueError, match=r"image\.nii: predicted_boxes=0.5 needs a prediction for each training case"):
        crops(with_boxes(two), samples=50, predicted=0.5)


def test_where_the_prediction_found_nothing_boxes_come_from_ground_truth(two):
    data = predicted(two)
    assert data["predicted"].boxes == []
    assert all(sample["label"].any() for sample in crops(data, samples=5, predicted=1.0))


def test_a_prediction_of_another_rough_size_is_refused(two):
    with pytest.raises(ValueError, match=r"prediction must have the rough size \(12, 10, 9\), got \(6, 5, 9\)"):
        FineBoxesd(ROUGH, FINE, POLICY, {"": np.zeros((1, 6, 5, 9), np.float16)})(two)


SEEING = Stage(FINE.size, rough_channel=True)


def test_the_rough_channel_of_training_is_that_of_inference(two):
    """The prediction is what a rough network would say: then validation crops are what the fine network sees."""
    case = two["case"].image
    proposer = NetworkProposer(Threshold(30, 0.1), ROUGH, POLICY, FINE.size)
    classes = proposer.classes(case)
    data = FineBoxesd(ROUGH, FINE, POLICY, {"": classes})(two)
    samples = [AppendRoughd()(s) for s in crops(data, stage=SEEING, samples=None)]
    fine = Witness(Threshold(50))
    stage = FineStage(fine, SEEING, FinePolicy(border_growth=0, batch_size=8))
    stage.paint(case, replace(proposer.propose(case), boxes=data["proposal"].boxes), Canvas(SHAPE, 2))
    torch.testing.assert_close(torch.cat(fine.inputs), torch.stack([s["image"].as_tensor() for s in samples]))
    assert fine.inputs[0].shape[1] == 2


def test_without_a_prediction_the_channel_is_ground_truth_on_the_rough_grid(two):
    sample, *_ = crops(with_boxes(two), stage=SEEING, samples=None)
    assert sample["rough"].shape == sample["label"].shape
    inside, outside = sample["rough"][sample["label"] > 0].mean(), sample["rough"][sample["label"] == 0].mean()
    assert 0.6 < inside <= 1
    assert outside < 0.25


def test_the_channel_moves_with_the_image_and_keeps_its_intensities(two):
    data = with_boxes(two)
    sample, *_ = crops(data, stage=SEEING, samples=1, corruption=0)
    change = augmentation(FINE.size, mirror_axes=[0, 1, 2]).set_random_state(3)
    sample["image"] = sample["rough"].clone() * 100
    for _ in range(5):
        out = AppendRoughd()(change(dict(sample)))
        assert out["image"].shape == (2, *FINE.size)
        image, rough = out["image"].as_tensor()
        assert 0 <= rough.min() <= rough.max() <= 1
        assert np.corrcoef(image.flatten(), rough.flatten())[0, 1] > 0.7


def test_augmentation_without_a_rough_channel_is_as_before(two):
    sample, *_ = crops(with_boxes(two))
    assert set(augmentation(FINE.size, mirror_axes=[0])(dict(sample))) == {"image", "label"}


def test_a_picture_of_0_and_255_is_a_label_of_two_classes_and_a_jpeg_is_none(tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    mask = np.zeros((20, 30), np.uint8)
    mask[5:9, 3:20] = 255
    for name in ("a.png", "a.jpg"):
        sitk.WriteImage(sitk.GetImageFromArray(mask), str(tmp_path / name))
    opened = OpenCased(foreground=False, out_channels=2)({"image": tmp_path / "a.png", "label": tmp_path / "a.png"})["case"]
    assert np.count_nonzero(opened.label == 1) == np.count_nonzero(mask)
    with pytest.raises(ValueError, match=r"a.png: labels must be below out_channels=3, .* got 255"):
        OpenCased(foreground=False, out_channels=3)({"image": tmp_path / "a.png", "label": tmp_path / "a.png"})
    with pytest.raises(ValueError, match=r"a.jpg: a label must be stored without loss"):
        OpenCased()({"image": tmp_path / "a.png", "label": tmp_path / "a.jpg"})


# --- rare classes and small objects ------------------------------------------


def test_a_rare_class_is_drawn_as_often_as_a_common_one():
    label = np.zeros((40, 40, 40), np.uint8)
    label[:20] = 1
    label[30, 30, 30] = 2
    case = OpenCase(ArrayVolume(np.zeros((1, 40, 40, 40), np.float32), Grid(label.shape)), label)
    stage, policy = Stage((8, 8, 8)), BoxPolicy(max_downscale=1.0)
    drawn = FineBoxesd(None, stage, policy, balance=True)({"case": case})
    crops = RandFineCropsd(stage, policy, samples=400, balance=1.0, out_channels=3).set_random_state(0)(drawn)
    share = np.mean([(crop["label"] == 2).any() for crop in crops])
    assert 0.4 < share < 0.6
    plain = RandFineCropsd(stage, policy, samples=400, out_channels=3).set_random_state(0)(drawn)
    assert np.mean([(crop["label"] == 2).any() for crop in plain]) < 0.1


def test_an_object_smaller_than_a_rough_voxel_counts_from_its_share():
    label = np.zeros((8, 8, 8), np.uint8)
    label[:2, :4, :3] = 2  # 24 of the 64 voxels of a cell
    assert not label_tensor(label, (2, 2, 2), 3).any()
    assert not label_tensor(label, (2, 2, 2), 3, least_share=0.4).any()
    assert label_tensor(label, (2, 2, 2), 3, least_share=0.375)[0, 0, 0, 0] == 2
    label[2:4, :2, :2] = 1  # 8 of them
    assert label_tensor(label, (2, 2, 2), 3, least_share=0.5)[0, 0, 0, 0] == 0
    assert label_tensor(label, (2, 2, 2), 3, least_share=0.49)[0, 0, 0, 0] == 2
