"""Parts for MONAI's trainer: precision, progress, clipped gradients, a time budget, the best weights, resuming.

ignite 0.5.5 has handlers of these names that do less. ``Checkpoint`` removes the best weights before it writes better ones, keeps those
of a NaN metric for good, and does not seed a resumed training by its epoch. ``TimeLimit`` stops without bringing the learning rate down.
``TerminateOnNan`` ends a training where skipping a step would do. ``ProgressBar`` shows nothing before the end of the first epoch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from monai.engines.utils import IterationEvents
from monai.inferers.inferer import Inferer
from torch import Tensor, nn
from tqdm import tqdm

from stseg3d.compute.running import DTYPES, precision_on
from stseg3d.machine.files import atomic_write
from stseg3d.training.processes import from_all, from_first, rank, undistributed

logger = logging.getLogger(__name__)

MANY_SKIPPED = 0.01  # of the steps
UNLIMITED = 10**6  # epochs, where a budget ends the training


def shared_handler(handler: Any) -> Any:
    """``handler`` itself, as MONAI's check of a bundle accepts only ``_target_``s among a trainer's handlers, no references."""
    return handler


class PrecisionInferer(Inferer):
    """Runs a network as it is, under autocast, and gives float32 logits.

    MONAI's own ``amp`` is CUDA only; bfloat16 needs no gradient scaler, so training on a CPU can have it too.

    Args:
        precision: ``"auto"`` (see :func:`stseg3d.compute.fast_precision`), ``"float32"`` or ``"bfloat16"``.

    Raises:
        ValueError: If ``precision`` is unknown.
    """

    def __init__(self, precision: str = "auto") -> None:
        super().__init__()
        if precision not in ("auto", "float32", "bfloat16"):
            msg = f"precision must be auto, float32 or bfloat16, got {precision!r}"
            raise ValueError(msg)
        self.precision = precision

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        """Logits of ``network`` for ``inputs``."""
        dtype = DTYPES[precision_on(inputs.device, self.precision)]
        plain = inputs.as_subclass(Tensor)
        with torch.autocast(inputs.device.type, dtype=dtype, enabled=dtype is not None):
            logits: Tensor = network(plain, *args, **kwargs)
        return logits.float()


class EpochProgress:
    """Handler: one tqdm bar over the epochs of a trainer, with the running loss and the best key metric so far."""

    def __init__(self, name: str, best: KeepBest | None = None) -> None:
        self.name, self.best = name, best
        self.bar: Any = None

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._step)
        engine.add_event_handler(Events.COMPLETED, self._stop)

    def _start(self, engine: Engine) -> None:
        # A resumed run begins where it was.
        shown = {"desc": self.name, "unit": "epoch", "mininterval": 1, "disable": rank() > 0}
        known = engine.state.max_epochs != UNLIMITED  # else the budget tells after the first epoch
        self.bar = tqdm(total=engine.state.max_epochs if known else None, initial=engine.state.epoch, **shown)

    def _step(self, engine: Engine) -> None:
        output = engine.state.output
        losses = [o["loss"] for o in output] if isinstance(output, list) else [output["loss"]]
        shown = {"loss": f"{float(sum(losses) / len(losses)):.3f}"}
        if self.best is not None and self.best.best > float("-inf"):
            shown["best"] = f"{self.best.best:.4f}"
        self.bar.total = engine.state.max_epochs  # a time budget changes it
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()

    def _stop(self) -> None:
        self.bar.close()


class ClipGradients:
    """Handler: gradients are scaled down to a largest norm before each step; without it a learning rate of 2e-3 ended in NaN."""

    def __init__(self, parameters: Iterable[nn.Parameter], max_norm: float = 5.0) -> None:
        self.parameters, self.max_norm = list(parameters), max_norm
        self.skipped = 0

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._clip)
        engine.add_event_handler(Events.COMPLETED, self._tell)

    def _clip(self, engine: Engine) -> None:
        norm = nn.utils.clip_grad_norm_(self.parameters, self.max_norm)
        if not torch.isfinite(norm):
            for parameter in self.parameters:
                parameter.grad = None  # the optimizer then skips the parameter
            self.skipped += 1

    def _tell(self, engine: Engine) -> None:
        if self.skipped:
            matters = "lower the learning rate" if self.skipped > MANY_SKIPPED * engine.state.iteration else "so few do no harm"
            logger.warning("%d of %d steps had no finite gradients and were skipped: %s", self.skipped, engine.state.iteration, matters)


class TimeBudget:
    """Handler: ends training when its time is up, with the learning rate brought down to zero by then.

    After each epoch the number of epochs that still fit is estimated, and the schedule is stretched to it. A resumed training counts the
    time before it was killed. A trainer that is run again, as in each round of federated learning, begins its schedule and its time anew,
    since the learning rate was zero at the end.

    Args:
        seconds: Wall time for the whole training; 0 sets no limit, and the time is only counted.
        lr_scheduler: ``PolynomialLR`` (or another with ``total_iters`` in epochs).
    """

    def __init__(self, seconds: float, lr_scheduler: Any) -> None:
        self.seconds, self.lr_scheduler = seconds, lr_scheduler
        self.start: float | None = None
        self.before_s, self.max_epochs, self.first_epoch = 0.0, 0, 0

    @property
    def spent_s(self) -> float:
        """Wall seconds of the training so far, including those before a kill."""
        return self.before_s + (0.0 if self.start is None else time.monotonic() - self.start)

    def attach(self, engine: Engine) -> None:
        """Register with a trainer; before the handler that steps the scheduler."""
        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._fit)

    def _begin(self, engine: Engine) -> None:
        self.start, self.max_epochs = time.monotonic(), engine.state.max_epochs or 1
        self.first_epoch = engine.state.epoch
        if self.first_epoch:
            self.before_s = 0.0
            restart_schedule(self.lr_scheduler, self.max_epochs - self.first_epoch)

    def _fit(self, engine: Engine) -> None:
        if not self.seconds:
            return
        spent = from_first(self.spent_s)  # clocks differ, and processes that stop at different epochs would wait for each other
        more = int((self.seconds - spent) / (spent / (engine.state.epoch - self.first_epoch)))
        engine.state.max_epochs = min(self.max_epochs, engine.state.epoch + max(more, 0))
        self.lr_scheduler.total_iters = engine.state.max_epochs - self.first_epoch

    def state_dict(self) -> dict[str, float]:
        """The seconds spent so far."""
        return {"spent_s": self.spent_s}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Continue from a saved number of seconds."""
        self.before_s = state["spent_s"]


def restart_schedule(lr_scheduler: Any, epochs: int) -> None:
    """Restart a ``PolynomialLR``, which derives each learning rate from the last, for a number of epochs."""
    lr_scheduler.last_epoch, lr_scheduler.total_iters = 0, epochs
    for group, rate in zip(lr_scheduler.optimizer.param_groups, lr_scheduler.base_lrs, strict=True):
        group["lr"] = rate


class KeepBest:
    """Handler of an evaluator: a network's weights are saved whenever its key metric is the best so far.

    They are a flat state dict, written whole or not at all. MONAI's ``CheckpointSaver`` forgets the best metric when a training is
    resumed; this one has a ``state_dict``.
    """

    def __init__(self, path: str | Path, network: nn.Module) -> None:
        self.path, self.network = Path(path), network
        self.best = float("-inf")

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.COMPLETED, self._keep)

    def _keep(self, engine: Engine) -> None:
        metric = float(engine.state.metrics[engine.state.key_metric_name])
        if metric > self.best:
            self.best = metric
            if rank():
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.path) as temporary:
                torch.save(self.network.state_dict(), temporary)

    def state_dict(self) -> dict[str, float]:
        """The best metric so far."""
        return {"best": self.best}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Continue from a saved metric."""
        self.best = state["best"]


class ResumeHandler:
    """Handler: a killed training, when started again, goes on after its last complete interval.

    The file holds the objects' states and the trainer's epoch. It is written whole or not at all, and removed at the end. It holds no
    random state: a resumed training is seeded by the seed and the epoch, so it differs from one that was not interrupted.

    Args:
        path: The file.
        objects: Objects with a ``state_dict``, by name: network, optimizer, scheduler.
        interval: Epochs between two writes.
    """

    def __init__(self, path: str | Path, objects: Mapping[str, Any], interval: int = 1) -> None:
        self.path, self.interval = Path(path), interval
        self.objects = {name: undistributed(thing) for name, thing in objects.items()}

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self.save)
        engine.add_event_handler(Events.COMPLETED, self.remove)

    def load(self, engine: Engine) -> None:
        """Resume from the file, if there is one.

        Raises:
            ValueError: If it is of other networks, or not all processes see it.
        """
        there = from_all(self.path.is_file())
        if not all(there):
            if any(there):
                msg = f"{self.path}: bundle must lie on a disk that all machines share; {there.count(False)} processes do not see the file"
                raise ValueError(msg)
            return
        found = torch.load(self.path, map_location="cpu", weights_only=True)
        try:
            for name, state in found["objects"].items():
                self.objects[name].load_state_dict(state)
        except (RuntimeError, ValueError, KeyError) as error:  # from modules, optimizers and missing names
            msg = f"{self.path}: the stopped training must be of this network and optimizer; delete the file to begin anew"
            raise ValueError(msg) from error
        engine.state.epoch, engine.state.iteration = found["epoch"], found["iteration"]
        # With the seed alone, each resumed training would repeat the order, crops and augmentation of the first epochs.
        torch.manual_seed(torch.initial_seed() + found["epoch"])
        set_rnd(getattr(engine.state.dataloader, "dataset", None), torch.initial_seed())
        logger.info("%s: going on after epoch %d", self.path, found["epoch"])

    def save(self, engine: Engine) -> None:
        """Write the file, from the first process only."""
        if rank():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        objects = {name: thing.state_dict() for name, thing in self.objects.items()}
        with atomic_write(self.path) as temporary:
            torch.save({"objects": objects, "epoch": engine.state.epoch, "iteration": engine.state.iteration}, temporary)

    def remove(self, engine: Engine) -> None:
        """Remove the file once training is complete."""
        del engine
        if rank() == 0:
            self.path.unlink(missing_ok=True)
