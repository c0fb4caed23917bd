"""Selection of a model: candidates compared by cross-validation, what follows decided, and the winner written as one bundle."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from stseg3d.bundle import load_network, open_bundle, write_plan
from stseg3d.bundle_folders import PLAN
from stseg3d.evaluate import Interval, bootstrap_interval
from stseg3d.machine.files import atomic_write_text
from stseg3d.machine.tables import Table, json_text
from stseg3d.plan import Output, Plan
from stseg3d.planning.fingerprint import FILE as FINGERPRINT
from stseg3d.planning.fingerprint import Fingerprint, significant
from stseg3d.planning.new_bundle import DATASET, DESCRIPTION
from stseg3d.selection.candidates import fold_folder, is_trained, read_candidates
from stseg3d.selection.cross_validation import Validated, cross_validate
from stseg3d.selection.rules import Step, choose_rules
from stseg3d.selection.splits import Splits, read_splits
from stseg3d.training.ensemble import ensemble_bundles

FILE = Path("selection.json")
LEAST_GAIN = 0.001  # of mean Dice for mirroring, which doubles the time for each axis
QUANTILES = (0.01, 0.05, 0.1, 0.25)  # of the objects' volumes, as least volumes to choose from
SCORES = "Scores are of cases that the networks had not seen, each by the networks of the fold that held it out."
MEAN = "The mean of all folds has no score of its own, as it has seen all cases; most often it is a little better than its parts."
OPTIMISM = "The winner, mirroring and rules were chosen on the cases of these scores: that makes them a little too high."


@dataclass(frozen=True)
class Mirroring:
    """Whether mirrored inputs pay.

    Attributes:
        gain: Difference that they make to the mean Dice, over the cases.
        times: Time of a case with them, over that without.
        kept: Whether they stay.
    """

    gain: Interval
    times: float
    kept: bool


@dataclass(frozen=True)
class Selection:
    """Outcome of a selection.

    Attributes:
        candidates: All candidates without mirroring and rules, the winner first.
        mirroring: Whether mirroring pays, None where the winner's plan has none.
        steps: Rules for components that were tried.
        rules: Those that are kept.
        final: The winner with the mirroring that was decided.
        single: Fold whose networks alone are taken, None for the mean of all.
    """

    candidates: tuple[Validated, ...]
    mirroring: Mirroring | None
    steps: tuple[Step, ...]
    rules: Output
    final: Validated
    single: int | None = None

    def table(self) -> Table:
        """The candidates, the winner first."""
        best = self.candidates[0]
        rows = []
        for one in self.candidates:
            to_best = "" if one is best else _shown(bootstrap_interval(one.values() - best.values()), "+.4f")
            score = one.interval()
            rows.append([one.name, _shown(score, ".4f"), to_best, str(score.n), f"{one.seconds:.2f}"])
        return Table(["candidate", "mean Dice, cross-validated", "difference", "cases", "s a case"], rows, words=1, title="Candidates")

    def decisions(self) -> Table:
        """What was decided for the winner; then its score with all of it."""
        rows = []
        if self.mirroring:
            gain = _shown(self.mirroring.gain, "+.4f")
            rows.append(["mirrored inputs", f"{gain} for {self.mirroring.times:.1f} times the time", _yes(self.mirroring.kept)])
        for step in self.steps:
            what = f"{step.rule} of {step.of}" + ("" if step.value is None else f": {step.value:g}")
            worse = f", worse: {', '.join(step.worse)}" if step.worse else ""
            rows.append([what, f"{step.before:.4f} to {step.after:.4f}{worse}", _yes(step.kept)])
        rows.append(["all that is kept", _shown(self.final.interval(self.rules), ".4f"), ""])
        return Table(["decision", "mean Dice", "kept"], rows, words=3, title="Decisions")

    def as_json(self) -> dict[str, Any]:
        """Everything as plain content for JSON."""
        candidates = {
            one.name: {**asdict(one.interval()), "classes": one.by_class(), "folds": one.by_fold(), "seconds_a_case": one.seconds}
            | {"cases": dict(zip(one.cases, one.values().tolist(), strict=True))}
            for one in self.candidates
        }
        final = {**asdict(self.final.interval(self.rules)), "classes": self.final.by_class(self.rules)}
        return {
            "winner": self.candidates[0].name,
            "form": self.form,
            "score": final,
            "candidates": candidates,
            "mirroring": self.mirroring and asdict(self.mirroring),
            "rules": {"largest_only": list(self.rules.largest_only), "min_volume_mm3": dict(self.rules.min_volume_mm3)},
            "steps": [asdict(step) for step in self.steps],
        }

    @property
    def form(self) -> str:
        """What became of the networks of the folds."""
        if self.single is None:
            return f"mean of the networks of {max(self.final.folds) + 1} folds"
        return f"networks of fold {self.single}, which scored highest on the cases that it held out"


def select_bundle(
    bundle: Path,
    out: Path,
    *,
    single: bool = False,
    device: str = "auto",
    trust: bool = False,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Selection:
    """Compare a bundle's candidates on held-out cases, and write the best one as a bundle.

    The highest mean Dice wins. Mirroring stays if it pays; rules for components are chosen by nnU-Net's rule. A stopped call goes on.

    Args:
        bundle: Folder of the bundle, whose folds :func:`stseg3d.selection.train_folds` has trained.
        out: Folder of the new bundle; must not exist.
        single: Take the networks of the fold that scored highest, instead of the mean of all folds, which takes as many times as long.
            Folds are scored on different cases, so this says little about which is the best.
        device: Device of the networks.
        trust: Run a bundle that is more than data.
        progress: Wrapper of the folds of a candidate, such as a progress bar.

    Raises:
        FileExistsError: If ``out`` exists.
        FileNotFoundError: If there are no folds.
        OSError: If a file cannot be read or written.
        ValueError: If a fold is not trained, a case cannot be segmented, or no held-out case has an object.
    """
    if out.exists():
        msg = f"{out}: folder of the selected bundle must not exist yet"
        raise FileExistsError(msg)
    splits = read_splits(bundle)
    names = list(read_candidates(bundle))
    _ensure_trained(bundle, names, splits)
    plans = {name: _plan_of(bundle, name) for name in names}
    options: dict[str, Any] = {"device": device, "trust": trust, "progress": progress}
    found = [cross_validate(bundle, name, plan, splits, **options) for name, plan in plans.items()]
    found.sort(key=lambda one: -np.nan_to_num(one.interval().mean, nan=-1.0))
    if np.isnan(found[0].interval().mean):
        msg = f"{bundle}: labels of the held-out cases must hold an object, or a prediction one, got none"
        raise ValueError(msg)
    mirroring, final = None, found[0]
    if any(getattr(final.plan, stage).mirror_axes for stage in final.plan.stages):
        mirrored = cross_validate(bundle, final.name, final.plan, splits, mirrored=True, **options)
        mirroring = judge_mirroring(final, mirrored)
        final = mirrored if mirroring.kept else final
    rules, steps = choose_rules(final.pieces, least_volumes(bundle, final.plan))
    best = int(np.nanargmax(final.by_fold(rules))) if single else None
    selection = Selection(tuple(found), mirroring, tuple(steps), rules, final, best)
    _write(bundle, out, selection, len(splits.folds), trust=trust)
    return selection


def judge_mirroring(plain: Validated, mirrored: Validated) -> Mirroring:
    """Whether mirrored inputs pay: their gain is above :data:`LEAST_GAIN`, and so is 0 below its interval."""
    gain = bootstrap_interval(mirrored.values() - plain.values())
    times = mirrored.seconds / max(plain.seconds, 1e-9)
    return Mirroring(gain, times, kept=bool(gain.mean >= LEAST_GAIN and gain.low > 0))


def least_volumes(bundle: Path, plan: Plan) -> dict[str, list[float]]:
    """Least volumes to choose from, by class: quantiles of the volumes in the fingerprint, in pixels for pictures; none without one."""
    if not (bundle / FINGERPRINT).is_file():
        return {}
    fingerprint = Fingerprint.read(bundle / FINGERPRINT)
    values = {name: value for value, name in fingerprint.labels.items()}
    found: dict[str, list[float]] = {}
    for name in plan.classes[1:]:
        volumes = []
        for case in fingerprint.cases:
            objects = case.together if len(plan.classes) == 2 else case.classes.get(values.get(name, ""))
            unit = float(np.prod(case.spacing_mm)) if plan.image.colour else 1.0
            volumes += [volume / unit for volume in (objects.volumes_mm3 if objects else ())]
        if volumes:
            found[name] = sorted({significant(float(v), 3) for v in np.quantile(volumes, QUANTILES) if v > 0})
    return found


def _plan_of(bundle: Path, name: str) -> Plan:
    """Plan of a candidate, as its first fold was trained."""
    path = fold_folder(bundle, name, 0) / PLAN
    return Plan.parse(path.read_bytes(), str(path))


def _ensure_trained(bundle: Path, names: Sequence[str], splits: Splits) -> None:
    folds = len(splits.folds)
    missing = [folder for name in names for n in range(folds) if not is_trained(folder := fold_folder(bundle, name, n))]
    if missing:
        got = f"{len(missing)} of {len(names) * folds} that are not, the first {missing[0]}"
        msg = f"all folds must be trained, got {got}: `stseg3d train {bundle} --folds {folds}` goes on"
        raise ValueError(msg)


def _write(bundle: Path, out: Path, selection: Selection, folds: int, *, trust: bool) -> None:
    """Write the winner's bundle, whole or not at all."""
    final = selection.final
    folders = [fold_folder(bundle, final.name, n) for n in range(folds)]
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        made = Path(temporary, out.name)
        if selection.single is None:
            ensemble_bundles(folders, made, trust=trust)
            shutil.rmtree(made / DATASET.parent)  # that of the first fold
        else:
            shutil.copytree(folders[selection.single], made, ignore=shutil.ignore_patterns("logs", "eval"))
        plan = open_bundle(made, trust=trust).require_plan()
        largest, least = selection.rules.largest_only, selection.rules.min_volume_mm3
        plan = plan.replace(output=replace(plan.output, largest_only=largest, min_volume_mm3=least))
        if selection.mirroring and not selection.mirroring.kept:
            plan = plan.set({f"{stage}#mirror_axes": [] for stage in plan.stages})
        write_plan(made, plan)
        load_network(made, trust=trust)
        atomic_write_text(made / FILE, json_text(selection.as_json()))
        (made / DESCRIPTION).parent.mkdir(exist_ok=True)
        atomic_write_text(made / DESCRIPTION, _description(out.name, selection))
        made.replace(out)


def _description(name: str, selection: Selection) -> str:
    """``docs/README.md`` of the winner: what was compared and decided."""
    told = f"`stseg3d select` made this bundle of the candidate `{selection.final.name}`: {selection.form}."
    scores = f"{SCORES} {MEAN if selection.single is None else ''} {OPTIMISM}".replace("  ", " ")
    text = f"# {name}\n\n{told} {scores}\n\n{selection.table().markdown()}\n{selection.decisions().markdown()}"
    return f"{text}\n`{FILE.name}` has the score of each case.\n"


def _shown(interval: Interval, form: str) -> str:
    """A mean, and its interval if there is one."""
    ends = "" if np.isnan(interval.low) else f" ({format(interval.low, form)} to {format(interval.high, form)})"
    return format(interval.mean, form) + ends


def _yes(kept: bool) -> str:
    return "yes" if kept else "no"
