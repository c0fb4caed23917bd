"""Ablation of the training recipe: each option alone against the plain recipe, on the validation cases, with equal training.

Run: ``python tests/benchmarks/bench_recipe.py BUNDLE dataset.json -o OUT --epochs 30 --rough-epochs 40 --size 32 [--only "NAME;NAME"]``.
The rough network is trained once, with the architecture of the fine one (so that the fine one can start from it), and serves all variants;
each variant then trains its fine network for ``--epochs``, at ``--size`` so that many variants can be afforded. What was trained before in
OUT is not trained again. Differences are paired over cases, with 95 % bootstrap intervals; how far chance alone goes is shown by the plain
recipe with a second seed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stseg3d.bundle import METADATA, WEIGHTS, find_bundle, open_bundle, read_weights, save_weights, write_plan
from stseg3d.compare.measure import score_found
from stseg3d.compare.ways import Contestant
from stseg3d.evaluate import bootstrap_interval
from stseg3d.ops import box_coverage
from stseg3d.plan import Plan, set_entries
from stseg3d.training.ensemble import ensemble_bundles
from stseg3d.training.folds import fold_name
from stseg3d.training.run import train_bundle
from stseg3d.training.stages import STAGES_DIR
from stseg3d.volumes import ArrayVolume, load_dataset, open_volume, read_label

FOLDS = 3
ENSEMBLE_FOLDS = 5  # as many as nnU-Net trains and averages: Isensee et al. 2021, Nature Methods 18:203
PLAIN = {
    "jitter": {"shift": 0.1, "scale": 0.1},
    "negatives": 0.0,
    "ema_decay": 0.0,
    "fine_from_rough": False,
    "predicted_boxes": 0.0,
    "rough_channel": False,
}
COLUMNS = ("dice", "recall", "hd95_mm", "coverage", "crops")


@dataclass(frozen=True)
class Variant:
    """Entries of the plan that differ from the plain recipe.

    ``weights_of`` other variants, by name, where only inference differs; of several, the mean.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    weights_of: Mapping[str, Variant] = field(default_factory=dict)
    seed: int = 0


def variants(plan: Plan) -> dict[str, Variant]:
    """By name, in the order in which they are trained."""
    policy, dynunet = plan.policy, deep_network(plan)
    plain, second = {"plain": Variant()}, {"plain, second seed": Variant(seed=1)}
    folds = without_folds(ENSEMBLE_FOLDS)
    return {
        **plain,
        **second,
        "no jitter": Variant({"jitter": {"shift": 0.0, "scale": 0.0}}),
        "twice the jitter": Variant({"jitter": {"shift": 0.2, "scale": 0.2}}),
        "negative crops, 15 %": Variant({"negatives": 0.15}),
        "weight averaging, 0.99": Variant({"ema_decay": 0.99}),
        "fine from rough": Variant({"fine_from_rough": True}),
        "predicted boxes, half": Variant({"predicted_boxes": 0.5, "folds": FOLDS}),
        "rough channel": Variant({"rough_channel": True, "folds": FOLDS}),
        "aspect kept": Variant({"policy#keep_aspect": not policy.keep_aspect}),
        "DynUNet": Variant({"fine#network": dynunet}),
        "DynUNet, deep supervision": Variant({"fine#network": dynunet | {"deep_supervision": True, "deep_supr_num": 2}}),
        **({"no mirroring at test": Variant({"fine#mirror_axes": []}, plain)} if plan.fine.mirror_axes else {}),
        "half the rough threshold": Variant({"policy#threshold": policy.threshold / 2}, plain),
        "a rough voxel more margin": Variant({"policy#margin_rough_voxels": policy.margin_rough_voxels + 1}, plain),
        "mean of both seeds": Variant({}, plain | second),
        **folds,
        f"mean of {ENSEMBLE_FOLDS} folds": Variant({}, folds),
    }


def without_folds(folds: int) -> dict[str, Variant]:
    """The plain recipe, each time without a fold of the training cases; the seeds differ too, as nnU-Net's folds start from chance."""
    return {
        f"plain, without {fold_name(fold, folds)}": Variant({"train#cases": f"$training_cases(@data, {folds}, {fold})"}, seed=fold)
        for fold in range(folds)
    }


def deep_network(plan: Plan) -> dict[str, Any]:
    """A DynUNet of about the size of the bundle's network, flat where the input is flat."""
    given = plan.fine.network.arguments
    channels = given.get("channels") or given["features"][:-1]
    levels = len(channels)
    return {
        "name": "DynUNet",
        "spatial_dims": 2 if plan.fine.size[-1] == 1 else 3,
        "kernel_size": [3] * levels,
        "strides": [1] + [2] * (levels - 1),
        "upsample_kernel_size": [2] * (levels - 1),
        "filters": [max(c // 2, 8) for c in channels],
    }


class Ablation:
    """One bundle on one data set, all variants in one folder."""

    def __init__(self, bundle: Path, data: Path, folder: Path, *, epochs: dict[str, int], size: int | None) -> None:
        self.bundle, self.data, self.folder = bundle, data, folder
        self.epochs, self.size = epochs, size
        self.cases = [case for case in load_dataset(data).validation if case.label is not None]

    def root(self, name: str) -> Path:
        """Bundle folder of a variant."""
        return self.folder / name.replace(" ", "_").replace(",", "").replace("%", "percent")

    def prepare(self, name: str, variant: Variant) -> Path:
        """Bundle folder of a variant, without weights."""
        root, plan = self.root(name), open_bundle(self.bundle).require_plan()
        size = [min(n, self.size) if n > 1 else 1 for n in plan.fine.size] if self.size else list(plan.fine.size)
        entries = PLAIN | {"epochs": self.epochs, "fine#size": size} | dict(variant.changes)
        changed = set_entries(plan, entries, files=("train.json",))
        (root / METADATA).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.bundle / METADATA, root / METADATA)
        write_plan(root, changed.replace(rough=replace(changed.rough, network=changed.fine.network)))
        return root

    def rough(self) -> Path:
        """Weights of the rough network that all variants share."""
        root = self.folder / "rough"
        path = root / STAGES_DIR / "rough.pt"
        if not path.is_file() or path.with_name("last_rough.pt").is_file():
            self.prepare("rough", Variant())
            train_bundle(root, self.data, stage="rough", device="cpu", seed=0, trust=True)
        return path

    def train(self, name: str, variant: Variant) -> Path:
        """Bundle folder of a variant, trained."""
        root = self.prepare(name, variant)
        if variant.weights_of:
            self._borrow(root, variant.weights_of)
        elif not (root / WEIGHTS).is_file():
            # Before training: options may start from the rough network, or show what it says.
            (root / STAGES_DIR).mkdir(parents=True, exist_ok=True)
            shutil.copy(self.rough(), root / STAGES_DIR / "rough.pt")
            train_bundle(root, self.data, stage="fine", device="cpu", seed=variant.seed, trust=True)
        return root

    def _borrow(self, root: Path, others: Mapping[str, Variant]) -> None:
        """Weights of another variant, trained if need be; of several, one network that is their mean."""
        members = [self.train(name, variant) for name, variant in others.items()]
        if len(members) == 1:
            save_weights(read_weights(members[0] / WEIGHTS), root / WEIGHTS)
            return
        shutil.rmtree(root)
        ensemble_bundles(members, root, stages=["fine"], trust=True)

    def score(self, root: Path) -> dict[str, dict[str, float]]:
        """Metrics by case."""
        contestant = Contestant(root, trust=True)
        out = {}
        for case in self.cases:
            assert case.label is not None
            volume = open_volume(case.image, channels_last=True)
            truth = read_label(case.label, volume, case.label_values)
            found = contestant.segment("two_stage", volume, ArrayVolume(truth.classes[None], volume.grid))
            values = score_found(contestant, found, truth, volume.grid.spacing_mm)
            boxes = found.boxes or []
            out[case.id] = values | {
                "coverage": box_coverage(truth.classes, boxes),
                "crops": float(len(boxes)),
                "seconds": found.seconds["total"],
            }
        return out

    def run(self, name: str, variant: Variant) -> dict[str, Any]:
        """Train and score a variant, or read what was scored before."""
        path = self.folder / f"{name.replace(' ', '_')}.json"
        if not path.is_file():
            start = time.monotonic()
            root = self.train(name, variant)
            record = {"name": name, "cases": self.score(root), "seconds": time.monotonic() - start}
            path.write_text(json.dumps(record))
        found: dict[str, Any] = json.loads(path.read_text())
        return found


def row(found: Mapping[str, Any], plain: Mapping[str, Any]) -> str:
    """A line of the table."""
    cases = sorted(found["cases"])
    columns = {c: np.array([found["cases"][k].get(c, np.nan) for k in cases]) for c in COLUMNS}
    dice = bootstrap_interval(columns["dice"])
    change = bootstrap_interval(columns["dice"] - np.array([plain["cases"][k]["dice"] for k in cases]))
    difference = "" if found["name"] == plain["name"] else f"{change.mean:+.4f} ({change.low:+.4f} to {change.high:+.4f})"
    means = [float(np.nanmean(v)) for v in columns.values()]
    return f"| {found['name']} | {dice.mean:.4f} | {difference} | {means[1]:.3f} | {means[2]:.2f} | {means[3]:.4f} | {means[4]:.1f} |"


def main() -> None:
    """Print one row a variant, as they are done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("dataset", type=Path)
    parser.add_argument("-o", dest="output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=30, help="of the fine network of each variant")
    parser.add_argument("--rough-epochs", type=int, default=40, help="of the rough network that all share")
    parser.add_argument("--size", type=int, help="input of the fine network, along each axis longer than 1 (default: the bundle's)")
    parser.add_argument("--only", type=lambda text: text.split(";"), help="names of variants, separated by semicolons")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    bundle = find_bundle(options.bundle)
    ablation = Ablation(
        bundle, options.dataset, options.output, epochs={"rough": options.rough_epochs, "fine": options.epochs}, size=options.size
    )
    chosen = variants(open_bundle(bundle).require_plan())
    ablation.rough()
    print("| variant | Dice | difference (95 % CI) | recall | HD95 [mm] | coverage | crops |\n|---|---|---|---|---|---|---|")
    plain = ablation.run("plain", chosen["plain"])
    for name, variant in chosen.items():
        if options.only is None or name in options.only or name == "plain":
            print(row(ablation.run(name, variant), plain), flush=True)


if __name__ == "__main__":
    main()
