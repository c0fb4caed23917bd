from __future__ import annotations

import math
import re

import numpy as np
import pytest

from stseg3d.compare.advice import MIN_CASES, NEGLIGIBLE_DICE, SMALL_DICE, Verdict, advise
from stseg3d.compare.comparison import Comparison
from tests.compare.made_up import made_up

HELPED = {("rough_only", 32): 0.70, ("two_stage", 32): 0.85, ("rough_only", 64): 0.80, ("two_stage", 64): 0.90}


def answer(means, **options):
    found = advise(made_up(means, **options))
    return found.verdict, found.way, found.size


def test_cropping_pays_at_the_best_size():
    assert answer(HELPED) == (Verdict.PAYS, "two_stage", 64)


def test_the_smallest_size_that_is_as_good_is_advised():
    assert answer(HELPED | {("two_stage", 32): 0.90 - 0.8 * NEGLIGIBLE_DICE}) == (Verdict.PAYS, "two_stage", 32)


def test_a_small_loss_within_the_noise_is_as_good_and_a_larger_one_is_not():
    noisy = {"noise": 0.04, "cases": 8}
    assert answer(HELPED | {("two_stage", 32): 0.90 - 0.9 * SMALL_DICE}, **noisy)[2] == 32
    assert answer(HELPED | {("two_stage", 32): 0.90 - 2 * SMALL_DICE}, **noisy)[2] == 64


def test_a_small_loss_beyond_the_noise_is_not_as_good():
    assert answer(HELPED | {("two_stage", 32): 0.90 - 0.9 * SMALL_DICE}, noise=0.001)[2] == 64


@pytest.mark.parametrize("gain", [-0.05, -0.004, 0.0, 0.004])
def test_without_a_gain_worth_having_cropping_does_not_pay(gain):
    means = {("rough_only", 32): 0.85, ("two_stage", 32): 0.85 + gain}
    assert answer(means) == (Verdict.DOES_NOT_PAY, "rough_only", 32)


def test_a_gain_within_the_noise_is_undecided():
    means = {("rough_only", 32): 0.85, ("two_stage", 32): 0.87}
    found = advise(made_up(means, noise=0.1, cases=6))
    assert (found.verdict, found.way, found.size) == (Verdict.UNDECIDED, None, None)
    assert "cannot be told from 6 cases" in found.sentence


@pytest.mark.parametrize("cases", [1, 2, MIN_CASES - 1])
def test_too_few_cases_never_decide(cases):
    found = advise(made_up(HELPED, cases=cases))
    assert found.verdict is Verdict.UNDECIDED
    assert f"at least {MIN_CASES} are needed" in found.sentence
    assert "nan" not in found.sentence


def test_five_cases_may_decide():
    assert answer(HELPED, cases=MIN_CASES)[0] is Verdict.PAYS


def test_a_single_network_that_is_as_good_for_less_ends_it():
    means = HELPED | {("sliding_window", 64): 0.898}
    assert answer(means, costs={("sliding_window", 64): 20}) == (Verdict.DOES_NOT_PAY, "sliding_window", 64)
    assert answer(means, costs={("sliding_window", 64): 400}) == (Verdict.PAYS, "two_stage", 64)


def test_rough_only_at_twice_the_size_ends_it_only_if_it_costs_no_more():
    means = {("rough_only", 32): 0.70, ("two_stage", 32): 0.85, ("rough_only", 64): 0.85}
    assert answer(means, costs={("rough_only", 64): 3.9}) == (Verdict.DOES_NOT_PAY, "rough_only", 64)
    assert answer(means, costs={("rough_only", 64): 4.1}) == (Verdict.PAYS, "two_stage", 32)


def test_unknown_costs_count_for_nobody():
    found = made_up(HELPED | {("sliding_window", 64): 0.90}, costs={("sliding_window", 64): math.nan})
    advice = advise(found)
    assert (advice.verdict, advice.size) == (Verdict.PAYS, 64)
    assert "nan" not in advice.sentence


def test_a_better_and_dearer_window_is_named_with_its_price():
    sentence = advise(made_up(HELPED | {("sliding_window", 64): 0.93}, costs={("sliding_window", 64): 320})).sentence
    assert "the sliding window at 64 is better still (+0.030" in sentence
    assert "for 10.0 times the multiply-adds" in sentence
    assert "come within" not in sentence


def test_a_window_that_is_no_better_is_named_with_its_price():
    sentence = advise(made_up(HELPED | {("sliding_window", 64): 0.904}, costs={("sliding_window", 64): 448})).sentence
    assert "come within 0.01 of the sliding window at 64 with 1/14 of its multiply-adds" in sentence


def test_twice_the_size_is_named_where_it_is_beaten():
    assert "beat the rough network alone at 64 (+0.050" in advise(made_up({**HELPED, ("two_stage", 64): 0.851})).sentence


def test_a_sliding_window_that_beats_both_is_advised_instead():
    means = {("rough_only", 32): 0.80, ("two_stage", 32): 0.80, ("sliding_window", 32): 0.85}
    assert answer(means) == (Verdict.DOES_NOT_PAY, "sliding_window", 32)


def test_where_memory_is_short_smaller_crops_may_still_help():
    means = HELPED | {("rough_only", 64): 0.92, ("two_stage", 64): 0.92}
    found = advise(made_up(means))
    assert (found.verdict, found.way, found.size) == (Verdict.DOES_NOT_PAY, "rough_only", 64)
    assert "where no more than 32 fits, two stages help: +0.150" in found.sentence


def test_a_gain_where_the_image_is_hardly_shrunk_is_one_of_longer_training():
    found = made_up({("rough_only", 32): 0.80, ("two_stage", 32): 0.86, ("rough_only", 48): 0.75, ("two_stage", 48): 0.85})
    found.downscaling = {32: 1.6, 48: 1.0}
    said = advise(found)
    assert (said.verdict, said.way, said.size) == (Verdict.DOES_NOT_PAY, "rough_only", 48)
    assert "downscaled by only 1.6x" in said.sentence
    assert "train it longer" in said.sentence
    found.downscaling = {32: 2.0, 48: 1.4}
    assert advise(found).verdict is Verdict.PAYS


def test_reasons_are_given_where_they_were_measured():
    found = made_up({("rough_only", 32): 0.85, ("two_stage", 32): 0.849})
    assert "fill" not in advise(found).sentence
    found.object_share, found.downscaling = 0.8, {32: 1.6}
    assert "the objects' boxes fill 80% of the view and the image is downscaled by only 1.6x" in advise(found).sentence
    found.object_share, found.downscaling = 0.2, {32: 1.0}
    assert "the image is not downscaled" in advise(found).sentence


@pytest.mark.parametrize("ways", [(), ("rough_only",), ("two_stage",), ("sliding_window", "true_boxes"), ("two_stage", "sliding_window")])
def test_missing_ways_leave_it_undecided(ways):
    found = advise(made_up({(way, 32): 0.8 for way in ways}))
    assert found.verdict is Verdict.UNDECIDED
    assert "cannot be told" in found.sentence


def test_sizes_that_do_not_meet_leave_it_undecided():
    assert answer({("two_stage", 32): 0.9, ("rough_only", 64): 0.8})[0] is Verdict.UNDECIDED


def test_cases_without_a_score_are_left_out():
    found = made_up(HELPED, cases=8)
    for score in found.scores:
        if score.case in ("case_00", "case_01"):
            score.values["dice"] = math.nan
    assert advise(found).verdict is Verdict.PAYS
    for score in found.scores:
        score.values["dice"] = math.nan
    assert advise(found).verdict is Verdict.UNDECIDED


@pytest.mark.parametrize("seed", range(40))
def test_any_scores_give_one_sentence_that_agrees_with_them(seed):
    rng = np.random.default_rng(seed)
    places = [(way, size) for way in ("rough_only", "two_stage", "sliding_window", "true_boxes") for size in (16, 32, 64)]
    means = {place: float(rng.uniform(0.6, 0.9)) for place in places if rng.random() < 0.8}
    found = made_up(means, cases=int(rng.integers(1, 12)), noise=float(rng.choice([0.001, 0.05])), seed=seed)
    advice = advise(found)
    assert re.fullmatch(r"(Cropping (pays|does not pay here)|Whether cropping pays cannot be told).*\.", advice.sentence)
    assert not re.search(r"nan|inf|\.\s|-0\.000", advice.sentence)
    assert (advice.size is None) == (advice.way is None) == (advice.verdict is Verdict.UNDECIDED)
    if advice.verdict is Verdict.PAYS:
        assert means["two_stage", advice.size] > means["rough_only", advice.size] + NEGLIGIBLE_DICE
    if advice.size is not None:
        assert (advice.way, advice.size) in means


@pytest.mark.parametrize("seed", range(10))
def test_the_order_of_the_scores_does_not_matter(seed):
    found = made_up(HELPED, cases=6, noise=0.05, seed=seed)
    shuffled = [found.scores[n] for n in np.random.default_rng(seed).permutation(len(found.scores))]
    assert advise(Comparison("b", "d", scores=shuffled)) == advise(found)


def test_more_gain_never_turns_a_yes_into_a_no():
    gains = np.linspace(-0.02, 0.2, 23)
    verdicts = [advise(made_up({("rough_only", 32): 0.7, ("two_stage", 32): 0.7 + g}, noise=0.03, cases=8)).verdict for g in gains]
    order = [Verdict.DOES_NOT_PAY, Verdict.UNDECIDED, Verdict.PAYS]
    ranks = [order.index(v) for v in verdicts]
    assert ranks == sorted(ranks)
    assert set(ranks) == {0, 1, 2}
