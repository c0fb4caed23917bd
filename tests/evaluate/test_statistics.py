from __future__ import annotations

from math import isnan, nan

import numpy as np
import pytest
from scipy import stats

from stseg3d.evaluate import Interval, Row, bootstrap_interval, summarise
from stseg3d.evaluate import statistics as module

DICE = [0.91, 0.88, 0.93, 0.7, 0.85, 0.9, 0.94, 0.89, 0.9, 0.86]


def test_the_interval_is_the_percentile_of_scipys_bootstrap_at_the_expanded_level(monkeypatch: pytest.MonkeyPatch) -> None:
    values, resamples = [0.0, 0.1, 0.3, 0.55, 0.9, 1.0], 200_000
    monkeypatch.setattr(module, "RESAMPLES", resamples)
    tail = stats.norm.cdf(np.sqrt(6 / 5) * stats.t.ppf(0.025, 5))
    options = {"n_resamples": resamples, "confidence_level": 1 - 2 * tail, "method": "percentile", "rng": np.random.default_rng(7)}
    theirs = stats.bootstrap((values,), np.mean, **options).confidence_interval
    ours = bootstrap_interval(values)
    assert ours.mean == pytest.approx(np.mean(values))
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.01)  # both are random


def test_the_same_values_give_the_same_interval_and_the_seed_another() -> None:
    assert bootstrap_interval(DICE, seed=3) == bootstrap_interval(DICE, seed=3)
    assert bootstrap_interval(DICE, seed=3) != bootstrap_interval(DICE, seed=4)


def test_six_cases_give_an_interval_that_holds_the_true_mean_as_often_as_it_says(rng: np.random.Generator) -> None:
    held = 0
    for sample in rng.normal(size=(400, 6)):
        found = bootstrap_interval(sample)
        held += found.low <= 0 <= found.high
    assert 0.91 < held / 400 < 0.98  # plain percentiles hold it in 0.86


def test_an_interval_stays_within_the_values() -> None:
    found = bootstrap_interval([0.0, 1.0, 1.0])
    assert (found.low, found.high) == (0, 1)


def test_a_higher_level_is_wider() -> None:
    narrow, wide = bootstrap_interval(DICE, level=0.5), bootstrap_interval(DICE, level=0.99)
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_batches_leave_no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bootstrap_interval(DICE)
    monkeypatch.setattr(module, "BATCH_VALUES", 7 * len(DICE))  # 10 000 is no multiple of 7
    batched = bootstrap_interval(DICE)
    assert (batched.low, batched.high) == pytest.approx((whole.low, whole.high), abs=0.004)


def test_one_value_has_no_interval_and_none_no_mean() -> None:
    one, none = bootstrap_interval([0.5]), bootstrap_interval([])
    assert (one.mean, one.n) == (0.5, 1)
    assert isnan(one.low)
    assert isnan(one.high)
    assert isnan(none.mean)


def test_values_that_agree_have_an_interval_without_width() -> None:
    assert bootstrap_interval([0.25] * 4) == Interval(0.25, 0.25, 0.25, 4, 0)


def test_undefined_values_are_left_out_and_counted() -> None:
    found = bootstrap_interval([0.5, nan, 0.7])
    assert (found.mean, found.n, found.n_undefined) == (pytest.approx(0.6), 2, 1)
    assert (found.low, found.high) == (0.5, 0.7)


def test_infinite_values_are_refused() -> None:
    with pytest.raises(ValueError, match="must be finite or NaN, got inf"):
        bootstrap_interval([1, np.inf])


def row(case: str, name: str = "foreground", *, prediction: int = 5, label: int = 5, **values: float) -> Row:
    return Row(case, name, values, prediction, label)


def test_a_summary_has_the_statistics_of_numpy() -> None:
    found = summarise([row(str(i), dice=value) for i, value in enumerate(DICE)])[0].metrics["dice"]
    assert (found.mean, found.median, found.sd) == pytest.approx((np.mean(DICE), np.median(DICE), np.std(DICE, ddof=1)))
    assert (found.ci_low, found.ci_high) == (bootstrap_interval(DICE).low, bootstrap_interval(DICE).high)
    assert (found.n, found.n_undefined) == (10, 0)


def test_classes_are_in_order_and_over_the_cases_that_have_them() -> None:
    found = summarise([row("a", dice=1), row("a", "10", dice=0.5), row("a", "2", dice=0.25), row("b", dice=0), row("b", "2", dice=0.75)])
    assert [(s.name, s.cases, s.metrics["dice"].mean) for s in found] == [("foreground", 2, 0.5), ("2", 2, 0.5), ("10", 1, 0.5)]


def test_cases_with_one_empty_mask_are_counted() -> None:
    rows = [row("a", prediction=0), row("b", label=0), row("c", label=0), row("d", prediction=0, label=0), row("e")]
    found = summarise(rows)[0]
    assert (found.cases, found.n_empty_prediction, found.n_empty_label) == (5, 1, 2)


def test_metrics_are_in_the_registry_s_order_and_missing_ones_are_undefined() -> None:
    found = summarise([row("a", hd95_mm=1.0, dice=1.0), row("b", dice=nan)])[0].metrics
    assert list(found) == ["dice", "hd95_mm"]
    assert (found["dice"].n, found["dice"].n_undefined, found["hd95_mm"].n_undefined) == (1, 1, 1)
    assert isnan(found["dice"].sd)
