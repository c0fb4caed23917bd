"""Conformal risk control: the guarantee by simulation, and the rules by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from stseg3d.planning.calibrate import Choice, cases_needed, choose, monotonised, risk_bounds

CHAIN = np.linspace(0, 1, 51)  # from no care to so much that nothing is lost
Losses = Callable[[np.random.Generator, int], np.ndarray]


def partly(rng: np.random.Generator, cases: int) -> np.ndarray:
    return np.maximum(rng.random((cases, 1)) - CHAIN, 0)


def all_or_nothing(rng: np.random.Generator, cases: int) -> np.ndarray:
    return (rng.random((cases, 1)) > CHAIN).astype(float)


def with_relapses(rng: np.random.Generator, cases: int) -> np.ndarray:
    """Losses that fall, but for one setting of each case at which everything is lost, as where components merge."""
    losses = partly(rng, cases)
    losses[np.arange(cases), rng.integers(20, 40, cases)] = 1
    return losses


def expected_loss(losses: Losses, cases: int, coverage: float, costs: np.ndarray, draws: int = 3000) -> tuple[float, float]:
    """Mean loss of one more case under what was chosen on the others, and its standard error."""
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(draws):
        drawn = losses(rng, cases + 1)
        choice = choose(drawn[:-1], costs, coverage)
        assert choice is not None
        assert choice.guaranteed
        seen.append(drawn[-1, choice.index])
    return float(np.mean(seen)), float(np.std(seen) / np.sqrt(draws))


@pytest.mark.parametrize("losses", [partly, all_or_nothing, with_relapses])
@pytest.mark.parametrize(("cases", "coverage"), [(9, 0.85), (40, 0.9)])
def test_a_new_case_loses_no_more_than_was_asked_for(losses: Losses, cases: int, coverage: float) -> None:
    mean, error = expected_loss(losses, cases, coverage, np.arange(len(CHAIN)))
    assert mean <= 1 - coverage + 3 * error


def test_the_bound_is_not_bought_with_needless_care() -> None:
    # Theorem 2 of the paper: at least alpha - 2 / (n + 1), here less one step of the chain.
    mean, error = expected_loss(all_or_nothing, 40, 0.9, np.arange(len(CHAIN)))
    assert mean >= 0.1 - 2 / 41 - 0.02 - 3 * error


def test_without_the_correction_for_few_cases_more_would_be_lost() -> None:
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(3000):
        drawn = all_or_nothing(rng, 10)
        seen.append(drawn[-1, np.flatnonzero(drawn[:-1].mean(axis=0) <= 0.15)[0]])
    assert np.mean(seen) > 0.15 + 3 * np.std(seen) / np.sqrt(len(seen))


def test_any_setting_behind_the_first_may_be_taken_for_its_cost() -> None:
    costs = np.where(np.arange(len(CHAIN)) % 7 == 3, 1.0, 2.0)  # cheaper here and there
    mean, error = expected_loss(with_relapses, 40, 0.9, costs)
    assert mean <= 0.1 + 3 * error


def test_a_more_careful_setting_that_loses_more_counts_against_all_before_it() -> None:
    losses = [[0.9, 0.2, 0.4, 0.1], [0.5, 0.5, 0.0, 0.3]]
    np.testing.assert_array_equal(monotonised(losses), [[0.9, 0.4, 0.4, 0.1], [0.5, 0.5, 0.3, 0.3]])
    # (2 * mean + 1) / 3 of the columns
    np.testing.assert_allclose(risk_bounds(losses), [2.4 / 3, 1.9 / 3, 1.7 / 3, 1.4 / 3])


def test_the_cheapest_setting_that_passes_is_chosen_and_of_equals_the_least_careful() -> None:
    losses = np.repeat([[0.5, 0.02, 0.01, 0.0, 0.0]], 99, axis=0)
    assert choose(losses, [1, 2, 3, 4, 5], 0.97) == Choice(1, guaranteed=True, coverage=pytest.approx(0.97))
    assert choose(losses, [1, 9, 3, 4, 5], 0.97) == Choice(2, guaranteed=True, coverage=pytest.approx(0.97))
    assert choose(losses, [1, 9, 3, 3, 3], 0.97) == Choice(2, guaranteed=True, coverage=pytest.approx(0.97))
    assert choose(losses, [1, 2, 3, 4, 5], 0.98) == Choice(2, guaranteed=True, coverage=pytest.approx(0.98))


@pytest.mark.parametrize(("coverage", "cases"), [(0.99, 99), (0.95, 19), (0.9, 9), (0.5, 1)])
def test_cases_that_are_covered_whole_guarantee_a_coverage_from_some_number_on(coverage: float, cases: int) -> None:
    assert cases_needed(coverage) == cases
    for n, enough in ((cases, True), (cases - 1, False)):
        if n:
            choice = choose(np.zeros((n, 2)), [1, 2], coverage)
            assert choice is not None
            assert (choice.index, choice.guaranteed) == (0, enough)


def test_cases_that_lose_a_little_must_be_more() -> None:
    needed = cases_needed(0.9, risk=0.05)
    assert needed == 18
    for n, enough in ((needed, True), (needed - 1, False)):
        choice = choose(np.full((n, 1), 0.05), [1], 0.9)
        assert choice is not None
        assert choice.guaranteed == enough
    assert cases_needed(0.9, risk=0.1) is None


def test_too_few_cases_give_the_cheapest_that_reaches_the_mean_and_say_what_is_guaranteed() -> None:
    losses = np.array([[0.5, 0.00, 0.0], [0.5, 0.03, 0.0], [0.5, 0.00, 0.0]])
    choice = choose(losses, [1, 2, 3], 0.99)
    assert choice == Choice(1, guaranteed=False, coverage=pytest.approx(3 * 0.99 / 4))


def test_where_no_mean_reaches_the_coverage_nothing_is_chosen() -> None:
    assert choose([[0.5, 0.2], [0.5, 0.1]], [1, 2], 0.99) is None


@pytest.mark.parametrize("coverage", [0.0, 1.0, 1.5, -0.1])
def test_a_coverage_that_cannot_be_guaranteed_is_refused(coverage: float) -> None:
    with pytest.raises(ValueError, match=r"coverage must be above 0 and below 1"):
        choose([[0.0]], [1], coverage)


@pytest.mark.parametrize("losses", [np.zeros((0, 3)), [[0.2, 1.2]], [[np.nan, 0.0]], [0.1, 0.2]])
def test_losses_that_are_none_are_refused(losses: object) -> None:
    with pytest.raises(ValueError, match=r"losses must be \(cases, settings\) in \[0, 1\]"):
        risk_bounds(losses)  # type: ignore[arg-type]
