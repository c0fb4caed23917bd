"""Seconds and memory of every metric of 512 x 512 x 300 masks, and what the choices in ``stseg3d.metrics.surfaces`` are worth.

Run: ``python tests/benchmarks/bench_metrics.py``. Each kind of mask is scored in a process of its own, so that its peak memory is its own;
its making, two masks of 75 MiB each and the imports are in it (Linux). The last lines compare ways to the same distances: a tree of
surface voxels, and distance transforms of scipy and SimpleITK.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from stseg3d.metrics import score_masks, score_objects
from stseg3d.metrics.surfaces import distances_to, find_surface, tight_slices

SHAPE = (512, 512, 300)
SPACING_MM = (0.7, 0.7, 1.0)
Masks = tuple[NDArray[np.bool_], NDArray[np.bool_]]


def balls(*balls: tuple[tuple[float, ...], float]) -> NDArray[np.bool_]:
    """Balls of these centres and radii."""
    mask = np.zeros(SHAPE, bool)
    for centre, radius in balls:
        low, high = (np.clip([round(c + sign * radius) for c in centre], 0, SHAPE) for sign in (-1, 1))
        box = tuple(map(slice, low, high))
        mask[box] |= sum((g - c) ** 2 for g, c in zip(np.ogrid[box], centre, strict=True)) <= radius**2
    return mask


def organ() -> Masks:
    """One object of the size of a liver, a little displaced."""
    return balls(((200, 220, 150), 90)), balls(((203, 220, 149), 91))


def body() -> Masks:
    """An object that fills most of the image."""
    i, j, k = np.ogrid[tuple(map(slice, SHAPE))]
    return tuple((((i - c) / 240) ** 2 + ((j - 256) / 200) ** 2 <= 1) & (k >= c - 253) for c in (253, 256))  # type: ignore[return-value]


def lesions() -> Masks:
    """Some 300 small objects, all over the image; a third of the predicted ones are false."""
    rng = np.random.default_rng(0)
    true = [(tuple(rng.uniform(12, np.subtract(SHAPE, 12))), rng.uniform(3, 12)) for _ in range(300)]
    near = [(tuple(np.add(c, rng.normal(0, 2, 3))), r) for c, r in true[:200]]
    false = [(tuple(rng.uniform(12, np.subtract(SHAPE, 12))), 5.0) for _ in range(100)]
    return balls(*near, *false), balls(*true)


def noise() -> Masks:
    """What a network predicts that learned nothing: a tenth of all voxels."""
    rng = np.random.default_rng(0)
    mask = np.zeros(SHAPE, bool)
    for plane in mask:
        plane[:] = rng.random(plane.shape, np.float32) < 0.1
    return mask, balls(((256, 256, 150), 100))


KINDS: dict[str, Callable[[], Masks]] = {kind.__name__: kind for kind in (organ, body, lesions, noise)}


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare_ways() -> None:
    """A tree against distance transforms, on two organs and on noise."""
    for name, (ours, theirs) in {"organ": organ(), "noise, an eighth": tuple(m[128:256, 128:384, 75:225] for m in noise())}.items():
        box = tight_slices(ours | theirs)
        near, far = find_surface(ours[box]), find_surface(theirs[box])
        alone, targets = (np.argwhere(mask) * SPACING_MM for mask in (near & ~far, far))
        ways = {
            "tree": lambda: cKDTree(targets, balanced_tree=False).query(alone, workers=-1),  # noqa: B023
            "SimpleITK": lambda: distances_to(far, SPACING_MM),  # noqa: B023
            "scipy": lambda: ndimage.distance_transform_edt(~far, sampling=SPACING_MM),  # noqa: B023
        }
        seconds = ", ".join(f"{way} {timed(work):.2f} s" for way, work in ways.items())
        print(f"{name}: {len(alone)} to {len(targets)} surface voxels in {near.size} voxels: {seconds}")


def main() -> None:
    """Print a row a kind of mask, and the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", nargs="?", choices=KINDS)
    options = parser.parse_args()
    if options.kind is None:
        print("| masks | score_masks, s | score_objects, s | peak MiB |\n|---|---|---|---|", flush=True)
        for kind in KINDS:
            subprocess.run([sys.executable, __file__, kind], check=True)
        compare_ways()
        return
    masks = KINDS[options.kind]()
    seconds = timed(lambda: score_masks(*masks, SPACING_MM)), timed(lambda: score_objects(*masks, objects="components"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # Linux counts in KiB
    print(f"| {options.kind} | {seconds[0]:.1f} | {seconds[1]:.1f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
