"""What the trainer is given: precision on any device, gradients in bounds, the best weights kept, and a way back after a kill."""

from __future__ import annotations

import contextlib
import logging

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from monai.engines.utils import IterationEvents
from monai.inferers import Inferer
from monai.transforms import RandGaussianNoise
from monai.utils import set_determinism
from torch import nn

from stseg3d.compute.running import DTYPES, fast_precision
from stseg3d.training import ClipGradients, EpochProgress, KeepBest, PrecisionInferer, ResumeHandler, TimeBudget


class Training:
    """A network that learns a little in each of four iterations an epoch: weights, momentum and rate all matter."""

    def __init__(self):
        torch.manual_seed(0)
        self.network = nn.Linear(3, 1)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.1, momentum=0.9)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, step_size=2, gamma=0.5)
        self.engine = Engine(self.step)
        self.engine.register_events(*IterationEvents)
        self.engine.add_event_handler(Events.EPOCH_COMPLETED, lambda _engine: self.scheduler.step())
        self.epochs = []
        self.engine.add_event_handler(Events.EPOCH_STARTED, lambda engine: self.epochs.append(engine.state.epoch))
        generator = torch.Generator().manual_seed(1)
        self.data = [torch.randn(5, 3, generator=generator) for _ in range(4)]

    @property
    def objects(self):
        return {"model": self.network, "optimizer": self.optimizer, "lr_scheduler": self.scheduler}

    def step(self, engine, batch):
        self.optimizer.zero_grad()
        loss = (self.network(batch) ** 2).mean()
        loss.backward()
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        self.optimizer.step()
        return {"loss": loss.item()}

    def run(self, epochs, *handlers):
        for handler in handlers:
            handler.attach(self.engine)
        self.engine.run(self.data, max_epochs=epochs)
        return self


class Killed(Exception):  # noqa: N818 - it is no error
    pass


def kill_in(engine, epoch):
    def kill(engine):
        if engine.state.epoch == epoch:
            raise Killed

    engine.add_event_handler(Events.ITERATION_COMPLETED(once=epoch * 4 - 1), kill)


# --- resuming ----------------------------------------------------------------


@pytest.mark.parametrize(("interval", "resumed"), [(1, [5, 6]), (2, [5, 6]), (3, [4, 5, 6]), (5, [1, 2, 3, 4, 5, 6])])
def test_a_killed_training_goes_on_as_if_nothing_had_happened(interval, resumed, tmp_path):
    path = tmp_path / "models" / "last.pt"
    whole = Training().run(6)
    first = Training()
    kill_in(first.engine, epoch=5)
    with pytest.raises(Killed):
        first.run(6, ResumeHandler(path, first.objects, interval))
    assert path.is_file() == (interval < 5)
    second = Training()
    second.run(6, ResumeHandler(path, second.objects, interval))
    assert second.epochs == resumed
    assert second.engine.state.iteration == whole.engine.state.iteration == 24
    for one, other in zip(second.network.parameters(), whole.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert second.scheduler.get_last_lr() == whole.scheduler.get_last_lr()


def seen_of(epochs, path, *, killed_in=None):
    """What each epoch of a training shows to its network: order and augmentation, by one seed."""
    set_determinism(7)
    try:
        training, seen = Training(), {}
        dataset = Dataset(list(torch.arange(12.0).reshape(4, 3)), RandGaussianNoise(prob=1.0))
        training.data = DataLoader(dataset, batch_size=1, shuffle=True)

        def see(engine):
            seen.setdefault(engine.state.epoch, []).append(engine.state.batch.flatten().tolist())

        training.engine.add_event_handler(Events.ITERATION_COMPLETED, see)
        if killed_in:
            kill_in(training.engine, killed_in)
        with contextlib.suppress(Killed):
            training.run(epochs, ResumeHandler(path, training.objects))
    finally:
        set_determinism(None)
    return seen


def test_what_goes_on_does_not_see_the_first_epochs_again(tmp_path):
    first, again = seen_of(4, tmp_path / "last.pt", killed_in=3), seen_of(4, tmp_path / "last.pt")
    assert sorted(again) == [3, 4]
    assert again[3] not in (first[1], first[2])
    assert again[4] not in (first[1], first[2], again[3])


def test_after_the_last_epoch_there_is_nothing_to_go_on_from(tmp_path):
    training = Training()
    training.run(3, ResumeHandler(tmp_path / "last.pt", training.objects))
    assert list(tmp_path.iterdir()) == []
    again = Training()
    assert again.run(3, ResumeHandler(tmp_path / "last.pt", again.objects)).epochs == [1, 2, 3]


def test_a_kill_while_writing_leaves_the_last_whole_file(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    training = Training()
    handler = ResumeHandler(path, training.objects)
    training.run(2)
    handler.save(training.engine)
    before = path.read_bytes()

    def half(_content, target):
        target.write_bytes(b"half of it")
        raise Killed

    monkeypatch.setattr("stseg3d.training.engine.torch.save", half)
    with pytest.raises(Killed):
        handler.save(training.engine)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# --- the best weights --------------------------------------------------------


def evaluated(keep, *metrics):
    """What an evaluator does after it has found these metrics."""
    evaluator = Engine(lambda _engine, _batch: None)
    evaluator.state.key_metric_name = "dice"
    keep.attach(evaluator)
    for metric in metrics:
        keep.network.weight.data.fill_(metric)
        evaluator.state.metrics = {"dice": torch.tensor(metric)}
        evaluator.fire_event(Events.COMPLETED)


def test_the_weights_of_the_best_metric_are_kept(tmp_path):
    keep = KeepBest(tmp_path / "stages" / "fine.pt", nn.Linear(1, 1))
    evaluated(keep, 0.25, 0.75, 0.5, 0.75)
    assert keep.best == 0.75
    assert float(torch.load(keep.path, weights_only=True)["weight"]) == 0.75
    assert list(keep.path.parent.iterdir()) == [keep.path]


def test_after_a_kill_the_best_so_far_is_still_known(tmp_path):
    keep = KeepBest(tmp_path / "fine.pt", nn.Linear(1, 1))
    evaluated(keep, 0.75)
    again = KeepBest(tmp_path / "fine.pt", nn.Linear(1, 1))
    again.load_state_dict(keep.state_dict())
    evaluated(again, 0.5)
    assert float(torch.load(keep.path, weights_only=True)["weight"]) == 0.75


def test_a_metric_that_is_no_number_is_never_the_best(tmp_path):
    keep = KeepBest(tmp_path / "fine.pt", nn.Linear(1, 1))
    evaluated(keep, float("nan"))
    assert not keep.path.exists()
    evaluated(keep, 0.0)
    assert keep.path.exists()


# --- precision ---------------------------------------------------------------


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_logits_are_float32_whatever_the_precision(precision):
    network, seen = nn.Conv3d(1, 2, 1), []
    network.register_forward_hook(lambda _network, _inputs, output: seen.append(output.dtype))
    inferer = PrecisionInferer(precision)
    assert isinstance(inferer, Inferer)
    logits = inferer(torch.randn(2, 1, 4, 4, 4), network)
    assert (logits.dtype, logits.shape) == (torch.float32, (2, 2, 4, 4, 4))
    wanted = DTYPES[fast_precision(torch.device("cpu")) if precision == "auto" else precision]
    assert seen == [wanted or torch.float32]
    logits.sum().backward()
    assert network.weight.grad.dtype == torch.float32


def test_float32_is_the_network_itself():
    network, x = nn.Conv3d(1, 2, 3), torch.randn(1, 1, 4, 4, 4)
    torch.testing.assert_close(PrecisionInferer("float32")(x, network), network(x), rtol=0, atol=0)


def test_surrounding_autocast_has_no_say():
    network, x = nn.Conv3d(1, 2, 1), torch.randn(1, 1, 4, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = PrecisionInferer("float32")(x, network)
    torch.testing.assert_close(logits, network(x), rtol=0, atol=0)


@pytest.mark.parametrize("precision", ["float16", "double", ""])
def test_other_precisions_are_refused(precision):
    with pytest.raises(ValueError, match=f"precision must be auto, float32 or bfloat16, got '{precision}'"):
        PrecisionInferer(precision)


# --- gradients ---------------------------------------------------------------


def test_gradients_are_scaled_down_to_the_norm():
    training = Training()
    norms = []
    training.engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, lambda _engine: norms.append(norm_of(training.network)))
    ClipGradients(training.network.parameters(), max_norm=0.01).attach(training.engine)
    training.engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, lambda _engine: norms.append(norm_of(training.network)))
    training.run(1)
    assert min(norms[::2]) > 0.01
    assert norms[1::2] == pytest.approx([0.01] * 4, rel=1e-3)


def norm_of(network):
    return float(torch.cat([p.grad.flatten() for p in network.parameters()]).norm())


def test_a_step_that_is_not_finite_is_skipped_and_told(caplog):
    training = Training()
    training.data[1][0, 0] = float("nan")
    with caplog.at_level(logging.WARNING):
        training.run(1, ClipGradients(training.network.parameters()))
    assert caplog.messages == ["1 of 4 steps had no finite gradients and were skipped: lower the learning rate"]
    assert all(torch.isfinite(p).all() for p in training.network.parameters())


# --- time --------------------------------------------------------------------


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(("seconds", "epochs"), [(1000, 8), (35, 3), (80, 8), (1, 1)])
def test_training_ends_within_its_time_with_its_rate_brought_down(seconds, epochs, monkeypatch):
    clock = Clock()
    monkeypatch.setattr("stseg3d.training.engine.time.monotonic", clock)
    training = Training()
    rate = torch.optim.lr_scheduler.PolynomialLR(training.optimizer, total_iters=8)

    def pass_time(_engine):
        clock.now += 10

    training.engine.add_event_handler(Events.EPOCH_COMPLETED, pass_time)
    TimeBudget(seconds, rate).attach(training.engine)
    training.engine.add_event_handler(Events.EPOCH_COMPLETED, lambda _engine: rate.step())
    training.scheduler.step = lambda: None
    training.run(8)
    assert training.epochs == list(range(1, epochs + 1))
    assert rate.get_last_lr() == pytest.approx([0])


def timed(training, seconds, clock, rate, path, epoch_s=10):
    """A training of 8 epochs that take ``epoch_s`` each, under a time budget, that can be gone on with."""

    def pass_time(_engine):
        clock.now += epoch_s

    training.engine.add_event_handler(Events.EPOCH_COMPLETED, pass_time)
    budget = TimeBudget(seconds, rate)
    budget.attach(training.engine)
    ResumeHandler(path, training.objects | {"budget": budget}).attach(training.engine)
    return budget


@pytest.mark.parametrize(("seconds", "last"), [(50, 5), (45, 4), (1000, 8), (0, 8)])
def test_what_a_killed_training_had_spent_counts_when_it_goes_on(seconds, last, monkeypatch, tmp_path):
    clock = Clock()
    monkeypatch.setattr("stseg3d.training.engine.time.monotonic", clock)
    first = Training()
    timed(first, seconds, clock, first.scheduler, tmp_path / "last.pt")
    kill_in(first.engine, epoch=4)
    with pytest.raises(Killed):
        first.run(8)
    clock.now = 5000.0  # another process, some time later
    second = Training()
    budget = timed(second, seconds, clock, second.scheduler, tmp_path / "last.pt")
    second.run(8)
    assert second.epochs == list(range(4, last + 1))
    assert budget.spent_s == 10 * last


def test_without_a_limit_the_time_is_counted_and_no_epoch_left_out(monkeypatch, tmp_path):
    clock = Clock()
    monkeypatch.setattr("stseg3d.training.engine.time.monotonic", clock)
    training = Training()
    budget = timed(training, 0, clock, training.scheduler, tmp_path / "last.pt")
    assert training.run(8).epochs == list(range(1, 9))
    assert budget.spent_s == 80


def test_one_bar_shows_the_epochs(capsys, tmp_path):
    training = Training()
    keep = KeepBest(tmp_path / "fine.pt", nn.Linear(1, 1))
    keep.best = 0.75
    training.run(3, EpochProgress("fine", keep))
    said = capsys.readouterr().err
    assert "fine" in said
    assert "3/3" in said
    assert "best=0.75" in said
    assert "loss=" in said
