"""CT from label maps: what is bright is what should be, everything follows from its seed, and bodies differ."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from stseg3d.geometry import Box, Grid
from stseg3d.synthesis import OpenAnatomyd, RandSyntheticCTd, anatomy_cases
from stseg3d.synthesis.ct import SyntheticCT
from stseg3d.synthesis.dataset import main, write_dataset
from stseg3d.synthesis.deformation import deformed
from stseg3d.synthesis.fields import smooth_field
from stseg3d.synthesis.label_maps import INNER, OUTSIDE, TABLE, Anatomy, build_anatomy, random_box
from stseg3d.synthesis.scanner import draw_scan
from stseg3d.synthesis.tissues import CLASSES, PHASE_CHANCES, TISSUES, Tissue, tissue_of
from stseg3d.training import OpenCased
from stseg3d.volumes import OpenCase, Volume, load_dataset
from tests.synthesis.bodies import AORTA, NAMES, label_map


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return build_anatomy(*label_map(), NAMES)


def quiet(seed: int = 0, **changed: object):
    """A scan without noise, plaques and the like."""
    plain = {
        "noise_hu": 0.0,
        "texture": 0.0,
        "calcified": 0.0,
        "thrombus": 0.0,
        "flap": 0.0,
        "shading_hu": 0.0,
        "sharpness_mm": 0.4,
        "slice_mm": 1.0,
    }
    return replace(draw_scan(np.random.default_rng(seed)), **(plain | changed))


def core(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return ndimage.binary_erosion(mask, iterations=2)


# --- tissues -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tissue"),
    [
        ("aorta", "arteries"),
        ("gallbladder", "gallbladder"),
        ("urinary_bladder", "fluid"),
        ("kidney_cyst_left", "fluid"),
        ("kidney_left", "kidney"),
        ("costal_cartilages", "cartilage"),
        ("portal_vein_and_splenic_vein", "portal"),
        ("pulmonary_vein", "arteries"),
        ("inferior_vena_cava", "veins"),
        ("brachiocephalic_trunk", "arteries"),
        ("brachiocephalic_vein_left", "veins"),
        ("spinal_cord", "cord"),
        ("hip_left", "spongy_bone"),
        ("iliac_artery_left", "arteries"),
        ("something_new", "muscle"),
    ],
)
def test_tissue_of_a_class(name: str, tissue: str) -> None:
    assert tissue_of(name) == tissue


def test_tables_name_tissues_that_exist_and_ranges_that_are_ranges() -> None:
    assert sum(PHASE_CHANCES.values()) == pytest.approx(1)
    assert set(PHASE_CHANCES) == set(Tissue._fields) - {"texture_hu"}
    assert {tissue for _, tissue in CLASSES} <= set(TISSUES)
    ranges = [tissue.mean_hu(phase) for tissue in TISSUES.values() for phase in PHASE_CHANCES]
    assert all(low < high for low, high in ranges)
    assert TISSUES["liver"].mean_hu("early") == TISSUES["liver"].none != TISSUES["liver"].mean_hu("portal")


def test_the_aorta_is_anywhere_from_30_to_500_hu() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([draw_scan(rng).hu["arteries"] for _ in range(400)])
    assert drawn.min() < 35
    assert drawn.max() > 400
    assert np.histogram(drawn, bins=[30, 60, 120, 200, 300, 500])[0].min() > 15


# --- bodies ------------------------------------------------------------------


def test_smooth_fields_have_the_spread_they_say() -> None:
    rng = np.random.default_rng(0)
    for scale in (4.0, 12.0):
        field = smooth_field(rng, (96, 96, 96), (1.5, 1.5, 1.5), scale)
        assert field.std() == pytest.approx(1, rel=0.12)
        # Next to each other they are alike, far apart they are not.
        near, far = (np.corrcoef(field[:-n].ravel(), field[n:].ravel())[0, 1] for n in (1, int(4 * scale / 1.5)))
        assert near > 0.8
        assert abs(far) < 0.25


def test_a_body_lies_around_what_is_labelled(anatomy: Anatomy) -> None:
    labels, _ = label_map()
    np.testing.assert_array_equal(anatomy.ids[labels > 0], labels[labels > 0])
    assert set(np.unique(anatomy.ids)) > {INNER}
    assert anatomy.depth_mm[labels > 0].min() > 5
    assert isinstance(anatomy, Volume)


def test_far_from_what_is_labelled_is_air() -> None:
    labels = np.zeros((60, 60, 20), dtype=np.uint8)
    labels[2:6, 2:6] = 1
    body = build_anatomy(labels, Grid(labels.shape, np.diag([5.0, 5.0, 5.0, 1.0])), NAMES)
    assert (body.ids[40:, 40:] == OUTSIDE).all()
    assert (body.ids[8, 4] == INNER).all()


def test_a_label_map_of_nothing_is_all_inside() -> None:
    body = build_anatomy(np.zeros((20, 20, 20), dtype=np.uint8), Grid((20, 20, 20)), NAMES)
    assert (body.ids == INNER).all()
    assert np.isfinite(SyntheticCT(body, draw_scan(np.random.default_rng(0))).read()).all()


def test_a_class_without_a_name_is_refused() -> None:
    labels, grid = label_map(6.0)
    with pytest.raises(ValueError, match=r"each class must have a name, got none for \[7\]"):
        build_anatomy(labels, grid, {k: v for k, v in NAMES.items() if k != 7})


def test_deformed_bodies_differ_and_follow_from_their_seed() -> None:
    labels, grid = label_map()
    one, again, other = (deformed(labels, grid, np.random.default_rng(seed), vessel=AORTA) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one[0], again[0])
    assert one[1] == again[1]
    assert (one[0] != other[0]).mean() > 0.02
    assert set(np.unique(one[0])) == set(np.unique(labels))
    sizes = [deformed(labels[::4, ::4, ::4], grid, np.random.default_rng(s))[1].spacing_mm[0] / grid.spacing_mm[0] for s in range(30)]
    assert min(sizes) < 0.85
    assert max(sizes) > 1.1


@pytest.mark.slow
def test_the_vessel_widens_but_not_into_bone() -> None:
    labels, grid = label_map(2.0)
    volumes, bone = [], []
    for seed in range(12):
        out, _ = deformed(labels, grid, np.random.default_rng(seed), vessel=AORTA, keep=(1,))
        kept, _ = deformed(labels, grid, np.random.default_rng(seed))
        volumes.append((out == AORTA).sum() / (kept == AORTA).sum())
        bone.append((out[kept == 1] == 1).all())
    assert all(bone)
    assert max(volumes) > 1.2
    assert min(volumes) < max(volumes) - 0.2


# --- scans -------------------------------------------------------------------


def test_tissues_are_as_bright_as_the_scan_says(anatomy: Anatomy) -> None:
    scan = quiet(3)
    image = SyntheticCT(anatomy, scan).read()[0]
    for k, tissue in ((AORTA, "arteries"), (4, "liver")):
        found = np.median(image[core(anatomy.ids == k)])
        assert found == pytest.approx(scan.hu[tissue] + scan.offsets_hu[k], abs=6)
    lung = image[core(anatomy.ids == 2)]
    assert np.median(lung) == pytest.approx(scan.hu["lung"] + scan.offsets_hu[2], abs=30)


@pytest.mark.slow
def test_what_is_wrong_with_an_aorta_shows_inside_it_alone() -> None:
    body = build_anatomy(*label_map(2.0), NAMES)
    healthy = quiet(5, hu=dict(quiet(5).hu, arteries=300.0))
    whole = SyntheticCT(body, healthy).read()[0]
    aorta = body.ids == AORTA
    outside = ~ndimage.binary_dilation(aorta, iterations=3)
    for what in ({"thrombus": 0.5}, {"flap": 2.0, "false_lumen_hu": -100.0}, {"calcified": 1.0}):
        changed = np.abs(whole - SyntheticCT(body, replace(healthy, **what)).read()[0]) > 30
        assert changed[aorta].mean() > 0.01, what
        assert changed[outside].mean() < changed[aorta].mean() / 5, what


def test_a_read_is_of_its_box_and_the_same_each_time(anatomy: Anatomy) -> None:
    volume = SyntheticCT(anatomy, quiet(7))
    box = Box((20, 10, 15), (60, 40, 45))
    part = volume.read(box)
    assert part.shape == (1, *box.shape)
    assert part.dtype == volume.dtype == np.float32
    np.testing.assert_array_equal(part, volume.read(box))
    aorta = core(anatomy.ids[box.slices] == AORTA)
    assert np.median(part[0][aorta]) == pytest.approx(np.median(volume.read()[0][box.slices][aorta]), abs=8)
    assert isinstance(volume, Volume)


@pytest.mark.parametrize("seed", range(8))
def test_every_scan_is_finite_and_in_range(anatomy: Anatomy, seed: int) -> None:
    image = SyntheticCT(anatomy, draw_scan(np.random.default_rng(seed))).read()
    assert np.isfinite(image).all()
    assert image.min() >= -3024
    assert image.max() <= 3071
    assert image.std() > 50


def test_noise_has_the_deviation_asked_for(anatomy: Anatomy) -> None:
    for grain in (0.0, 2.0):
        noisy = SyntheticCT(anatomy, quiet(9, noise_hu=25.0, grain_mm=grain)).read()[0]
        still = SyntheticCT(anatomy, quiet(9, grain_mm=grain)).read()[0]
        liver = core(anatomy.ids == 4)
        assert (noisy - still)[liver].std() == pytest.approx(25, rel=0.25)


def test_air_is_what_the_scanner_writes(anatomy: Anatomy) -> None:
    labels = np.zeros((60, 60, 20), dtype=np.uint8)
    labels[2:6, 2:6] = 1
    body = build_anatomy(labels, Grid(labels.shape, np.diag([5.0, 5.0, 5.0, 1.0])), NAMES)
    for floor in (-1024.0, -2048.0, -3024.0):
        image = SyntheticCT(body, quiet(1, floor_hu=floor)).read()[0]
        assert np.median(image[50:, 50:]) == pytest.approx(max(floor, -1000) if floor >= -1024 else floor, abs=30)


# --- as MONAI transforms -----------------------------------------------------


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    labels, grid = label_map(4.0)
    (tmp_path / "labels").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "classes.json").write_text(json.dumps({str(k): v for k, v in NAMES.items()}))
    for case in ("a", "b", "c"):
        nib.save(nib.Nifti1Image(labels, grid.affine), tmp_path / f"labels/{case}.nii.gz")
    image = np.where(labels == AORTA, 200, 0).astype(np.int16)
    for case in ("b", "c"):
        nib.save(nib.Nifti1Image(image, grid.affine), tmp_path / f"images/{case}.nii.gz")
    return write_dataset(tmp_path, tmp_path / "out", target="aorta", anatomies={"a": 1}, training=["b"], validation=["c"])


def test_a_data_set_of_label_maps(dataset: Path) -> None:
    found = load_dataset(dataset)
    assert [c.id for c in found.training] == ["b"]
    assert [c.id for c in found.validation] == ["c"]
    cases = anatomy_cases(dataset, bodies=3)
    assert [c["body"] for c in cases] == [0, 1, 2]
    assert len({c["id"] for c in cases}) == 3
    label = nib.load(found.training[0].label)
    assert np.asarray(label.dataobj).max() == 1


def test_a_data_set_without_label_maps_has_no_anatomies(dataset: Path) -> None:
    content = json.loads(dataset.read_text())
    del content["anatomies"]
    dataset.write_text(json.dumps(content))
    assert anatomy_cases(dataset, 4) == []


def test_what_a_data_set_refuses(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"target must be a class of .*, got 'vena'"):
        write_dataset(tmp_path, tmp_path / "x", target="vena", anatomies={})
    with pytest.raises(ValueError, match=r"validation must hold no case that is trained with, got \['a'\]"):
        write_dataset(tmp_path, tmp_path / "x", target="aorta", anatomies={"a": 1}, validation=["a"])
    content = json.loads(dataset.read_text())
    for entry, error in (({"labels": "x"}, ValueError), ({"labels": "no.nii.gz", "classes": "no.json"}, FileNotFoundError)):
        dataset.write_text(json.dumps(content | {"anatomies": [entry]}))
        with pytest.raises(error, match=r"anatomies|must exist"):
            anatomy_cases(dataset)


def test_the_command_writes_one(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tmp_path), str(tmp_path / "out2"), "--target", "liver", "--anatomies", "a,b:2", "--validation", "c", "--also", str(dataset)])
    written = Path(capsys.readouterr().out.strip())
    assert [c["id"] for c in anatomy_cases(written)] == ["a.nii.gz#0", "b.nii.gz#0", "b.nii.gz#1"]
    assert [c.id for c in load_dataset(written).training] == ["b"]


@pytest.mark.parametrize("value", [1, 7])
def test_what_an_added_data_set_ignores_is_ignored(value: int, dataset: Path, tmp_path: Path) -> None:
    dataset.write_text(json.dumps(json.loads(dataset.read_text()) | {"labels": {"background": 0, "aorta": 2, "ignore": value}}))
    options = {"target": "liver", "anatomies": {"a": 1}, "training": ["c"], "also": dataset}
    if value == 1:
        with pytest.raises(ValueError, match=r"dataset\.json: labels must not ignore the value 1, which is liver here"):
            write_dataset(tmp_path, tmp_path / "out3", **options)
        return
    assert load_dataset(write_dataset(tmp_path, tmp_path / "out3", **options)).labels.names == {0: "background", 1: "liver", 7: "ignore"}


def test_bodies_are_opened_with_their_label(dataset: Path) -> None:
    cases = anatomy_cases(dataset, bodies=2)
    opened = [OpenAnatomyd(OpenCased(), "aorta", spacing_mm=6.0)(case)["case"] for case in cases]
    for case in opened:
        assert isinstance(case, OpenCase)
        np.testing.assert_array_equal(case.label, case.image.ids == AORTA)
        assert case.label.sum() > 50
    assert (opened[0].label != opened[1].label).any()
    assert opened[0].image.grid.spacing_mm[0] == pytest.approx(6.0)
    real = OpenAnatomyd(OpenCased(), "aorta")(
        {"image": dataset.parent.parent / "images/b.nii.gz", "label": dataset.parent / "labels/b.nii.gz"}
    )
    assert not isinstance(real["case"].image, Anatomy)


def test_each_draw_is_another_scan_and_a_seed_repeats_it(dataset: Path) -> None:
    case = OpenAnatomyd(OpenCased(), "aorta", spacing_mm=6.0)(anatomy_cases(dataset)[0])
    rand = RandSyntheticCTd(partial=0.7)
    rand.set_random_state(5)
    drawn = [rand(case)["case"] for _ in range(8)]
    assert len({one.image.scan.seed for one in drawn}) == 8
    assert len({one.label.shape for one in drawn}) > 2
    for one in drawn:
        assert one.label.shape == one.image.grid.shape
        np.testing.assert_array_equal(one.label, one.image.anatomy.ids == AORTA)
    rand.set_random_state(5)
    np.testing.assert_array_equal(rand(case)["case"].image.read(), drawn[0].image.read())


def test_cases_with_an_image_pass_as_they_are(dataset: Path) -> None:
    real = OpenCased()({"image": dataset.parent.parent / "images/b.nii.gz", "label": dataset.parent / "labels/b.nii.gz"})
    assert RandSyntheticCTd(partial=1.0)(real)["case"] is real["case"]


def test_boxes_of_a_partial_field_of_view_lie_inside() -> None:
    rng = np.random.default_rng(0)
    lengths = set()
    for _ in range(50):
        box = random_box(rng, (40, 30, 20), (0.5, 1.0, 0.2))
        assert box.clip((40, 30, 20)) == box
        assert box.shape[0] >= 20
        assert box.shape[1] == 30
        lengths.add(box.shape[2])
    assert min(lengths) < 8
    assert max(lengths) > 16


# --- what scanners and label maps do -----------------------------------------


def test_a_table_lies_behind_the_back() -> None:
    labels, grid = label_map(4.0)
    roomy = np.pad(labels, ((0, 0), (20, 0), (0, 0)))
    body = build_anatomy(roomy, Grid(roomy.shape, grid.affine), NAMES)
    table = (body.ids == TABLE).any(axis=(0, 2))
    back = (body.depth_mm > 0).any(axis=(0, 2))
    assert table.any()
    assert np.flatnonzero(table).max() < np.flatnonzero(back).min()
    image = SyntheticCT(body, quiet(2, table_hu=-250.0, circle=False)).read()[0]
    assert np.median(image[body.ids == TABLE]) == pytest.approx(-250, abs=80)


def test_the_scanners_circle_ends_the_image_alike_in_every_box(anatomy: Anatomy) -> None:
    volume = SyntheticCT(anatomy, quiet(4, circle=True, floor_hu=-2048.0))
    whole = volume.read()[0]
    assert (whole[0, 0] == -2048).all()
    middle = tuple(n // 2 for n in whole.shape)
    assert whole[middle] > -1100
    box = Box((0, 0, 5), (20, 20, 9))
    np.testing.assert_array_equal(volume.read(box)[0] == -2048, whole[box.slices] == -2048)


def test_hidden_and_confused_classes_never_touch_the_target() -> None:
    labels, grid = label_map()
    body = build_anatomy(labels, grid, NAMES, target=AORTA)
    plain = quiet(6, hu=dict(quiet(6).hu, arteries=300.0, liver=60.0))
    everything = np.ones(256, dtype=bool)
    hidden = SyntheticCT(body, replace(plain, hidden=everything)).read()[0]
    aorta, liver = core(labels == AORTA), core(labels == 4)
    assert np.median(hidden[aorta]) == pytest.approx(300 + plain.offsets_hu[AORTA], abs=8)
    shown = SyntheticCT(body, replace(plain, hidden=~everything)).read()[0]
    assert np.median(shown[liver]) > 40
    assert np.median(np.abs(hidden[liver] - shown[liver])) > 15
    as_aorta = np.where(np.arange(256) == 4, AORTA, np.arange(256))
    confused = SyntheticCT(body, replace(plain, hidden=~everything, taken_for=as_aorta)).read()[0]
    assert np.median(confused[liver]) == pytest.approx(300, abs=25)
