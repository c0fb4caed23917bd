"""The inferer's contract: what goes in, what comes out, and that neither container, storage, batch nor autocast changes a voxel."""

from __future__ import annotations

import re
import tracemalloc
from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK
import torch
from monai.data import MetaTensor, list_data_collate
from monai.inferers import Inferer
from scipy import ndimage
from torch import nn

from stseg3d.geometry import Grid
from stseg3d.inference import BoxProposer, FinePolicy, NetworkProposer, SegmentThenSegmentInferer, Stage
from stseg3d.networks import RoughFineNet, SqueezeDepth
from stseg3d.ops import BoxPolicy
from stseg3d.ops.resample import resample, slabs
from stseg3d.plan import ImageView
from stseg3d.volumes import ArrayVolume, as_volume, open_volume
from tests.inference.fakes import Bands, Threshold, Witness, dice, networks, pipeline, volume_of
from tests.phantoms import image_of, many_objects, near

SHAPE = (40, 36, 32)
ROUGH, FINE = (20, 18, 16), (12, 12, 12)
POLICY = BoxPolicy(margin_fraction=0)


@pytest.fixture(scope="module")
def image():
    """Twelve small objects."""
    return many_objects(SHAPE, 12)[0]


@pytest.fixture(scope="module")
def expected(image):
    found = pipeline(ROUGH, FINE, POLICY).segment(volume_of(image), networks())
    assert found.counts["found"] == 12
    assert dice(found.labels, image > 50) > 0.9
    return found.labels


def call(inputs, network=None, **options):
    return pipeline(ROUGH, FINE, POLICY, **options)(inputs, network or networks())


# --- one path ----------------------------------------------------------------


def test_tensor_array_file_and_volume_give_bit_identical_labels(image, expected, write_nifti):
    sources = {
        "volume": volume_of(image),
        "array": image,
        "tensor": torch.from_numpy(image)[None],
        "MetaTensor": MetaTensor(torch.from_numpy(image)[None], affine=torch.eye(4)),
        ".nii": write_nifti("a.nii", image),
        ".nii.gz": write_nifti("b.nii.gz", image),
        "SimpleITK": SimpleITK.GetImageFromArray(np.ascontiguousarray(image.T)),
    }
    sources["SimpleITK"].SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))  # the world's axes, in LPS
    for name, source in sources.items():
        labels = pipeline(ROUGH, FINE, POLICY).segment(open_volume(source), networks()).labels
        np.testing.assert_array_equal(labels, expected, err_msg=name)
    for inputs in (torch.from_numpy(image)[None, None], sources["MetaTensor"][None]):
        np.testing.assert_array_equal(np.asarray(call(inputs))[0, 0], expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float64])
def test_the_type_of_the_voxels_makes_no_difference(image, dtype):
    whole = image.clip(0, 255).round()
    found = [pipeline(ROUGH, FINE, POLICY).segment(volume_of(whole.astype(t)), networks()).labels for t in (np.float32, dtype)]
    np.testing.assert_array_equal(*found)


def test_it_is_one_of_monais_inferers(image, expected):
    inferer = pipeline(ROUGH, FINE, POLICY)
    assert isinstance(inferer, Inferer)
    labels = inferer(torch.from_numpy(image)[None, None], networks(), "more", mode="of", a="contract")
    np.testing.assert_array_equal(labels[0, 0], expected)


def test_asking_twice_gives_the_same_and_leaves_the_input_alone(image, expected):
    inputs = torch.from_numpy(image.copy())[None, None]
    inferer, network = pipeline(ROUGH, FINE, POLICY), networks()
    for _ in range(2):
        np.testing.assert_array_equal(inferer(inputs, network)[0, 0], expected)
    np.testing.assert_array_equal(inputs[0, 0], image)


# --- containers --------------------------------------------------------------


def test_a_plain_tensor_gives_a_plain_tensor(image):
    out = call(torch.from_numpy(image)[None, None])
    assert type(out) is torch.Tensor
    assert (out.dtype, out.shape) == (torch.uint8, (1, 1, *SHAPE))
    assert not out.requires_grad


def test_a_metatensor_gives_a_metatensor_with_its_affine_and_file(image, expected):
    affine = torch.tensor([[0.0, 2, 0, 5], [-3, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]], dtype=torch.float64)
    inputs = MetaTensor(torch.from_numpy(image)[None], affine=affine, meta={"filename_or_obj": "a/case.nii.gz"})
    out = call(list_data_collate([{"image": inputs}])["image"])
    assert isinstance(out, MetaTensor)
    assert (out.dtype, out.shape) == (torch.uint8, (1, 1, *SHAPE))
    torch.testing.assert_close(out[0].affine, affine)
    assert out[0].meta["filename_or_obj"] == "a/case.nii.gz"


def test_each_image_of_a_batch_has_its_own_affine(image):
    turned = torch.diag(torch.tensor([-1.0, 1, -1, 1], dtype=torch.float64))
    single = [MetaTensor(torch.from_numpy(image)[None], affine=a) for a in (torch.eye(4, dtype=torch.float64), turned)]
    inferer = pipeline(ROUGH, FINE, POLICY, kind="instances", number_from="S")
    both = inferer(list_data_collate(single), networks())
    assert both.shape == (2, 1, *SHAPE)
    for one, found in zip(single, both, strict=True):
        np.testing.assert_array_equal(found, inferer(one[None], networks())[0])
    assert not torch.equal(both[0].as_tensor(), both[1].as_tensor())  # the top of one is the bottom of the other


def test_several_channels_are_read_together(image, expected):
    inputs = torch.from_numpy(np.stack([image, np.zeros_like(image)]))[None]
    network = RoughFineNet(Witness(Threshold(25)), Witness(Threshold(50)))
    np.testing.assert_array_equal(call(inputs, network, channels=2)[0, 0], expected)
    assert {x.shape[1] for x in network.rough.inputs + network.fine.inputs} == {2}


def test_probabilities_are_those_of_the_foreground(image, expected):
    out = call(torch.from_numpy(image)[None, None], kind="probabilities")
    assert (out.dtype, out.shape) == (torch.float32, (1, 1, *SHAPE))
    assert 0 <= out.min() <= out.max() <= 1
    np.testing.assert_array_equal(out[0, 0] > 0.5, expected > 0)


def test_probabilities_have_a_channel_for_each_class_but_the_background(image):
    network = RoughFineNet(Threshold(25), Bands(3))
    out = call(torch.from_numpy(2 * image)[None, None], network, kind="probabilities", out_channels=3)
    assert out.shape == (1, 2, *SHAPE)
    labels = call(torch.from_numpy(2 * image)[None, None], network, out_channels=3)
    assert labels.unique().tolist() == [0, 1, 2]
    for k in (1, 2):
        assert set(labels[0, 0][out[0, k - 1] > 0.501].tolist()) == {k}
        assert out[0, k - 1][labels[0, 0] == k].min() > 0.33


def test_instances_come_in_a_type_that_holds_them_and_that_torch_can_compute_with(image, expected):
    out = call(torch.from_numpy(image)[None, None], kind="instances")
    assert out.dtype == torch.uint8
    assert out.unique().tolist() == list(range(13))
    np.testing.assert_array_equal(out[0, 0] > 0, expected > 0)
    many = torch.from_numpy(many_objects(SHAPE, 300)[0])
    policy = BoxPolicy(margin_fraction=0, margin_rough_voxels=1)
    batch = torch.stack([many, torch.from_numpy(image)])[:, None]
    out = pipeline(SHAPE, (8, 8, 8), policy, kind="instances")(batch, networks(rough_level=50))
    assert out.dtype == torch.int32
    assert [int(o.max()) for o in out] == [300, 12]


# --- storage -----------------------------------------------------------------


@pytest.fixture(scope="module")
def scan():
    """Objects on an anisotropic grid, with the labels, instances and probabilities they get."""
    centres = np.array([[4, 5, 3], [15, 6, 12], [6, 19, 8], [18, 20, 4], [17, 13, 15]], float)
    image = image_of(near(centres, 3, (22, 26, 18)))[0]
    grid = Grid(image.shape, np.array([[0.8, 0, 0, -7], [0, 1, 0, 3], [0, 0, 2.5, 11], [0, 0, 0, 1]]))
    return image, grid


def everything(array, grid):
    """Labels, instances numbered from the top, and probabilities."""
    volume = ArrayVolume(array[None], grid)
    for output in ("labels", "instances", "probabilities"):
        inferer = pipeline((11, 13, 9), (8, 10, 6), BoxPolicy(margin_mm=1.5), kind=output, number_from="S")
        found = inferer.segment(volume, networks())
        yield found.labels if found.probabilities is None else found.probabilities[0]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_turned_and_mirrored_storage_gives_bit_identical_results_in_the_world(scan, order):
    image, grid = scan
    expected = list(everything(image, grid))
    assert expected[1].max() == 5
    for flips in product((False, True), repeat=3):
        stored = image.transpose(order)[tuple(slice(None, None, -1 if f else 1) for f in flips)]
        for found, due in zip(everything(stored, grid.view(order, flips)), expected, strict=True):
            turned = due.transpose(order)[tuple(slice(None, None, -1 if f else 1) for f in flips)]
            np.testing.assert_array_equal(found, turned)


def test_oblique_axes_are_taken_for_the_nearest_of_the_world(scan):
    image, grid = scan
    a, b = np.radians(25), np.radians(-15)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    turn = np.eye(4)
    turn[:3, :3] = about_z @ about_x
    for order, flips in [((0, 1, 2), (False, False, False)), ((2, 0, 1), (True, False, True))]:
        straight = grid.view(order, flips)
        stored = image.transpose(order)[tuple(slice(None, None, -1 if f else 1) for f in flips)]
        for found, due in zip(everything(stored, Grid(straight.shape, turn @ straight.affine)), everything(stored, straight), strict=True):
            np.testing.assert_array_equal(found, due)


def test_without_axcodes_the_file_order_counts(scan):
    image, grid = scan
    turned = grid.view((2, 1, 0), (True, False, True))
    stored = np.ascontiguousarray(image.transpose(2, 1, 0)[::-1, :, ::-1])
    plain = pipeline((9, 13, 11), (6, 10, 8), POLICY, axcodes=None).segment(volume_of(stored, spacing_mm=turned.spacing_mm), networks())
    found = pipeline((9, 13, 11), (6, 10, 8), POLICY, axcodes=None).segment(ArrayVolume(stored[None], turned), networks())
    np.testing.assert_array_equal(found.labels, plain.labels)
    assert [b.box for b in found.boxes] == [b.box for b in plain.boxes]


def test_boxes_are_told_in_the_axes_of_the_file(scan):
    image, grid = scan
    order, flips = (1, 2, 0), (True, False, True)
    stored = image.transpose(order)[::-1, :, ::-1]
    inferer = pipeline((11, 13, 9), (8, 10, 6), BoxPolicy(margin_mm=1.5))
    found = inferer.segment(ArrayVolume(stored[None], grid.view(order, flips)), networks())
    covered = np.zeros(stored.shape, bool)
    for box in found.boxes:
        assert (stored[box.box.slices] > 50).any()
        covered[box.box.slices] = True
    assert covered[stored > 50].all()


# --- depth 1 -----------------------------------------------------------------


class Blur(nn.Module):
    """Thresholds the mean of each pixel's neighbours: a network that looks around."""

    def __init__(self, level, axes):
        super().__init__()
        self.threshold = Threshold(level)
        self.pool = {2: nn.functional.avg_pool2d, 3: nn.functional.avg_pool3d}[axes]

    def forward(self, x):
        return self.threshold(self.pool(x, 3, 1, 1))


@pytest.fixture(scope="module")
def slice_image():
    return many_objects((60, 50, 4), 40, seed=2)[0][:, :, 1]


def test_a_volume_of_depth_one_gives_the_true_2d_result(slice_image):
    for policy in (POLICY, BoxPolicy(max_downscale=0.6, margin_mm=2), BoxPolicy(keep_aspect=True)):
        flat_nets = RoughFineNet(Blur(20, 2), Blur(50, 2))
        deep_nets = RoughFineNet(SqueezeDepth(Blur(20, 2)), SqueezeDepth(Blur(50, 2)))
        flat = SegmentThenSegmentInferer(Stage((30, 25)), Stage((14, 12)), policy, image=ImageView(axcodes=None))
        deep = SegmentThenSegmentInferer(Stage((30, 25, 1)), Stage((14, 12, 1)), policy)
        two = flat.segment(ArrayVolume(slice_image[None], Grid(slice_image.shape)), flat_nets)
        three = deep.segment(volume_of(slice_image[..., None]), deep_nets)
        assert two.labels.any()
        np.testing.assert_array_equal(three.labels[..., 0], two.labels)
        assert three.counts == two.counts
        assert [(*b.box.start, 0) for b in two.boxes] == [b.box.start for b in three.boxes]
        assert {b.box.shape[2] for b in three.boxes} == {1}


def test_a_2d_tensor_gives_2d_labels(slice_image):
    deep_nets = RoughFineNet(SqueezeDepth(Blur(20, 2)), SqueezeDepth(Blur(50, 2)))
    inferer = SegmentThenSegmentInferer(Stage((30, 25, 1)), Stage((14, 12, 1)))
    flat = inferer(torch.from_numpy(slice_image)[None, None], deep_nets)
    deep = inferer(torch.from_numpy(slice_image)[None, None, ..., None], deep_nets)
    assert flat.shape == (1, 1, 60, 50)
    np.testing.assert_array_equal(flat, deep[..., 0])
    assert flat.any()


# --- pictures ----------------------------------------------------------------


class Brighter(nn.Module):
    """Foreground where the mean of the three colours, standardised, lies above ``level``; refuses other inputs."""

    def __init__(self, level):
        super().__init__()
        self.threshold = Threshold(level)

    def forward(self, x):
        assert x.shape[1] == 3
        return self.threshold(x.mean(dim=1, keepdim=True))


def pictures(**options):
    """A pipeline for pictures, and its networks: depth 1 around networks of two axes."""
    policy = BoxPolicy(margin_fraction=0.2, min_downscale=1)
    network = RoughFineNet(SqueezeDepth(Brighter(0.2)), SqueezeDepth(Brighter(0.9)))
    return pipeline((32, 32, 1), (24, 24, 1), policy, channels=3, colour=True, standardize=True, **options), network


@pytest.fixture(scope="module")
def nuclei():
    """Two discs that touch, one apart, one at the edge; bright on grey, (x, y)."""
    centres = np.array([[20, 20], [20, 33], [50, 60], [79, 40]], float)
    return (40 + 160 * near(centres, 7, (80, 90))).astype(np.uint8)


def storages(nuclei):
    """The same picture in every number of channels."""
    alpha = np.linspace(0, 255, nuclei.size).reshape(nuclei.shape).astype(np.uint8)
    return {"grey": [nuclei], "grey, alpha": [nuclei, alpha], "RGB": [nuclei] * 3, "RGBA": [nuclei] * 3 + [alpha]}


def test_a_picture_has_the_same_labels_however_its_colours_are_stored(nuclei, tmp_path):
    inferer, network = pictures(kind="instances", neck_depth_mm=0.75)
    found = {}
    for name, channels in storages(nuclei).items():
        stack = np.stack(channels)
        found[name] = inferer.segment(ArrayVolume(stack[..., None], Grid((*nuclei.shape, 1))), network).labels[..., 0]
        if len(stack) != 2:
            path = tmp_path / f"{len(stack)}.png"
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(stack.transpose(2, 1, 0).squeeze(), isVector=len(stack) > 1), str(path))
            found[f"{name}, file"] = inferer.segment(open_volume(path), network).labels[..., 0]
        for tensor in (torch.from_numpy(stack), torch.from_numpy(stack)[..., None], MetaTensor(torch.from_numpy(stack).float())):
            out = inferer(tensor[None], network)
            assert out.shape == (1, 1, *tensor.shape[1:])
            found[f"{name}, {type(tensor).__name__} {tensor.ndim}"] = np.asarray(out).reshape(nuclei.shape)
    assert len(found) == 4 * 4 + 3
    assert found["RGB"].max() == 4
    for name, labels in found.items():
        np.testing.assert_array_equal(labels, found["RGB"], err_msg=name)
    assert dice(found["RGB"], nuclei > 100) > 0.95


def test_a_picture_of_five_channels_is_refused(nuclei):
    inferer, network = pictures()
    with pytest.raises(ValueError, match=r"^array: a picture must have at most 4 channels \(RGBA\), got 5$"):
        inferer(torch.from_numpy(np.stack([nuclei] * 5))[None], network)


def test_the_scale_of_standardised_intensities_makes_no_difference(nuclei):
    inferer, network = pictures()
    found = [inferer(torch.from_numpy(image)[None, None], network) for image in (nuclei, nuclei.astype(np.float32) * 200 + 7)]
    np.testing.assert_array_equal(*found)
    assert found[0].any()


def test_each_image_is_standardised_by_itself_and_whole(nuclei):
    inferer, network = pictures()
    network.fine = Witness(network.fine)
    inferer(torch.from_numpy(np.stack([nuclei, nuclei // 2]))[:, None], network)
    sizes = [len(x) for x in network.fine.inputs]
    crops = torch.cat(network.fine.inputs)
    torch.testing.assert_close(crops[: sum(sizes) // 2], crops[sum(sizes) // 2 :], atol=2e-2, rtol=0)
    whole = (nuclei - nuclei.mean()) / nuclei.std()
    assert crops.min() == pytest.approx(whole.min(), abs=1e-3)  # not the crop's own mean and spread
    assert crops.max() == pytest.approx(whole.max(), abs=1e-3)


def test_a_picture_with_a_voxel_that_is_no_number_is_refused(nuclei):
    inferer, network = pictures()
    broken = torch.from_numpy(nuclei.astype(np.float32))[None, None]
    broken[0, 0, 3, 4] = float("nan")
    with pytest.raises(ValueError, match=r"^array: voxels must be finite, got 3 NaN or infinite$"):
        inferer(broken, network)


@pytest.mark.parametrize(("depth", "count"), [(None, 3), (0.75, 4), (9, 3)])
def test_instances_that_touch_are_split_at_their_necks_where_asked(nuclei, depth, count):
    inferer, network = pictures(kind="instances", neck_depth_mm=depth)
    labels = inferer(torch.from_numpy(nuclei)[None, None], network)
    assert labels.unique().tolist() == list(range(count + 1))


def test_necks_of_pictures_are_measured_in_pixels_of_volumes_in_mm(nuclei):
    for spacing, of_volume in [(1.0, 4), (0.0847, 3)]:  # 300 dpi
        volume = ArrayVolume(nuclei[None, ..., None], Grid((*nuclei.shape, 1), spacing_mm=(spacing, spacing, 1)))
        inferer, network = pictures(kind="instances", neck_depth_mm=0.75)
        assert inferer.segment(volume, network).labels.max() == 4
        deep = pipeline((32, 32, 1), (24, 24, 1), POLICY, kind="instances", neck_depth_mm=0.75)
        assert deep.segment(volume, networks(60, 120)).labels.max() == of_volume


# --- batches and precision ---------------------------------------------------


@pytest.mark.parametrize("fine_policy", [{}, {"only_proposed": True}, {"border_growth": 0}, {"fusion": "max"}])
def test_the_size_of_a_batch_makes_no_difference(image, fine_policy):
    found = []
    for size in (1, 3, 8, 100):
        network = RoughFineNet(Blur(2.5, 3), Witness(Blur(50, 3)))
        inferer = pipeline(ROUGH, FINE, BoxPolicy(margin_fraction=0, margin_rough_voxels=0.5), FinePolicy(batch_size=size, **fine_policy))
        result = inferer.segment(volume_of(image), network)
        found.append((result.labels, sorted(b.box for b in result.boxes), result.counts))
        assert max(len(x) for x in network.fine.inputs) <= size
        assert {x.shape[1:] for x in network.fine.inputs} == {(1, *FINE)}
    assert found[0][0].any()
    for labels, boxes, counts in found[1:]:
        np.testing.assert_array_equal(labels, found[0][0])
        assert boxes == found[0][1]
        assert counts == found[0][2]


def test_autocast_around_the_call_changes_nothing(image, expected):
    network = RoughFineNet(Witness(Threshold(25)), Witness(Threshold(50)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        labels = call(torch.from_numpy(image)[None, None], network)
    np.testing.assert_array_equal(labels[0, 0], expected)
    assert set(network.rough.autocast + network.fine.autocast) == {False}


def test_a_lower_precision_is_had_for_the_asking(image, expected):
    network = RoughFineNet(Witness(Threshold(25)), Witness(Threshold(50)))
    labels = call(torch.from_numpy(image)[None, None], network, precision="bfloat16")
    assert set(network.rough.autocast + network.fine.autocast) == {True}
    assert dice(labels[0, 0], expected) > 0.99
    with pytest.raises(ValueError, match=r"precision must be one of \('auto', 'float32', 'bfloat16', 'float16'\), got 'int8'"):
        call(torch.from_numpy(image)[None, None], precision="int8")


@pytest.mark.parametrize("training", [True, False])
def test_networks_run_in_evaluation_mode_and_are_left_as_they_were(image, training):
    network = RoughFineNet(Witness(Threshold(25)), Witness(Threshold(50))).train(training)  # a Witness asserts that it does not train
    call(torch.from_numpy(image)[None, None], network)
    assert [network.training, network.rough.training, network.fine.training] == [training] * 3


# --- what is refused ---------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_no_numbers_are_refused_with_their_count(image, value):
    broken = image.copy()
    broken[3, 4, :5] = value
    with pytest.raises(ValueError, match=r"^array: voxels must be finite, got 5 NaN or infinite$"):
        call(torch.from_numpy(broken)[None, None])


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_with_boxes_given_only_what_is_looked_at_has_to_be_finite(image, value):
    broken = image.copy()
    broken[30:32, 4, 5] = value
    boxes = [Grid((20, 20, 20)).box]
    call(torch.from_numpy(broken)[None, None], proposer=BoxProposer(boxes, POLICY, FINE))
    boxes.append(boxes[0].shift((20, 0, 0)))
    with pytest.raises(ValueError, match=r"^array: voxels must be finite, got 2 NaN or infinite in Box\(start=\(20, 0, 0\)"):
        call(torch.from_numpy(broken)[None, None], proposer=BoxProposer(boxes, POLICY, FINE))


def test_another_number_of_channels_is_refused(image):
    volume = as_volume(torch.from_numpy(np.stack([image, image])))
    inferer = pipeline(ROUGH, FINE, POLICY)
    for run in (inferer.segment, inferer.rough_only):
        with pytest.raises(ValueError, match=r"^array: must have 1 channel\(s\) for these networks, got 2$"):
            run(volume, networks())


def test_another_number_of_classes_is_refused(image):
    with pytest.raises(ValueError, match=r"fine network must return out_channels=2 classes, got 3"):
        call(torch.from_numpy(image)[None, None], RoughFineNet(Threshold(25), Bands(3)))
    with pytest.raises(ValueError, match=r"fine network must return out_channels=3 classes, got 2"):
        call(torch.from_numpy(image)[None, None], out_channels=3)


@pytest.mark.parametrize("stage", ["rough", "fine"])
def test_a_network_that_returns_another_size_is_refused(image, stage):
    network = networks()
    setattr(network, stage, nn.Sequential(nn.MaxPool3d(2), Threshold(25)))
    size = {"rough": ROUGH, "fine": FINE}[stage]
    rule = f"network must return the size it is given, {size} became {tuple(n // 2 for n in size)}"
    with pytest.raises(ValueError, match=re.escape(rule)):
        call(torch.from_numpy(image)[None, None], network)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "mask"}, "output must be one of ('labels', 'instances', 'probabilities') and when_empty"),
        ({"when_empty": "crash"}, "when_empty one of ('empty', 'tile'), got 'labels' and 'crash'"),
        ({"number_from": "top"}, "number_from must be one letter of R L A P S I, got 'top'"),
        ({"number_from": "S", "axcodes": None}, "number_from needs axcodes, got 'S' with axcodes=None"),
    ],
)
def test_unknown_options_are_refused(options, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        pipeline(ROUGH, FINE, **options)


# --- the rough network alone -------------------------------------------------


@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_rough_only_is_the_rough_foreground_upsampled_and_cut_at_a_half_whatever_the_policy(image, threshold):
    policy = BoxPolicy(threshold=threshold)
    soft = RoughFineNet(Threshold(25, steepness=0.1), Threshold(50))
    inferer = pipeline((10, 9, 8), FINE, policy)
    found = inferer.rough_only(volume_of(image), soft)
    small = resample(image[None], (10, 9, 8))
    foreground = soft.rough(torch.from_numpy(small)[None]).softmax(1)[0, 1:].detach().numpy()
    slow = resample(foreground, image.shape)[0] >= 0.5
    assert found.dtype == np.uint8
    assert 0 < slow.sum() < slow.size
    np.testing.assert_array_equal(found, slow)


def test_rough_only_comes_back_in_the_axes_of_the_file(scan):
    image, grid = scan
    inferer = pipeline((11, 13, 9), (8, 8, 8))
    due = inferer.rough_only(ArrayVolume(image[None], grid), networks())
    stored = image.transpose(2, 0, 1)[:, ::-1]
    found = inferer.rough_only(ArrayVolume(stored[None], grid.view((2, 0, 1), (False, True, False))), networks())
    np.testing.assert_array_equal(found, due.transpose(2, 0, 1)[:, ::-1])
    assert due.any()


def test_the_rough_foreground_is_one_minus_the_background(image):
    several = NetworkProposer(Bands(3), Stage(ROUGH), POLICY, FINE).classes(volume_of(2 * image)).sum(axis=0)
    small = torch.from_numpy(resample(2 * image[None], ROUGH))
    np.testing.assert_allclose(several, 1 - Bands(3)(small[None]).softmax(1)[0, 0].detach().numpy(), atol=1e-5)


# --- memory ------------------------------------------------------------------


def test_a_file_is_streamed_and_only_labels_are_of_its_size(write_nifti, monkeypatch):
    shape = (160, 160, 160)
    mask = near(np.array([[40.0, 40, 40], [120, 120, 120]]), 8, shape)
    volume = open_volume(write_nifti("large.nii", (100 * image_of(mask)[1]).astype(np.int16)))
    monkeypatch.setitem(slabs.__globals__, "SLAB_VOXELS", 1 << 17)
    inferer = pipeline((40, 40, 40), (32, 32, 32))
    tracemalloc.start()
    found = inferer.segment(volume, networks())
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert dice(found.labels, mask) > 0.97
    assert peak_bytes < 2 * mask.size  # uint8 labels, and less than that for everything else; one float array would be 4


# --- rules for components ----------------------------------------------------

RULED = {"classes": ("background", "object"), "largest_only": ["object"]}


def test_only_the_largest_component_is_kept_where_the_output_says_so_and_the_others_are_counted(image, expected):
    found = pipeline(ROUGH, FINE, POLICY, **RULED).segment(volume_of(image), networks())
    ids, count = ndimage.label(expected, np.ones((3, 3, 3)))
    sizes = np.bincount(ids.ravel())[1:]
    np.testing.assert_array_equal(found.labels > 0, (ids > 0) & np.isin(ids, 1 + np.flatnonzero(sizes == sizes.max())))
    kept = sizes == sizes.max()
    assert found.counts["removed_components"] == count - kept.sum() > 0
    assert found.counts["removed_voxels"] == sizes[~kept].sum()


def test_without_rules_nothing_is_counted_and_with_too_strict_ones_a_warning_tells(image, expected):
    found = pipeline(ROUGH, FINE, POLICY).segment(volume_of(image), networks())
    assert "removed_components" not in found.counts
    strict = pipeline(ROUGH, FINE, POLICY, min_volume_mm3={"foreground": 1e6}).segment(volume_of(image), networks())
    assert not strict.labels.any()
    assert any("the plan's output removed all" in warning for warning in strict.warnings)


def test_objects_are_told_apart_after_the_rules_and_probabilities_are_left_with_a_warning(image, expected):
    found = pipeline(ROUGH, FINE, POLICY, kind="instances", **RULED).segment(volume_of(image), networks())
    labels = pipeline(ROUGH, FINE, POLICY, **RULED).segment(volume_of(image), networks()).labels
    np.testing.assert_array_equal(found.labels > 0, labels > 0)
    found = pipeline(ROUGH, FINE, POLICY, kind="probabilities", **RULED).segment(volume_of(image), networks())
    np.testing.assert_array_equal(found.probabilities[0] > 0.5, expected > 0)
    assert any("are for labels" in warning for warning in found.warnings)


def test_a_rule_for_an_unknown_class_is_refused():
    with pytest.raises(ValueError, match=r"must name foreground or classes of \('object',\), got \['organ'\]"):
        pipeline(ROUGH, FINE, POLICY, classes=("background", "object"), largest_only=["organ"])
