"""Choice of rules for components by nnU-Net's rule: what helps on held-out cases, and harms no class.

nnU-Net keeps only the largest component of the foreground if that raises the mean Dice and lowers that of no class, and then that of each
class for which it raises the class's Dice (Isensee et al. 2021, Nature Methods 18:203, Methods, "Empirical parameters"). A least volume
for each class is chosen here in the same way. Where a plan has regions, their mean counts, and no rule may make one of them worse.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from stseg3d.ops.cleaning import FOREGROUND
from stseg3d.plan import Output
from stseg3d.selection.pieces import Pieces


@dataclass(frozen=True)
class Step:
    """One rule that was tried.

    Attributes:
        rule: ``"largest_only"`` or ``"min_volume_mm3"``.
        of: Name of the class, or ``"foreground"`` for all together.
        value: Least volume, if it is about that.
        before: Mean Dice before: of the class, or of all.
        after: Mean Dice with it.
        kept: Whether the rule is kept.
        worse: Classes and regions that the rule makes worse, if it is about all together; else regions.
    """

    rule: str
    of: str
    value: float | None
    before: float
    after: float
    kept: bool
    worse: tuple[str, ...] = ()


def choose_rules(pieces: Sequence[Pieces], least_mm3: Mapping[str, Sequence[float]]) -> tuple[Output, list[Step]]:
    """Rules that are kept, and all that were tried.

    Args:
        pieces: Predictions for held-out cases, of which there is one at least.
        least_mm3: Least volumes to choose from, by class.
    """
    classes = pieces[0].classes
    rules, steps = Output(), []
    whole = replace(rules, largest_only=(FOREGROUND,))
    old, new, worse = mean_dice(pieces, rules), mean_dice(pieces, whole), _worse(pieces, rules, whole, pieces[0].names)
    steps.append(Step("largest_only", FOREGROUND, None, old, new, kept=new > old and not worse, worse=worse))
    rules = whole if steps[-1].kept else rules
    for name in classes[1:] if len(classes) > 2 else ():
        tried = replace(rules, largest_only=(*rules.largest_only, name))
        steps.append(_step(pieces, "largest_only", name, None, rules, rules, tried))
        rules = tried if steps[-1].kept else rules
    for name in classes[1:]:
        best = rules
        for value in least_mm3.get(name, ()):
            tried = replace(rules, min_volume_mm3={**rules.min_volume_mm3, name: value})
            steps.append(_step(pieces, "min_volume_mm3", name, value, rules, best, tried))
            best = tried if steps[-1].kept else best
        rules = best
    return rules, _last_kept(steps)


def _step(pieces: Sequence[Pieces], rule: str, of: str, value: float | None, before: Output, best: Output, tried: Output) -> Step:
    """A rule for one class: kept if it is better for the class than the best so far, and makes no region worse."""
    n = pieces[0].names.index(of)
    old, top, new = (float(class_means(pieces, rules)[n]) for rules in (before, best, tried))
    worse = _worse(pieces, before, tried, tuple(pieces[0].regions))
    return Step(rule, of, value, old, new, kept=new > top and not worse, worse=worse)


def _worse(pieces: Sequence[Pieces], before: Output, after: Output, names: Sequence[str]) -> tuple[str, ...]:
    """Those of the classes and regions that are worse with the new rules."""
    means = zip(pieces[0].names, class_means(pieces, before), class_means(pieces, after), strict=True)
    return tuple(dict.fromkeys(name for name, old, new in means if name in names and new < old))


def class_means(pieces: Sequence[Pieces], rules: Output) -> NDArray[np.float64]:
    """Mean Dice of each class, and of each region, over the cases; NaN for one that occurs in none."""
    return _mean(np.array([one.dice(rules) for one in pieces]), axis=0)


def case_means(pieces: Sequence[Pieces], rules: Output) -> NDArray[np.float64]:
    """Mean Dice of each case over its classes, or over its regions if there are any named; NaN for one without any."""
    first = len(pieces[0].classes) - 1 if pieces[0].regions else 0
    return _mean(np.array([one.dice(rules)[first:] for one in pieces]), axis=1)


def mean_dice(pieces: Sequence[Pieces], rules: Output) -> float:
    """Mean over cases of the mean Dice over classes."""
    return float(_mean(case_means(pieces, rules), axis=0))


def _last_kept(steps: Sequence[Step]) -> list[Step]:
    """The steps, with only the last of several least volumes of a class as kept, since each replaces the former."""
    last = {step.of: n for n, step in enumerate(steps) if step.kept and step.value is not None}
    return [replace(step, kept=step.kept and (step.value is None or last[step.of] == n)) for n, step in enumerate(steps)]


def _mean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mean of empty slice", category=RuntimeWarning)
        mean: NDArray[np.float64] = np.nanmean(values, axis=axis)
    return mean
