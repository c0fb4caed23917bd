"""Choice of rules for components by nnU-Net's rule: what helps on held-out cases, and harms no class.

nnU-Net keeps only the largest component of the foreground if that raises the mean Dice and lowers that of no class, and then that of each
class for which it raises the class's Dice (Isensee et al. 2021, Nature Methods 18:203, Methods, "Empirical parameters"). A least volume
for each class is chosen here in the same way.
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
        worse: Classes that the rule makes worse.
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
    before, after = class_means(pieces, rules), class_means(pieces, whole)
    worse = tuple(name for name, a, b in zip(classes[1:], before, after, strict=True) if b < a)
    old, new = mean_dice(pieces, rules), mean_dice(pieces, whole)
    steps.append(Step("largest_only", FOREGROUND, None, old, new, kept=new > old and not worse, worse=worse))
    rules = whole if steps[-1].kept else rules
    for n, name in enumerate(classes[1:] if len(classes) > 2 else ()):
        tried = replace(rules, largest_only=(*rules.largest_only, name))
        before_of, after_of = class_means(pieces, rules)[n], class_means(pieces, tried)[n]
        steps.append(Step("largest_only", name, None, before_of, after_of, kept=after_of > before_of))
        rules = tried if steps[-1].kept else rules
    for n, name in enumerate(classes[1:]):
        before_of, best = float(class_means(pieces, rules)[n]), rules
        for value in least_mm3.get(name, ()):
            tried = replace(rules, min_volume_mm3={**rules.min_volume_mm3, name: value})
            after_of, best_of = class_means(pieces, tried)[n], class_means(pieces, best)[n]
            steps.append(Step("min_volume_mm3", name, value, before_of, after_of, kept=after_of > best_of))
            best = tried if steps[-1].kept else best
        rules = best
    return rules, _last_kept(steps)


def class_means(pieces: Sequence[Pieces], rules: Output) -> NDArray[np.float64]:
    """Mean Dice of each class over the cases; NaN for one that occurs in none."""
    return _mean(np.array([one.dice(rules) for one in pieces]), axis=0)


def case_means(pieces: Sequence[Pieces], rules: Output) -> NDArray[np.float64]:
    """Mean Dice of each case over its classes; NaN for one without any."""
    return _mean(np.array([one.dice(rules) for one in pieces]), axis=1)


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
