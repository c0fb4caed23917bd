"""Averaged weights: what the mean is, that it forgets its beginning, and that a kill does not change it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from stseg3d.training import ResumeHandler, WeightAverage
from tests.training.test_engine import Killed, Training, kill_in


def averaged(decay: float) -> tuple[Training, WeightAverage, list[torch.Tensor]]:
    """A training with an average, and its weights after each step."""
    training, course = Training(), []
    average = WeightAverage(training.network, decay)
    average.attach(training.engine)
    step = training.step

    def recorded(engine, batch):
        output = step(engine, batch)
        course.append(training.network.weight.detach().clone())
        return output

    training.engine._process_function = recorded
    return training, average, course


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_the_mean_is_that_of_the_weights_after_each_step(decay: float) -> None:
    training, average, course = averaged(decay)
    start = training.network.weight.detach().clone()
    training.run(5)
    mean = start
    for n, weight in enumerate(course, start=1):
        share = min(decay, n / (n + 10))
        mean = share * mean + (1 - share) * weight
    torch.testing.assert_close(average.network.weight, mean)
    assert not average.network.weight.requires_grad


def test_a_short_training_forgets_the_weights_it_began_with() -> None:
    training, average, _ = averaged(0.9999)
    start = training.network.weight.detach().clone()
    training.run(5)
    moved = (training.network.weight - start).norm()
    assert (average.network.weight - training.network.weight).norm() < 0.5 * moved


def test_switched_off_it_is_the_network_itself() -> None:
    network = nn.Linear(3, 1)
    assert WeightAverage(network, 0.0).network is network


def test_it_begins_with_the_weights_that_training_begins_with() -> None:
    training, average, _ = averaged(0.9)
    with torch.no_grad():
        training.network.weight.fill_(7)  # loaded after the average was made
    average._begin()
    assert torch.equal(average.network.weight, training.network.weight)


def test_counters_of_batch_normalisation_are_copied() -> None:
    network = nn.BatchNorm1d(2)
    average = WeightAverage(network, 0.9)
    network(torch.randn(4, 2))
    average._update()
    assert int(average.network.num_batches_tracked) == 1
    assert float(average.network.running_mean.abs().sum()) > 0


def test_a_kill_does_not_change_the_mean(tmp_path: Path) -> None:
    whole, wanted, _ = averaged(0.9)
    whole.run(6)
    first, average, _ = averaged(0.9)
    ResumeHandler(tmp_path / "last.pt", first.objects | {"average": average}).attach(first.engine)
    kill_in(first.engine, epoch=4)
    with pytest.raises(Killed):
        first.run(6)
    second, average, _ = averaged(0.9)
    ResumeHandler(tmp_path / "last.pt", second.objects | {"average": average}).attach(second.engine)
    second.run(6)
    assert second.epochs == [4, 5, 6]
    torch.testing.assert_close(average.network.weight, wanted.network.weight, rtol=0, atol=0)


def test_a_training_without_it_does_not_go_on_with_it(tmp_path: Path) -> None:
    for before, now, rule in ((0.0, 0.9, "ema_decay must be 0"), (0.9, 0.0, "ema_decay must be above 0")):
        state = WeightAverage(nn.Linear(3, 1), before).state_dict()
        with pytest.raises(ValueError, match=rule):
            WeightAverage(nn.Linear(3, 1), now).load_state_dict(state)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_that_cannot_be_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match=r"ema_decay must be in \[0, 1\), got"):
        WeightAverage(nn.Linear(3, 1), decay)
