"""Comparisons with the scores that a test needs, made without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from stseg3d.compare.comparison import Comparison, Score

Place = tuple[str, int]
# Multiply-adds in units of 1e9, as they grow in three dimensions; the sliding window covers the image whatever its size.
COSTS = {"rough_only": 1.0, "two_stage": 4.0, "true_boxes": 3.0}


def made_up(
    means: Mapping[Place, float], *, cases: int = 20, noise: float = 0.002, costs: Mapping[Place, float] | None = None, seed: int = 0
) -> Comparison:
    """A comparison with these mean Dice: cases are harder or easier by the same in every way, and then by ``noise``."""
    rng = np.random.default_rng(seed)
    difficulty = centred(0.05 * rng.standard_normal(cases))
    scores: list[Score] = []
    for (way, size), mean in means.items():
        dice = mean + difficulty + centred(noise * rng.standard_normal(cases))
        macs = 1e9 * ((costs or {}).get((way, size)) or COSTS.get(way, 0) * (size / 32) ** 3 or 100)
        scores += [score(f"case_{n:02d}", way, size, float(d), macs) for n, d in enumerate(dice)]
    return Comparison("spine_segmentation", "spine", scores=scores)


def score(case: str, way: str, size: int, dice: float, macs: float = 1e9) -> Score:
    values = {"dice": dice, "recall": dice, "precision": dice, "hd95_mm": 10 * (1 - dice), "nsd": dice}
    seconds = {"read": 0.5, "rough": 0.1, "total": 0.7}
    return Score(case, way, (size,) * 3, size, values, 0.99, macs, seconds, boxes=2, peak_memory_bytes=2**29)


def centred(values: np.ndarray) -> np.ndarray:
    """With mean 0, so that the means of a comparison are what a test asked for."""
    return values - values.mean()


def all_ways(sizes: Sequence[int] = (32, 64), *, cases: int = 20) -> Comparison:
    return made_up({(way, size): 0.8 for way in ("rough_only", "two_stage", "sliding_window", "true_boxes") for size in sizes}, cases=cases)
