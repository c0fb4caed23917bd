"""Results of a calibration: a row for each policy, the chosen one, and its guarantee."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stseg3d.machine.tables import Table, records_text
from stseg3d.planning.calibrate import Choice, cases_needed, choose, monotonised, risk_bounds
from stseg3d.planning.measure import Calibrator, Measured

TRAINING = "training"  # the networks have seen these cases: no guarantee for new ones
PART_ADVICE = {
    TRAINING: "Calibrate on cases that were kept out of training",
    "validation": "Validation cases on which the checkpoint or other settings were chosen are not quite exchangeable with new ones",
    "test": "The test cases must have played no part in choosing the checkpoint or other settings",
}


@dataclass(frozen=True)
class Row:
    """Results of one policy over all cases."""

    threshold: float  # its threshold
    margin: float  # its margin, of the kind that is calibrated
    mean: float  # mean coverage of the cases
    worst: float  # lowest coverage of a case
    # Largest coverage at which the policy passes, in expectation over new cases; None for the present policy, which is not part of the
    # chain, and for training cases.
    guaranteed: float | None
    boxes: float  # mean number of boxes per case
    crop_voxels: float  # mean voxels that go through the fine network
    voxels: float  # mean full-resolution voxels read


@dataclass(frozen=True)
class Calibration:
    """Rows of the chain, the choice among them, and sentences about it."""

    margin: str  # name of the margin that is calibrated
    part: str  # part of the data set
    coverage: float  # wanted coverage
    cases: list[str]  # ids of the cases
    rows: list[Row]  # one row per policy of the chain
    present: Row  # row of the bundle's present policy
    choice: Choice | None  # chosen row; None if none reaches the coverage
    worst_case: str  # id of the case with the lowest coverage under the chosen policy
    # Number of cases that guarantee the coverage: at least, and with losses like these (None: no number does).
    needed: tuple[int, int | None]

    @classmethod
    def of(cls, calibrator: Calibrator, measured: Sequence[Measured], part: str, coverage: float) -> Calibration:
        """Calibration from measured cases.

        Raises:
            ValueError: If there is no case, or ``coverage`` is not above 0 and below 1.
        """
        least = cases_needed(coverage) or 0
        # The cost is the number of voxels read: by the number of crops, a single crop of the whole image would win.
        losses = np.stack([m.loss for m in measured]) if measured else np.zeros((0, 0))
        chain = losses[:, :-1]
        guaranteed = 1 - risk_bounds(chain)
        voxels, boxes = (np.mean([getattr(m, name) for m in measured], axis=0) for name in ("voxels", "boxes"))
        choice = choose(chain, voxels[:-1], coverage)
        if choice and part == TRAINING:
            choice = replace(choice, guaranteed=False, coverage=0.0)
        policies = (*calibrator.chain, calibrator.own)
        rows = [
            Row(
                threshold=float(policy.threshold),
                margin=float(getattr(policy, calibrator.margin)),
                mean=float(1 - losses[:, i].mean()),
                worst=float(1 - losses[:, i].max()),
                guaranteed=float(guaranteed[i]) if i < len(guaranteed) and part != TRAINING else None,
                boxes=float(boxes[i]),
                crop_voxels=float(boxes[i] * calibrator.crop_voxels),
                voxels=float(voxels[i]),
            )
            for i, policy in enumerate(policies)
        ]
        index = choice.index if choice else len(guaranteed) - 1
        needed = least, cases_needed(coverage, float(monotonised(chain)[:, index].mean()))
        worst = measured[int(losses[:, index].argmax())].case
        return cls(calibrator.margin, part, coverage, [m.case for m in measured], rows[:-1], rows[-1], choice, worst, needed)

    @property
    def chosen(self) -> Row | None:
        """Row of the chosen policy."""
        return self.rows[self.choice.index] if self.choice else None

    @property
    def numbers(self) -> dict[str, float]:
        """Values to write into the bundle, by field of the policy; empty if nothing was chosen."""
        return {"threshold": self.chosen.threshold, self.margin: self.chosen.margin} if self.chosen else {}

    def table(self) -> str:
        """Text table of the rows; ``*`` marks the chosen one, ``now`` the present one."""
        names = ["", "threshold", self.margin, "mean", "worst", "guaranteed", "boxes", "fine voxels", "voxels read"]
        marked = [("*" if row is self.chosen else "", row) for row in self.rows] + [("now", self.present)]
        return Table(names, [[mark, *_cells(row)] for mark, row in marked], words=0).text()

    def sentences(self) -> list[str]:
        """Sentences on what was measured, what is guaranteed, and under which conditions."""
        return [self._measured(), self._guaranteed(), self._rests_on()]

    def dump(self, suffix: str) -> str:
        """Rows as ``.csv``, or everything as ``.json``.

        Raises:
            ValueError: If the suffix is neither.
        """
        index = self.choice.index if self.choice else None
        records = [self._record(row) | {"chosen": i == index, "present": False} for i, row in enumerate(self.rows)]
        records.append(self._record(self.present) | {"chosen": False, "present": True})
        kept = {name: getattr(self, name) for name in ("part", "coverage", "cases", "worst_case", "needed")}
        choice = self.choice and {"guaranteed": self.choice.guaranteed, "guaranteed_coverage": self.choice.coverage, **self.numbers}
        return records_text(suffix, records, {**kept, "choice": choice, "says": self.sentences(), "policies": records})

    def _record(self, row: Row) -> dict[str, Any]:
        return {self.margin if name == "margin" else name: value for name, value in vars(row).items()}

    def _measured(self) -> str:
        row = self.chosen
        if row is None:
            best = max(self.rows, key=lambda r: r.mean)
            where = f"threshold {best.threshold:g} and {self.margin} {best.margin:g}"
            said = f"No policy puts {self.coverage:.4g} of the objects' voxels into boxes"
            return f"{said}: on {self._cases()} the best mean is {best.mean:.4f}, at {where}; nothing is chosen."
        times = f", reading {row.voxels / self.present.voxels:.2f} times the voxels of the present policy" if self.present.voxels else ""
        held = f"the boxes hold {row.mean:.4f} of the objects' voxels on average and {row.worst:.4f} in the worst case ({self.worst_case})"
        return f"Chosen: threshold {row.threshold:g} and {self.margin} {row.margin:g}. On {self._cases()} {held}{times}."

    def _guaranteed(self) -> str:
        if self.part == TRAINING:
            return "Nothing is guaranteed: the networks have seen the training cases, and do worse on new ones."
        if self.choice and self.choice.guaranteed:
            return f"Guaranteed: {self.coverage:.4g} on average over new cases."
        least, likely = self.needed
        with_these = "; with losses like these no number does"
        if likely is not None:
            with_these = f", about {likely} with losses like these" if likely > least else ""
        have = f" These {len(self.cases)} guarantee {self.choice.coverage:.4f}, on average over new cases." if self.choice else ""
        return f"Not guaranteed: that takes {least} cases if all are covered whole{with_these}.{have}"

    def _rests_on(self) -> str:
        return (
            "A guarantee is one for the mean over new cases, not for each, and holds for cases exchangeable with these: same scanners and "
            f"population, one case a patient (several count as one). {PART_ADVICE[self.part]}."
        )

    def _cases(self) -> str:
        return f"{len(self.cases)} {self.part} case{'s' if len(self.cases) > 1 else ''}"


def _cells(row: Row) -> list[str]:
    guaranteed = "" if row.guaranteed is None else f"{row.guaranteed:.4f}"
    shares = [f"{row.threshold:g}", f"{row.margin:g}", f"{row.mean:.4f}", f"{row.worst:.4f}", guaranteed]
    return [*shares, f"{row.boxes:.1f}", f"{row.crop_voxels:,.0f}", f"{row.voxels:,.0f}"]
