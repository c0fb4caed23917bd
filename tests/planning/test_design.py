"""Decisions of the planner, each on a data set that leaves no doubt."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from stseg3d.plan import Plan, render
from stseg3d.planning.architecture import network_for, rounded_size, strides_for
from stseg3d.planning.design import Design, design
from stseg3d.planning.task_kind import kind_of
from tests.planning.spheres import fingerprint_of, spheres


def row(n: int = 0):
    """Three spheres from the top down."""
    return spheres((48, 64, 96), (24, 32, 80 - n), (24, 33, 50), (25, 32, 20 + n), radius=9)


def one_large(n: int = 0):
    return spheres((96, 96, 96), (48, 40 + n, 48), radius=12)


def test_numbered_objects_in_a_row_are_one_class_numbered_from_its_end() -> None:
    kind = kind_of(fingerprint_of([row(n) for n in range(4)], {"1": "L1", "2": "L2", "3": "L3"}))
    assert (kind.instances, kind.number_from, kind.classes) == (True, "S", ("background", "object"))


@pytest.mark.parametrize(
    ("labels", "names", "why"),
    [
        ([row(n) for n in range(4)], {"1": "liver", "2": "spleen", "3": "kidney"}, "no numbers"),
        ([row(0), row(1)[:, :, ::-1]], {"1": "L1", "2": "L2", "3": "L3"}, "not one order"),
        ([row(0), row(1)], {"1": "L1", "2": "L3", "3": "L2"}, "numbers out of order"),
    ],
)
def test_other_classes_stay_classes(labels, names: dict[str, str], why: str) -> None:
    kind = kind_of(fingerprint_of(labels, names))
    assert (kind.instances, kind.classes) == (False, ("background", *names.values())), why


def test_more_values_than_names_are_objects() -> None:
    label = spheres((64, 64, 1), (10, 10, 0), (30, 30, 0), (50, 50, 0), radius=5)
    kind = kind_of(fingerprint_of([label], {"1": "cell"}, pictures=True))
    assert (kind.instances, kind.number_from, kind.classes) == (True, None, ("background", "cell"))


def test_ct_is_known_by_air_and_can_be_told() -> None:
    labels = [one_large()]
    assert kind_of(fingerprint_of(labels, {"1": "a"}, low=-1000)).modality == "CT"
    assert kind_of(fingerprint_of(labels, {"1": "a"}, low=0)).modality == "MR"
    assert kind_of(fingerprint_of(labels, {"1": "a"}, low=0), modality="CT").modality == "CT"
    with pytest.raises(ValueError, match="modality must be one of"):
        kind_of(fingerprint_of(labels, {"1": "a"}), modality="US")


def test_a_case_is_not_mirrored_where_a_class_has_a_side_or_objects_lie_to_one() -> None:
    middle, aside = spheres((64, 64, 64), (32, 30, 30)), spheres((64, 64, 64), (50, 30, 30))
    assert kind_of(fingerprint_of([middle], {"1": "heart"})).mirror_axes == (0,)
    assert kind_of(fingerprint_of([middle], {"1": "kidney_left"})).mirror_axes == ()
    assert kind_of(fingerprint_of([aside], {"1": "liver"})).mirror_axes == ()


def designed(labels, names: dict[str, str] | None = None, **options) -> Design:
    return design(fingerprint_of(labels, names or {"1": "ball"}, **options))


def test_one_stage_where_a_network_sees_the_volume_at_once_and_where_boxes_hold_most_of_it() -> None:
    assert designed([spheres((40, 48, 40), (20, 20, 20), radius=6)]).plan.stages == ("fine",)
    assert designed([spheres((128, 128, 128), (64, 64, 64), radius=55)]).plan.stages == ("fine",)
    assert designed([spheres((128, 128, 128), (64, 64, 64), radius=9)]).plan.stages == ("rough", "fine")


def test_the_number_of_stages_can_be_told() -> None:
    fingerprint = fingerprint_of([spheres((128, 128, 128), (64, 64, 64), radius=9)], {"1": "ball"})
    assert design(fingerprint, stages=1).plan.rough is None
    assert design(fingerprint, stages=2).plan.rough is not None


def test_an_object_spans_about_four_rough_voxels_and_its_box_fits_the_fine_input() -> None:
    plan = designed([spheres((160, 160, 160), (80, 70 + n, 80), radius=12) for n in range(3)]).plan
    assert plan.rough
    assert plan.rough.spacing_mm is None
    assert all(3 <= 24 / (160 / n) <= 5.5 for n in plan.rough.size)
    assert all(24 <= n <= 56 for n in plan.fine.size)
    assert 0 < plan.policy.min_volume_mm3 < 4 / 3 * np.pi * 12**3
    assert plan.policy.max_components == 1


def test_fields_of_view_that_differ_get_a_rough_grid_by_spacing_in_batches_of_one() -> None:
    labels = [spheres((96, 96, 96), (48, 48, 48), radius=10), spheres((96, 96, 240), (48, 48, 120), radius=10)]
    plan = designed(labels).plan
    assert plan.rough
    assert plan.rough.spacing_mm
    assert plan.rough.spacing_mm >= 2
    assert plan.training.cases_a_batch.rough == 1


def test_small_scattered_objects_are_kept_by_a_low_threshold_and_seen_as_they_are() -> None:
    rng = np.random.default_rng(0)
    labels = [spheres((96, 96, 96), *rng.uniform(10, 86, (12, 3)), radius=2 + n, values=[1] * 12) for n in range(3)]
    plan = designed(labels).plan
    assert plan.rough
    assert plan.policy.threshold < 0.5
    assert plan.policy.max_components is None
    assert plan.image.standardize


def test_thick_slices_are_neither_halved_first_nor_turned() -> None:
    label = spheres((160, 160, 20), (80, 80, 10), radius=9)
    plan = designed([label] * 3, spacing=(0.5, 0.5, 5.0)).plan
    assert plan.training.augmentation.fine.fixed_axis == 2
    assert plan.fine.network.name == "DynUNet"
    assert plan.fine.network.arguments["strides"][1][2] == 1
    assert plan.fine.network.arguments["kernel_size"][0][2] == 1


def test_pictures_get_flat_networks_and_three_colours() -> None:
    label = spheres((256, 256, 1), *[(x, y, 0) for x in (40, 120, 200) for y in (40, 120, 200)], radius=9)
    plan = designed([label] * 3, {"1": "cell"}, pictures=True).plan
    assert plan.image.colour
    assert plan.image.channels == 3
    assert plan.fine.network.arguments["spatial_dims"] == 2
    assert plan.fine.size[2] == 1


def test_rare_classes_are_drawn_as_often_as_common_ones() -> None:
    plan = designed([row(n) for n in range(4)], {"1": "liver", "2": "spleen", "3": "kidney"}).plan
    assert plan.training.balance == 0.5
    assert plan.classes == ("background", "liver", "spleen", "kidney")


def test_every_decision_has_a_short_reason_and_the_plan_renders() -> None:
    for labels in ([row(n) for n in range(4)], [spheres((40, 48, 40), (20, 20, 20), radius=6)]):
        found = designed(labels)
        assert all(0 < len(d.reason) <= 70 for d in found.decisions)
        assert not any(sign in str(d.value) for d in found.decisions for sign in "[{(")
        assert "train_rough.json" in render(found.plan) or found.plan.rough is None
        assert Plan.from_json(found.plan.as_json()) == found.plan


def test_a_data_set_without_objects_is_refused() -> None:
    with pytest.raises(ValueError, match="labels must hold an object"):
        designed([np.zeros((8, 8, 8), np.uint8)])


@pytest.mark.parametrize("size", [(32, 32, 32), (64, 64, 40), (8, 24, 56), (160, 160, 16), (48, 48, 1)])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 0.5, 5.0)])
def test_strides_divide_the_rounded_size_and_no_axis_ends_below_four_voxels(size, spacing) -> None:
    rounded = rounded_size(size, spacing)
    if rounded[2] == 1:
        assert all(n % 16 == 0 for n in rounded[:2])
        return
    product = np.prod(strides_for(rounded, spacing) or [[1, 1, 1]], axis=0)
    assert not (np.array(rounded) % product).any()
    assert (np.array(rounded) / product >= np.minimum(rounded, 4)).all()
    assert network_for(rounded, spacing, 8).name in ("UNet", "DynUNet")


# --- classes that overlap, and values with gaps --------------------------------

REGIONS = {"whole": (1, 2, 4), "core": (2, 4), "rim": (4,)}


def gaps(n: int = 0):
    """Spheres of values 1, 2 and 4."""
    return spheres((48, 64, 96), (24, 32, 80 - n), (24, 33, 50), (25, 32, 20 + n), radius=9, values=(1, 2, 4))


def test_a_value_that_is_left_out_is_a_class_that_never_occurs() -> None:
    found = designed([gaps(n) for n in range(4)], {"1": "a", "2": "b", "4": "c"})
    assert found.plan.classes == ("background", "a", "b", "value 3 (unused)", "c")
    assert json.loads(render(found.plan)["train.json"])["fine_network_def"]["out_channels"] == 5
    assert next(d for d in found.decisions if d.entry == "classes").reason == "4 by the values of the labels; 1 of them unused"


def test_regions_reach_the_plan_with_a_reason() -> None:
    fingerprint = fingerprint_of([gaps(n) for n in range(4)], {"1": "value 1", "2": "value 2", "4": "rim"})
    found = design(replace(fingerprint, regions=REGIONS))
    assert found.plan.regions == REGIONS
    assert found.plan.classes == ("background", "value 1", "value 2", "value 3 (unused)", "rim")
    assert found.plan.output.kind == "labels"
    decision = next(d for d in found.decisions if d.entry == "regions")
    assert decision.value == "whole = 1 + 2 + 4, core = 2 + 4, rim = 4"
    loss = json.loads(render(found.plan)["train.json"])["loss"]
    assert loss["regions"] == [[1, 2, 4], [2, 4], [4], [3]]  # so that the unused class is learned to be nowhere


def test_values_named_by_number_are_no_row_of_objects() -> None:
    fingerprint = fingerprint_of([row(n) for n in range(4)], {"1": "value 1", "2": "value 2", "3": "value 3"})
    assert kind_of(fingerprint).number_from == "S"
    assert kind_of(replace(fingerprint, regions={"whole": (1, 2, 3), "core": (2, 3)})).number_from is None


def test_one_region_of_all_values_is_one_class() -> None:
    fingerprint = fingerprint_of([gaps()], {"1": "value 1", "2": "value 2", "4": "value 4"})
    kind = kind_of(replace(fingerprint, regions={"tumour": (1, 2, 4)}))
    assert (kind.classes, kind.regions, kind.instances) == (("background", "tumour"), {}, False)


def test_a_side_in_the_name_of_a_region_forbids_mirroring() -> None:
    fingerprint = fingerprint_of([spheres((64, 64, 64), (32, 20, 30), (32, 44, 30))], {"1": "value 1", "2": "b"})
    assert kind_of(replace(fingerprint, regions={"all": (1, 2), "b": (2,)})).mirror_axes == (0,)
    assert kind_of(replace(fingerprint, regions={"left lung": (1, 2), "b": (2,)})).mirror_axes == ()


# --- edges ---------------------------------------------------------------------


def test_a_class_on_one_side_forbids_mirroring_though_another_lies_on_the_other() -> None:
    label = spheres((64, 64, 64), (16, 30, 30), (48, 30, 30))
    kind = kind_of(fingerprint_of([label], {"1": "liver", "2": "spleen"}))
    assert kind.mirror_axes == ()
    assert kind.reasons["mirror_axes"] == "liver: to one side of the middle, by 24 % of the width"
    assert kind_of(fingerprint_of([label], {"1": "cell"})).mirror_axes == (0,)  # two objects of one kind


def test_objects_in_few_cases_are_allowed_one_box() -> None:
    labels = [spheres((80, 80, 80), (40, 40, 40), radius=6), *[np.zeros((80, 80, 80), np.uint8)] * 30]
    assert designed(labels).plan.policy.max_components == 1


def test_objects_of_one_value_are_no_window() -> None:
    fingerprint = fingerprint_of([one_large()], {"1": "ball"}, low=-1000)
    assert [c.name for c in design(fingerprint).plan.normalization] == ["ScaleIntensityRange"]
    flat = replace(fingerprint, foreground=(replace(fingerprint.foreground[0], low=50, high=50, sd=0),))
    assert [c.name for c in design(flat).plan.normalization] == ["NormalizeIntensity"]


@pytest.mark.parametrize("shape", [(120, 1, 1), (1, 160, 160), (160, 1, 160), (9, 9, 400)])
def test_axes_of_one_voxel_take_two_stages_as_well(shape) -> None:
    label = np.zeros(shape, np.uint8)
    label[tuple(slice(n // 3, n // 3 + max(n // 12, 1)) for n in shape)] = 1
    plan = design(fingerprint_of([label] * 2, {"1": "a"}), stages=2).plan
    assert plan.rough
    assert [n == 1 for n in plan.rough.size] == [n == 1 for n in plan.fine.size] == [n == 1 for n in shape]


def test_many_objects_fill_a_volume_though_few_are_listed() -> None:
    fingerprint = fingerprint_of([spheres((128, 128, 128), (64, 64, 64), radius=9)], {"1": "ball"})
    assert design(fingerprint).plan.rough
    (case,) = fingerprint.cases
    assert case.together
    many = replace(fingerprint, cases=(replace(case, together=replace(case.together, count=200)),))
    assert design(many).plan.rough is None


def test_a_kernel_that_spans_an_axis_spans_it_below_as_well() -> None:
    for size, spacing in (((24, 32, 48), (1, 1, 1)), ((1, 160, 160), (1, 1, 1)), ((96, 96, 12), (1, 1, 2.5))):
        kernels = network_for(size, spacing, 8).arguments["kernel_size"]
        for axis in zip(*kernels, strict=True):
            assert list(axis) == sorted(axis)
    assert [kernel[2] for kernel in kernels] == [1, *[3] * (len(kernels) - 1)]  # the slices are thick at first


def test_one_stage_is_told_its_own_epochs_alone() -> None:
    told = {d.entry: d.value for d in designed([spheres((40, 48, 40), (20, 20, 20), radius=6)]).decisions}
    assert told["training#epochs#fine"] == 3000
    assert not any("rough" in entry or "rough" in str(value) for entry, value in told.items())
