"""File to file with a bundle made on the spot: labels on the file's grid, a JSON that says how they came about, nothing on failure."""

from __future__ import annotations

import csv
import gc
import json
import tracemalloc
import weakref
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

from stseg3d.bundle import save_weights, weights_sha256
from stseg3d.geometry import Box, Grid
from stseg3d.inference import Segmentation, SegmentThenSegmentInferer
from stseg3d.inference import segment as segment_module
from stseg3d.inference.provenance import volumes_ml
from stseg3d.inference.segment import CaseWork, Segmenter
from stseg3d.plan import ImageView, Output
from stseg3d.volumes import ArrayVolume, Case, open_volume
from tests.inference.fakes import dice, networks
from tests.phantoms import image_of, near

SHAPE = (40, 48, 32)
# Stored with axes turned and mirrored: front, up, left.
AFFINE = np.array([[0, 0, -0.8, 12], [1.0, 0, 0, -7], [0, 2.0, 0, 30], [0, 0, 0, 1]])
MASK = near(np.array([[10.0, 12, 10], [28, 34, 22]]), 5, SHAPE)
IMAGE = image_of(MASK)[0]

CONFIG = {
    "bundle_root": ".",
    "device": "$torch.device('cpu')",
    "displayable_configs": {"batch_size": 4, "min_volume_mm3": 0},
    "network_def": {
        "_target_": "stseg3d.networks.RoughFineNet",
        "rough": {"_target_": "tests.inference.fakes.Threshold"},
        "fine": {"_target_": "tests.inference.fakes.Threshold"},
    },
    "inferer": {
        "_target_": "stseg3d.inference.SegmentThenSegmentInferer",
        "rough": {"_target_": "stseg3d.inference.Stage", "size": [8, 10, 12]},
        "fine": {"_target_": "stseg3d.inference.Stage", "size": [24, 24, 24]},
        "policy": {"_target_": "stseg3d.ops.BoxPolicy", "min_volume_mm3": "@displayable_configs#min_volume_mm3"},
        "fine_policy": {"_target_": "stseg3d.inference.FinePolicy", "batch_size": "@displayable_configs#batch_size"},
        "output": "@output",
    },
    "output": {"_target_": "stseg3d.plan.Output", "kind": "instances", "number_from": "S"},
}


def make_bundle(folder, state=None, **config):
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "inference.json").write_text(json.dumps(CONFIG | config))
    (folder / "configs" / "metadata.json").write_text(json.dumps({"version": "0.4.2"}))
    if state is not False:
        save_weights(state or networks().state_dict(), folder / "models" / "model.pt")
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundles") / "balls_segmentation")


@pytest.fixture
def segmenter(bundle):
    return Segmenter(bundle, device="cpu", trust=True)


@pytest.fixture
def scan(write_nifti):
    return write_nifti("scan.nii.gz", IMAGE, AFFINE, qform_code=2)


def labels_of(outcome):
    return np.asarray(nib.load(outcome.output).dataobj)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


# --- what is written ---------------------------------------------------------


def test_labels_and_a_json_beside_them_and_nothing_else(segmenter, scan, tmp_path):
    outcome = segmenter.segment(scan, tmp_path / "new" / "out")
    assert outcome.case_id == "scan"
    assert outcome.output == tmp_path / "new" / "out" / "scan_seg.nii.gz"
    assert names(outcome.output.parent) == ["scan_seg.json", "scan_seg.nii.gz"]
    written = nib.load(outcome.output)
    assert written.shape == SHAPE
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(written.affine, nib.load(scan).affine)
    labels = labels_of(outcome)
    assert dice(labels, MASK) > 0.97
    assert labels[28, 34, 22] == 1  # the second axis runs upwards: instance 1 is the higher one
    assert labels[10, 12, 10] == 2


def test_the_json_says_how_the_labels_came_about(segmenter, bundle, scan, tmp_path):
    outcome = segmenter.segment(scan, tmp_path)
    said = json.loads((tmp_path / "scan_seg.json").read_text())
    assert said == outcome.provenance
    assert {k: said[k] for k in ("case", "input", "output", "kind", "boxes_from")} == {
        "case": "scan",
        "input": str(scan),
        "output": str(outcome.output),
        "kind": "instances",
        "boxes_from": "rough network",
    }
    assert said["grid"] == {"shape": [40, 48, 32], "spacing_mm": [1.0, 2.0, 0.8], "orientation": "ASL", "dtype": "float32"}
    assert said["bundle"] == {
        "name": "balls_segmentation",
        "path": str(bundle),
        "version": "0.4.2",
        "weights_sha256": weights_sha256(bundle),
        "overrides": {},
    }
    assert said["counts"]["found"] == said["counts"]["crops"] == 2
    assert said["device"] == "cpu"
    assert said["dropped"] == said["warnings"] == []
    assert said["peak_memory_bytes"] > 2**20
    assert set(said["seconds"]) == {"open", "rough", "fine", "instances", "write", "total"}
    assert said["seconds"]["total"] == pytest.approx(sum(v for k, v in said["seconds"].items() if k != "total"), abs=1e-3)
    assert set(said["versions"]) >= {"python", "stseg3d", "torch", "monai", "numpy", "nibabel"}
    assert all(said["versions"].values())


def test_the_rough_map_is_kept_on_the_rough_grid_where_asked_for(segmenter, scan, tmp_path):
    outcome = segmenter.segment(scan, tmp_path / "out", keep_rough=True)
    assert names(tmp_path / "out") == ["scan_rough.nii.gz", "scan_seg.json", "scan_seg.nii.gz"]
    rough = nib.load(tmp_path / "out" / "scan_rough.nii.gz")
    assert (rough.shape, rough.get_data_dtype()) == ((8, 10, 12), np.uint8)
    assert outcome.provenance["rough"] == {"path": str(tmp_path / "out" / "scan_rough.nii.gz"), "threshold": 0.5}
    # Where the rough map is certain, in the world, the label is.
    voxels = np.argwhere(rough.get_fdata() > 250) @ rough.affine[:3, :3].T + rough.affine[:3, 3]
    inside = np.rint((voxels - AFFINE[:3, 3]) @ np.linalg.inv(AFFINE[:3, :3]).T).astype(int)
    assert len(voxels) > 5
    assert MASK[tuple(inside.T)].mean() > 0.9
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps(outcome.provenance))
    segmenter.segment(scan, tmp_path / "given", boxes=boxes, keep_rough=True)  # nothing rough was found
    assert names(tmp_path / "given") == ["scan_seg.json", "scan_seg.nii.gz"]


def test_each_stage_has_its_seconds_and_the_memory_until_its_end(segmenter, scan, tmp_path):
    said = segmenter.segment(scan, tmp_path).provenance
    assert set(said["stage_peak_bytes"]) == set(said["seconds"]) - {"total"}
    peaks = [said["stage_peak_bytes"][stage] for stage in ("open", "rough", "fine", "instances", "write")]
    assert peaks == sorted(peaks)
    assert peaks[-1] <= said["peak_memory_bytes"]


def test_boxes_are_those_of_the_file_in_voxels_and_in_world_mm(segmenter, scan, tmp_path):
    outcome = segmenter.segment(scan, tmp_path)
    grid = open_volume(scan).grid
    assert len(outcome.boxes) == 2
    labels = labels_of(outcome)
    for box, said in zip(outcome.boxes, outcome.provenance["boxes"], strict=True):
        assert Box(tuple(said["start"]), tuple(said["stop"])) == box
        np.testing.assert_allclose([said["start_mm"], said["stop_mm"]], grid.world_mm([box.start, box.stop]), atol=1e-3)
        (component,) = said["components"]
        assert component in (1, 2)
        assert (said["clipped"], said["tile"]) == (False, False)
        assert len(set(np.unique(labels[box.slices])) - {0}) == 1


def test_components_without_a_box_are_told_with_the_reason(bundle, scan, tmp_path):
    few = {"inferer#policy#max_components": 1}
    config = json.loads((bundle / "configs" / "inference.json").read_text())
    config["inferer"]["policy"]["max_components"] = None
    other = make_bundle(tmp_path / "few_segmentation", inferer=config["inferer"])
    outcome = Segmenter(other, device="cpu", trust=True, overrides=few).segment(scan, tmp_path / "out")
    assert outcome.provenance["bundle"]["overrides"] == few
    (dropped,) = outcome.provenance["dropped"]
    assert dropped["why"] == "not among the max_components=1 heaviest"
    assert dropped["volume_mm3"] > 0
    (kept,) = outcome.boxes
    there = Box(tuple(dropped["start"]), tuple(dropped["stop"]))  # on the file's own axes
    assert not there.overlaps(kept)
    assert (IMAGE[there.slices] > 50).any()
    none = Segmenter(bundle, device="cpu", trust=True, overrides={"displayable_configs#min_volume_mm3": 1e6}).segment(
        scan, tmp_path / "out"
    )
    assert [d["why"] for d in none.provenance["dropped"]] == ["smaller than min_volume_mm3=1e+06"] * 2
    assert none.provenance["warnings"][0] == "nothing found by the rough stage"
    assert not labels_of(none).any()


def test_volumes_are_told_in_ml(segmenter, scan, tmp_path):
    outcome = segmenter.segment(scan, tmp_path)
    labels = labels_of(outcome)
    expected = {str(k): round((labels == k).sum() * 1.6 / 1000, 3) for k in (1, 2)}  # 1 x 2 x 0.8 mm
    assert outcome.provenance["volume_ml"] == expected


def test_volumes_are_counted_without_a_large_array():
    labels = np.zeros((128, 128, 128), np.uint8).transpose(2, 0, 1)
    labels[:, :, 5] = 3
    volume = ArrayVolume(labels[None], Grid(labels.shape))
    tracemalloc.start()
    found = volumes_ml(Segmentation(labels), volume)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == {"3": 16.384}
    assert peak_bytes < labels.size / 4


def test_the_labels_are_those_of_the_inferer(segmenter, scan, tmp_path):
    by_hand = segmenter.inferer.segment(open_volume(scan), networks())
    np.testing.assert_array_equal(labels_of(segmenter.segment(scan, tmp_path)), by_hand.labels)


def test_a_case_gives_its_name(segmenter, scan, tmp_path):
    outcome = segmenter.segment(Case("patient-7", scan), tmp_path)
    assert outcome.output.name == "patient-7_seg.nii.gz"
    assert names(tmp_path) >= ["patient-7_seg.json", "patient-7_seg.nii.gz"]


def test_probabilities_are_written_if_they_are_asked_for(bundle, scan, tmp_path):
    outcome = Segmenter(bundle, device="cpu", trust=True, output="probabilities").segment(scan, tmp_path / "out")
    written = nib.load(outcome.output)
    assert outcome.provenance["kind"] == "probabilities"
    assert written.shape == (*SHAPE, 1)
    assert written.get_data_dtype() == np.float32
    assert dice(np.asarray(written.dataobj)[..., 0] > 0.5, MASK) > 0.97


def test_labels_are_written_if_they_are_asked_for(bundle, scan, tmp_path):
    outcome = Segmenter(bundle, device="cpu", trust=True, output="labels").segment(scan, tmp_path / "out")
    assert np.unique(labels_of(outcome)).tolist() == [0, 1]


def test_the_rough_network_alone_can_be_had(bundle, scan, tmp_path):
    outcome = Segmenter(bundle, device="cpu", trust=True, rough_only=True).segment(scan, tmp_path / "out")
    inferer = Segmenter(bundle, device="cpu", trust=True).inferer
    np.testing.assert_array_equal(labels_of(outcome), inferer.rough_only(open_volume(scan), networks()))
    assert outcome.provenance["boxes_from"] == "rough network alone"
    assert outcome.provenance["kind"] == "labels"
    assert outcome.boxes == []


def test_one_segmenter_is_ready_for_many_cases(segmenter, scan, write_nifti, tmp_path):
    before = labels_of(segmenter.segment(scan, tmp_path / "a"))
    empty = segmenter.segment(write_nifti("empty.nii", np.zeros(SHAPE, np.int16), AFFINE), tmp_path / "a")
    assert not labels_of(empty).any()
    np.testing.assert_array_equal(labels_of(segmenter.segment(scan, tmp_path / "b")), before)


def test_a_bundle_with_real_networks_and_random_weights_runs(write_nifti, tmp_path):
    def unet(dimensions, channels):
        return {
            "_target_": "UNet",
            "spatial_dims": dimensions,
            "in_channels": 1,
            "out_channels": 2,
            "channels": channels,
            "strides": [2, 2],
        }

    network = {"_target_": "stseg3d.networks.RoughFineNet", "rough": unet(3, [2, 4, 4]), "fine": unet(3, [4, 4, 8])}
    bundle = make_bundle(tmp_path / "random_segmentation", state=False, network_def=network)
    torch.manual_seed(0)
    from monai.bundle import ConfigParser

    save_weights(ConfigParser({"n": network}).get_parsed_content("n").state_dict(), bundle / "models" / "model.pt")
    inferer = CONFIG["inferer"] | {
        "rough": {"_target_": "stseg3d.inference.Stage", "size": [8, 12, 12], "transform": {"_target_": "NormalizeIntensity"}},
        "fine": {"_target_": "stseg3d.inference.Stage", "size": [16, 16, 8], "transform": {"_target_": "NormalizeIntensity"}},
        "policy": {"_target_": "stseg3d.ops.BoxPolicy", "max_components": 5},
    }
    config = {"network_def": network, "inferer": inferer, "output": {"_target_": "stseg3d.plan.Output"}}
    (bundle / "configs" / "inference.json").write_text(json.dumps(CONFIG | config))
    noise = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    scan = write_nifti("noise.nii.gz", noise, AFFINE)
    found = [labels_of(Segmenter(bundle, device="cpu", trust=True).segment(scan, tmp_path / f"{n}")) for n in range(2)]
    assert found[0].shape == SHAPE
    np.testing.assert_array_equal(*found)


# --- step by step ------------------------------------------------------------


def opened(segmenter, scan, out):
    work = CaseWork(segmenter, Case("scan", scan), replace(segmenter.request, output_dir=out))
    work.open()
    return work


def test_voxels_that_were_read_ahead_are_not_read_again(segmenter, scan, tmp_path):
    expected = labels_of(segmenter.segment(scan, tmp_path / "a"))
    work = opened(segmenter, scan, tmp_path / "b")
    assert work.held_bytes == IMAGE.size * IMAGE.itemsize
    before = work.clock.seconds["open"]
    work.read_ahead()
    assert work.clock.seconds["open"] > before
    scan.unlink()
    work.find()
    np.testing.assert_array_equal(labels_of(work.write()), expected)


def test_voxels_are_let_go_before_labels_are_written(segmenter, scan, tmp_path):
    work = opened(segmenter, scan, tmp_path)
    work.read_ahead()
    volume = weakref.ref(work.volume)
    work.find()
    assert work.held_bytes == IMAGE.size
    gc.collect()
    assert volume() is None
    assert work.volume.name == str(scan)
    scan.unlink()
    with pytest.raises(FileNotFoundError):  # they would have to be read again
        work.volume.read()
    assert work.write().provenance["grid"]["shape"] == list(SHAPE)


def test_a_broken_file_is_told_when_it_is_read_ahead(segmenter, scan, tmp_path):
    scan.write_bytes(scan.read_bytes()[:-20])
    work = opened(segmenter, scan, tmp_path / "out")
    with pytest.raises(ValueError, match=f"^{scan}: file must be sound gzip data"):
        work.read_ahead()


def test_the_peak_of_a_case_is_not_less_than_that_of_its_stages(segmenter, scan, tmp_path):
    work = opened(segmenter, scan, tmp_path)
    work.clock.peak_bytes["open"] = 10**15  # another case has begun anew with the peak of the process since
    work.find()
    assert work.write().provenance["peak_memory_bytes"] == 10**15


# --- other boxes -------------------------------------------------------------


def world_csv(path, boxes):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([f"{end}_{axis}_mm" for end in ("start", "stop") for axis in "xyz"])
        writer.writerows([*b["start_mm"], *b["stop_mm"]] for b in boxes)


def test_boxes_from_any_kind_of_file_give_the_networks_labels_again(segmenter, scan, tmp_path):
    first = segmenter.segment(scan, tmp_path / "out")
    boxes = first.provenance["boxes"]
    (tmp_path / "voxels.json").write_text(json.dumps([{k: b[k] for k in ("start", "stop")} for b in boxes]))
    (tmp_path / "mm.json").write_text(json.dumps({"boxes": [{k: b[k] for k in ("start_mm", "stop_mm")} for b in boxes]}))
    world_csv(tmp_path / "mm.csv", boxes)
    for file in (tmp_path / "out" / "scan_seg.json", tmp_path / "voxels.json", tmp_path / "mm.json", tmp_path / "mm.csv"):
        again = segmenter.segment(scan, tmp_path / file.stem, boxes=file)
        assert again.boxes == first.boxes
        assert again.provenance["boxes_from"] == f"boxes {file}"
        np.testing.assert_array_equal(labels_of(again), labels_of(first))


def test_a_mask_says_where_to_look(segmenter, scan, write_nifti, tmp_path):
    only = near(np.array([[10.0, 12, 10]]), 5, SHAPE).astype(np.uint8)
    mask = write_nifti("mask.nii.gz", only, AFFINE)
    outcome = segmenter.segment(scan, tmp_path / "out", mask=mask)
    assert outcome.provenance["boxes_from"] == f"mask {mask}"
    assert len(outcome.boxes) == 1
    assert dice(labels_of(outcome), only) > 0.97


def test_a_mask_may_be_stored_along_other_axes_and_be_coarser(segmenter, scan, write_nifti, tmp_path):
    grid = Grid(SHAPE, AFFINE)
    coarse = MASK[::2, ::2, ::2].astype(np.uint8)
    small = grid.resized(coarse.shape).view((1, 2, 0), (True, False, True))
    mask = write_nifti("mask.nii", np.ascontiguousarray(coarse.transpose(1, 2, 0)[::-1, :, ::-1]), small.affine)
    assert dice(labels_of(segmenter.segment(scan, tmp_path / "out", mask=mask)), MASK) > 0.97


def test_a_mask_is_turned_as_the_image_is_where_the_networks_see_the_files_own_axes(segmenter, scan, write_nifti, tmp_path):
    segmenter.inferer.image, segmenter.inferer.output = ImageView(axcodes=None), Output("instances")
    turned = Grid(SHAPE, AFFINE).view((1, 2, 0), (True, False, True))
    mask = write_nifti("mask.nii", np.ascontiguousarray(MASK.astype(np.uint8).transpose(1, 2, 0)[::-1, :, ::-1]), turned.affine)
    assert dice(labels_of(segmenter.segment(scan, tmp_path / "out", mask=mask)), MASK) > 0.97


def test_after_given_boxes_the_network_proposes_again(segmenter, scan, tmp_path):
    first = segmenter.segment(scan, tmp_path / "a")
    (tmp_path / "boxes.json").write_text('[{"start": [0, 0, 0], "stop": [8, 8, 8]}]')
    assert segmenter.segment(scan, tmp_path / "b", boxes=tmp_path / "boxes.json").boxes == [Box((0, 0, 0), (8, 8, 8))]
    assert segmenter.segment(scan, tmp_path / "c").boxes == first.boxes
    with pytest.raises(FileNotFoundError):
        segmenter.segment(scan, tmp_path / "d", boxes=tmp_path / "none.json")
    assert segmenter.segment(scan, tmp_path / "e").boxes == first.boxes


def test_a_bundles_own_proposer_is_used(scan, tmp_path):
    box = "$[__import__('stseg3d.geometry').geometry.Box((0, 0, 0), (16, 16, 16))]"
    own = {"_target_": "stseg3d.inference.BoxProposer", "boxes": box, "policy": "@inferer#policy", "fine_size": [24, 24, 24]}
    bundle = make_bundle(tmp_path / "own_segmentation", inferer=CONFIG["inferer"] | {"proposer": own})
    segmenter = Segmenter(bundle, device="cpu", trust=True)
    for n in range(2):
        outcome = segmenter.segment(scan, tmp_path / f"{n}")
        assert [b.shape for b in outcome.boxes] == [(16, 16, 16)]


# --- nothing on failure ------------------------------------------------------


def check_nothing_is_written(segmenter, source, out, rule, **options):
    with pytest.raises(ValueError, match=rule):
        segmenter.segment(source, out, **options)
    assert not out.exists() or names(out) == []


def test_a_broken_image_leaves_nothing(segmenter, write_nifti, tmp_path):
    broken = IMAGE.copy()
    broken[3, 4, 5:9] = np.nan
    scan = write_nifti("broken.nii.gz", broken, AFFINE)
    check_nothing_is_written(segmenter, scan, tmp_path / "out", rf"^{scan}: voxels must be finite, got 4 NaN or infinite$")


def test_an_image_of_several_channels_leaves_nothing(segmenter, write_nifti, tmp_path):
    scan = write_nifti("two.nii", np.stack([IMAGE, IMAGE], -1), AFFINE)
    check_nothing_is_written(segmenter, scan, tmp_path / "out", rf"^{scan}: must have 1 channel\(s\) for these networks, got 2$")


def test_a_mask_and_boxes_together_leave_nothing(segmenter, scan, tmp_path):
    options = {"mask": tmp_path / "m.nii", "boxes": tmp_path / "b.json"}
    check_nothing_is_written(segmenter, scan, tmp_path / "out", "^mask and boxes cannot both say where to look, got", **options)


def test_a_mask_on_another_grid_leaves_nothing(segmenter, scan, write_nifti, tmp_path):
    mask = write_nifti("mask.nii", MASK.astype(np.uint8), AFFINE @ np.diag([1, 1, 2, 1]))
    rule = rf"^{mask}: the mask must cover the extent of {scan}"
    check_nothing_is_written(segmenter, scan, tmp_path / "out", rule, mask=mask)


def test_labels_do_not_stay_without_their_json(segmenter, scan, tmp_path, monkeypatch):
    def full(*_args, **_options):
        msg = "No space left on device"
        raise OSError(msg)

    monkeypatch.setattr(segment_module.json, "dumps", full)
    with pytest.raises(OSError, match="No space left"):
        segmenter.segment(scan, tmp_path / "out")
    assert names(tmp_path / "out") == []


def test_what_an_earlier_run_wrote_stays_whole(segmenter, scan, write_nifti, tmp_path):
    outcome = segmenter.segment(scan, tmp_path / "out")
    before = outcome.output.read_bytes()
    write_nifti("scan.nii.gz", np.full(SHAPE, np.nan, np.float32), AFFINE)
    with pytest.raises(ValueError, match="voxels must be finite"):
        segmenter.segment(scan, tmp_path / "out")
    assert outcome.output.read_bytes() == before
    assert names(tmp_path / "out") == ["scan_seg.json", "scan_seg.nii.gz"]


def test_an_output_folder_that_is_a_file_is_refused_before_the_work(segmenter, scan, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OSError, match=f"^{tmp_path / 'out'}: output folder must be writable, got"):
        segmenter.segment(scan, tmp_path / "out")


# --- bad bundles -------------------------------------------------------------


def test_a_bundle_without_weights_is_refused(tmp_path):
    bundle = make_bundle(tmp_path / "b", state=False)
    with pytest.raises(FileNotFoundError, match=f"weights {bundle / 'models/model.pt'} are missing"):
        Segmenter(bundle, device="cpu", trust=True)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "fine.level"}, "they lack 'fine.level'"),
        (lambda s: s | {"fine.more": torch.zeros(1)}, "they hold 'fine.more', which it does not have"),
        (lambda s: s | {"rough.level": torch.zeros(3)}, r"they hold 'rough.level' of shape \(3,\), where it has \(\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change, rule, tmp_path):
    bundle = make_bundle(tmp_path / "b", state=change(networks().state_dict()))
    with pytest.raises(ValueError, match=f"model.pt must fit the network RoughFineNet: {rule}"):
        Segmenter(bundle, device="cpu", trust=True)


def test_damaged_weights_are_refused(tmp_path):
    bundle = make_bundle(tmp_path / "b")
    weights = bundle / "models" / "model.pt"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"model\.pt must be a state dict saved by torch"):
        Segmenter(bundle, device="cpu", trust=True)
    weights.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match=r"model\.pt must be a state dict saved by torch: [^.]+$"):  # and no advice to execute it
        Segmenter(bundle, device="cpu", trust=True)


def test_a_bundle_of_another_kind_is_refused(tmp_path):
    bundle = make_bundle(tmp_path / "b", inferer={"_target_": "SimpleInferer"})
    with pytest.raises(ValueError, match=f"^bundle {bundle}: inferer must be a SegmentThenSegmentInferer, got SimpleInferer$"):
        Segmenter(bundle, device="cpu", trust=True)


@pytest.mark.parametrize("output", ["instances", "probabilities"])
def test_the_rough_network_alone_gives_labels_only(bundle, output):
    with pytest.raises(ValueError, match=f"rough_only gives labels, got output='{output}' too"):
        Segmenter(bundle, device="cpu", trust=True, rough_only=True, output=output)


def test_unknown_options_are_refused(bundle):
    with pytest.raises(ValueError, match=r"^output must be one of \('labels', 'instances', 'probabilities'\), got 'mask'$"):
        Segmenter(bundle, device="cpu", trust=True, output="mask")
    with pytest.raises(ValueError, match="must have the entry 'displayable_configs#size' to override it"):
        Segmenter(bundle, device="cpu", trust=True, overrides={"displayable_configs#size": 3})


def test_overrides_reach_the_inferer(bundle):
    segmenter = Segmenter(bundle, device="cpu", trust=True, overrides={"displayable_configs#batch_size": 9})
    assert isinstance(segmenter.inferer, SegmentThenSegmentInferer)
    assert segmenter.inferer.fine_policy.batch_size == 9
    assert segmenter.about["overrides"] == {"displayable_configs#batch_size": 9}
