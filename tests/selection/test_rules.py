"""Rules for components are chosen by nnU-Net's rule, from pieces that agree with what inference does."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from stseg3d.metrics import confusion, dice
from stseg3d.ops.cleaning import clean
from stseg3d.plan import Output
from stseg3d.selection.pieces import Pieces
from stseg3d.selection.rules import choose_rules, mean_dice

ONE, TWO = ("background", "a"), ("background", "a", "b")


def pieces(prediction: list[list[int]], truth: list[list[int]], classes: tuple[str, ...] = ONE) -> Pieces:
    return Pieces.of(np.array(prediction), np.array(truth), classes)


# --- pieces ------------------------------------------------------------------

RULES = [
    Output(),
    *(Output(largest_only=names) for names in (("foreground",), ("a",), ("foreground", "b"), ("a", "b"))),
    Output(min_volume_mm3={"a": 4.0, "b": 9.0}),
    Output(largest_only=("foreground",), min_volume_mm3={"b": 3.0, "foreground": 12.0}),
]


@pytest.mark.parametrize(("rules", "seed"), [*product(RULES, range(3))])
def test_dice_under_a_rule_is_that_of_labels_cleaned_by_it(rules: Output, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, labels = (rng.choice(3, (7, 8, 5), p=(0.8, 0.1, 0.1)) for _ in range(2))
    ignored = rng.random(truth.shape) < 0.1
    truth[ignored] = 0
    regions = {"both": (1, 2), "only b": (2,)}
    found = Pieces.of(labels, truth, TWO, regions=regions, ignored=ignored, voxel_mm3=2.0).dice(rules)
    removed = clean(labels, TWO, largest_only=rules.largest_only, least_mm3=rules.min_volume_mm3, voxel_mm3=2.0)
    assert bool(removed["removed_voxels"]) == bool(rules.cleaned)
    labels[ignored] = 0
    expected = [dice(confusion(np.isin(labels, values), np.isin(truth, values))) for values in ((1,), (2,), (1, 2), (2,))]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_class_in_neither_is_not_scored_and_one_in_the_prediction_alone_is_0() -> None:
    np.testing.assert_array_equal(pieces([[1, 0, 0]], [[0, 0, 0]], TWO).dice(Output()), [0, np.nan])
    np.testing.assert_array_equal(pieces([[0, 0, 0]], [[0, 0, 2]], TWO).dice(Output()), [np.nan, 0])
    # As in nnU-Net, a case that is rightly empty says nothing.
    np.testing.assert_array_equal(pieces([[1, 0, 0]], [[0, 0, 0]]).dice(Output(min_volume_mm3={"a": 2.0})), [np.nan])


# --- the rule ----------------------------------------------------------------


def test_the_largest_component_alone_is_kept_where_that_helps() -> None:
    rules, steps = choose_rules([pieces([[1, 1, 0, 1]], [[1, 1, 0, 0]])], {})
    assert rules == Output(largest_only=("foreground",))
    assert [(s.of, s.before, s.after, s.kept) for s in steps] == [("foreground", 0.8, 1.0, True)]


def test_not_where_two_objects_are_there() -> None:
    rules, steps = choose_rules([pieces([[1, 1, 0, 1]], [[1, 1, 0, 1]])], {})
    assert rules == Output()
    assert [step.kept for step in steps] == [False]


def test_not_for_all_classes_together_where_one_gets_worse_though_the_mean_rises() -> None:
    # b has a true piece of its own, which would go with the false ones of a.
    case = pieces([[1, 1, 1, 2, 2, 2, 2, 0, 1, 1, 0, 2]], [[1, 1, 1, 2, 2, 2, 2, 0, 0, 0, 0, 2]], TWO)
    whole = Output(largest_only=("foreground",))
    assert mean_dice([case], whole) > mean_dice([case], Output())
    rules, steps = choose_rules([case], {})
    assert steps[0].worse == ("b",)
    assert rules.largest_only == ("a",)  # by class it is kept where that class rises
    assert [(step.of, step.kept) for step in steps] == [("foreground", False), ("a", True), ("b", False)]


def test_not_where_a_region_gets_worse_though_the_class_rises() -> None:
    prediction, truth = np.array([[1, 1, 1, 0, 1, 0, 2]]), np.array([[1, 1, 1, 0, 2, 0, 2]])
    assert choose_rules([Pieces.of(prediction, truth, TWO)], {})[0].largest_only == ("a",)
    of_regions = Pieces.of(prediction, truth, TWO, regions={"both": (1, 2)})
    rules, steps = choose_rules([of_regions], {"a": [2.0]})
    assert rules == Output()
    assert [(step.of, step.worse) for step in steps if step.of == "a"] == [("a", ("both",))] * 2
    assert mean_dice([of_regions], Output()) == 1.0  # the region's, not the classes'


def test_it_is_the_mean_over_cases_that_counts() -> None:
    helps, harms = pieces([[1, 1, 0, 1]], [[1, 1, 0, 0]]), pieces([[1, 1, 0, 1, 1, 1]], [[1, 1, 0, 1, 1, 1]])
    assert choose_rules([helps, harms], {})[0] == Output()
    assert choose_rules([helps, helps, helps, harms], {})[0].largest_only == ("foreground",)


def test_the_least_volume_is_that_which_helps_most_and_none_where_none_helps() -> None:
    case = pieces([[1, 1, 1, 0, 1, 1, 0, 1, 0, 1, 1, 1, 1]], [[1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1]])
    rules, steps = choose_rules([case], {"a": [1.0, 2.0, 3.0, 4.0]})
    assert rules == Output(min_volume_mm3={"a": 3.0})
    assert [(step.value, step.kept) for step in steps[1:]] == [(1.0, False), (2.0, False), (3.0, True), (4.0, False)]  # 2.0 helps less
    exact = pieces([[1, 0, 1, 1]], [[1, 0, 1, 1]])
    assert choose_rules([exact], {"a": [1.0, 2.0]})[0] == Output()


def test_false_pieces_in_cases_without_a_class_count() -> None:
    empty, full = pieces([[1, 0, 0, 0]], [[0, 0, 0, 0]]), pieces([[0, 1, 1, 0]], [[0, 1, 1, 0]])
    assert choose_rules([empty, full], {"a": [2.0]})[0] == Output(min_volume_mm3={"a": 2.0})
