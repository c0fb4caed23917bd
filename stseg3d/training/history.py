"""History of a training, one JSON object a line, so that runs can be compared.

MONAI's ``MetricLogger`` keeps such numbers in memory, and its ``MetricsSaver`` writes those of the last validation only.
"""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from stseg3d.training.engine import TimeBudget
from stseg3d.training.processes import from_all, rank


class History:
    """Handler: each validation adds a line ``{"epoch", "metric", "loss", "seconds"}`` to a file.

    ``metric`` is the key metric, ``loss`` the mean training loss of all processes since the line before, and ``seconds`` the wall time of
    the training, including that before a kill. A new training begins a new file. Attach it after the handler that resumes.
    """

    def __init__(self, path: str | Path, evaluator: Engine, budget: TimeBudget) -> None:
        self.path, self.evaluator, self.budget = Path(path), evaluator, budget
        self.losses: list[float] = []
        self.last = 0

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        self.evaluator.add_event_handler(Events.COMPLETED, self._write)

    def _begin(self, engine: Engine) -> None:
        self.losses, self.last = [], engine.state.epoch
        if rank():
            return
        lines = [line for line in read_history(self.path) if line["epoch"] <= engine.state.epoch]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")

    def _collect(self, engine: Engine) -> None:
        output = engine.state.output
        self.losses += [float(o["loss"]) for o in (output if isinstance(output, list) else [output])]

    def _write(self, evaluator: Engine) -> None:
        epoch = evaluator.state.epoch
        if epoch <= self.last:  # the last epoch was validated already
            return
        losses = [loss for part in from_all(self.losses) for loss in part]
        self.losses, self.last = [], epoch
        if rank():
            return
        found: dict[str, Any] = {
            "metric": float(evaluator.state.metrics[evaluator.state.key_metric_name]),
            "loss": sum(losses) / max(len(losses), 1),
            "seconds": round(self.budget.spent_s, 1),
        }
        line = {"epoch": epoch} | {name: value if isfinite(value) else None for name, value in found.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(line)}\n")


def read_history(path: str | Path) -> list[dict[str, Any]]:
    """Lines of the file, without a last one that is incomplete; none if the file does not exist."""
    path = Path(path)
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]
