"""Advice in one sentence: whether cropping pays on this data, and at what size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from stseg3d.compare.comparison import WAY_TITLES, Comparison
from stseg3d.compare.means import Difference, Place, difference_of, mean_of

MIN_CASES = 5  # bootstrap intervals of fewer are far too short
NEGLIGIBLE_DICE = 0.005  # retraining with another seed moves the mean by as much
SMALL_DICE = 0.01  # a larger difference matters in the choice of a size even within the noise
LARGE_SHARE = 0.5  # of the field of view: a crop can enlarge such an object by 2 ** (1/3) along an axis
MIN_DOWNSCALING = 2.0  # below it the paper's own gain vanishes: Benčević et al. 2023, U-Net from 128 on images of 256


class Verdict(Enum):
    """Verdict of the comparison on cropping."""

    PAYS = "pays"
    DOES_NOT_PAY = "does not pay"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Advice:
    """Advice on cropping."""

    verdict: Verdict  # whether cropping pays
    way: str | None  # way to use; None if undecided
    size: int | None  # its nominal size; None if undecided
    sentence: str  # the advice for a reader, with its numbers


@dataclass(frozen=True)
class Ground:
    """Scores and costs on which the rules are based."""

    comparison: Comparison

    def score(self, place: Place) -> float:
        """Mean Dice; NaN without cases."""
        return mean_of(self.comparison, "dice", place).mean

    def cost(self, place: Place) -> float:
        """Mean multiply-adds in units of 1e9; NaN if unknown."""
        return mean_of(self.comparison, "gmacs", place).mean

    def gain(self, one: Place, other: Place) -> Difference | None:
        """Paired difference of Dice."""
        return difference_of(self.comparison, "dice", one, other)

    def places(self, way: str) -> list[Place]:
        """The way at each size where it has a score."""
        return [(way, size) for size in self.comparison.sizes if math.isfinite(self.score((way, size)))]

    def smallest_good(self, way: str) -> Place | None:
        """The way at its smallest size that is as good as its best, but for negligible differences, or small ones within the noise."""
        places = self.places(way)
        if not places:
            return None
        best = max(places, key=self.score)
        return next(place for place in places if place == best or self._is_as_good(place, best))

    def rivals(self, of: Place) -> list[Difference]:
        """Differences of each way with one network, at each size, from ``of``."""
        found = [self.gain(place, of) for way in ("rough_only", "sliding_window") for place in self.places(way)]
        return [difference for difference in found if difference is not None]

    def _is_as_good(self, place: Place, best: Place) -> bool:
        loss = self.gain(best, place)
        if loss is None:
            return False
        mean, low = loss.interval.mean, loss.interval.low
        return mean <= NEGLIGIBLE_DICE or (mean <= SMALL_DICE and low <= 0)


def advise(comparison: Comparison) -> Advice:
    """Advice on whether cropping pays, from scores of at least ``rough_only`` and ``two_stage``.

    It pays at a size if three things hold. Two stages are better than the rough network alone, beyond the noise and by more than is
    negligible. No single network, at any size, is as good for at most the same multiply-adds. The image is downscaled at least 2 times
    for the rough network; otherwise crops show nothing new, and the gain comes from longer training. In doubt cropping does not pay. The
    advised size is the smallest that is as good as the best.
    """
    ground = Ground(comparison)
    place = ground.smallest_good("two_stage")
    gain = place and ground.gain(place, ("rough_only", place[1]))
    if not place or not gain:
        return _undecided("Whether cropping pays cannot be told: no case has a Dice both of two stages and of the rough network alone.")
    if gain.interval.n < MIN_CASES:
        change = f"two stages change Dice by {gain.interval.mean:+.3f} at {place[1]}"
        return _undecided(f"Whether cropping pays cannot be told from {_count(gain)}, at least {MIN_CASES} are needed: {change}.")
    return _verdict(ground, gain)


def _verdict(ground: Ground, gain: Difference) -> Advice:
    """Advice from enough cases."""
    place = gain.one
    if gain.interval.mean <= NEGLIGIBLE_DICE:
        return _no_gain(ground, gain)
    if gain.interval.low <= 0:
        change = f"at {place[1]} two stages change Dice by {_interval(gain)}"
        return _undecided(f"Whether cropping pays cannot be told from {_count(gain)}: {change}; score more cases.")
    if ground.comparison.downscaling.get(place[1], math.inf) < MIN_DOWNSCALING:
        return _no_need(ground, gain)
    if cheaper := _as_good_for_less(ground, place):
        return _matched(ground, place, cheaper)
    return _pays(ground, gain)


def _no_gain(ground: Ground, gain: Difference) -> Advice:
    way, size = _single_network(ground)
    what = "beyond the noise" if gain.interval.high < 0 else "within the noise" if gain.interval.low <= 0 else "which is negligible"
    first = f"Cropping does not pay here: at {gain.one[1]} two stages change Dice by {_interval(gain)}, {what}"
    return Advice(
        Verdict.DOES_NOT_PAY, way, size, "; ".join([first, *_reasons(ground, gain), f"{_order(way, size)}{_below(ground, size)}."])
    )


def _no_need(ground: Ground, gain: Difference) -> Advice:
    """Advice where the rough network sees nearly every voxel, so that a gain of the second one is not one of resolution."""
    size = max(size for way, size in ground.places("rough_only"))
    sentence = (
        f"Cropping should not pay here: {' and '.join(_reasons(ground, gain))} at {gain.one[1]}, so that two stages change Dice by"
        f" {_interval(gain)} says that the rough network has not learned all it can, not that it sees too little; train it longer: one"
        f" network on the whole image at {size}."
    )
    return Advice(Verdict.DOES_NOT_PAY, "rough_only", size, sentence)


def _below(ground: Ground, size: int) -> str:
    """A clause about the largest smaller size where crops do help, for users with too little memory."""
    gains = [ground.gain(place, ("rough_only", place[1])) for place in ground.places("two_stage") if place[1] < size]
    helped = [gain for gain in gains if gain and _is_real(gain)]
    return f" (where no more than {helped[-1].one[1]} fits, two stages help: {_interval(helped[-1])})" if helped else ""


def _matched(ground: Ground, place: Place, cheaper: Difference) -> Advice:
    way, size = cheaper.one
    ours, theirs = ground.score(place), ground.score(cheaper.one)
    what = f"{_of(way)} at {size} reaches Dice {theirs:.3f} with {_ratio(ground, cheaper.one, place)} the multiply-adds"
    sentence = f"Cropping does not pay here: {what} of two stages at {place[1]} (Dice {ours:.3f}); {_order(way, size)}."
    return Advice(Verdict.DOES_NOT_PAY, way, size, sentence)


def _pays(ground: Ground, gain: Difference) -> Advice:
    place, size = gain.one, gain.one[1]
    doubled = ground.gain(place, ("rough_only", 2 * size))
    shown = doubled if doubled is not None and doubled.interval.low > 0 else gain
    score, interval = f"Dice {ground.score(place):.3f}", _interval(shown)
    first = f"Cropping pays: two stages at {size} ({score}) beat the rough network alone at {shown.other[1]} ({interval})"
    better = _better(ground, place)
    rest = f"; {better}" if better else _against_window(ground, place)
    return Advice(Verdict.PAYS, *place, f"{first}{rest}; use {size}.")


def _against_window(ground: Ground, place: Place) -> str:
    """A clause about the sliding window, if it is no better beyond the noise, or only negligibly."""
    window = ground.smallest_good("sliding_window")
    gain = window and ground.gain(place, window)
    if not window or not gain:
        return ""
    if abs(gain.interval.mean) <= SMALL_DICE:
        what = f"come within {SMALL_DICE} of the sliding window at {window[1]}"
    elif gain.interval.low > 0:
        what = f"the sliding window at {window[1]} ({_interval(gain)})"
    else:
        what = f"differ from the sliding window at {window[1]} within the noise ({_interval(gain)})"
    cost = _ratio(ground, place, window)
    return f" and {what}" + (f" with {cost} its multiply-adds" if cost else "")


def _better(ground: Ground, place: Place) -> str:
    """A clause about the best single network, if it is better beyond the noise, for a higher cost."""
    best = max(filter(_is_real, ground.rivals(place)), key=lambda r: r.interval.mean, default=None)
    if best is None:
        return ""
    cost = _ratio(ground, best.one, place)
    return f"{_of(best.one[0])} at {best.one[1]} is better still ({_interval(best)})" + (f" for {cost} the multiply-adds" if cost else "")


def _as_good_for_less(ground: Ground, place: Place) -> Difference | None:
    """The cheapest single network that is as good for at most the same multiply-adds."""
    limit = ground.cost(place)
    found = [r for r in ground.rivals(place) if r.interval.mean >= -NEGLIGIBLE_DICE and ground.cost(r.one) <= limit]
    return min(found, key=lambda r: ground.cost(r.one), default=None)


def _single_network(ground: Ground) -> Place:
    """The rough network alone at its smallest good size, or the sliding window if that is better beyond the noise."""
    alone, window = ground.smallest_good("rough_only"), ground.smallest_good("sliding_window")
    assert alone is not None  # there is a gain over it
    gain = window and ground.gain(window, alone)
    return window if window and gain and _is_real(gain) else alone


def _is_real(gain: Difference) -> bool:
    """Whether it lies beyond the noise, and is more than negligible."""
    return gain.interval.low > 0 and gain.interval.mean > NEGLIGIBLE_DICE


def _reasons(ground: Ground, gain: Difference) -> list[str]:
    """Measured reasons why crops cannot help much, in one clause if there are any."""
    share, ratio = ground.comparison.object_share, ground.comparison.downscaling.get(gain.one[1], math.nan)
    found = [f"the objects' boxes fill {share:.0%} of the view"] if share >= LARGE_SHARE else []
    found += [f"the image is downscaled by only {ratio:.1f}x"] if 1 < ratio < MIN_DOWNSCALING else []
    found += ["the image is not downscaled"] if ratio <= 1 else []
    return [" and ".join(found)] if found else []


def _order(way: str, size: int) -> str:
    if way == "rough_only":
        return f"train one network on the whole image at {size}"
    return f"use one network in a {WAY_TITLES[way]} of {size}"


def _of(way: str) -> str:
    return {"rough_only": "the rough network alone", "sliding_window": "the sliding window"}.get(way, WAY_TITLES[way])


def _ratio(ground: Ground, one: Place, other: Place) -> str:
    """Ratio of the multiply-adds, in words: ``1/14 of``, ``3.2 times``; empty if unknown."""
    ratio = ground.cost(one) / ground.cost(other) if ground.cost(other) else math.nan
    if not math.isfinite(ratio) or ratio <= 0:
        return ""
    return f"1/{1 / ratio:.0f} of" if ratio <= 2 / 3 else f"{ratio:.1f} times"


def _interval(difference: Difference) -> str:
    mean, low, high = (f"{round(v, 3) + 0.0:+.3f}" for v in (difference.interval.mean, difference.interval.low, difference.interval.high))
    return f"{mean}, 95 % CI {low} to {high}"


def _count(gain: Difference) -> str:
    return "one case" if gain.interval.n == 1 else f"{gain.interval.n} cases"


def _undecided(sentence: str) -> Advice:
    return Advice(Verdict.UNDECIDED, None, None, sentence)
