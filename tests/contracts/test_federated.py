"""Federated learning by `monai.fl.client.MonaiAlgo`, which NVIDIA FLARE runs: several rounds, evaluation, weights out and in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, ModelType, WeightType
from monai.fl.utils.exchange_object import ExchangeObject
from monai.utils import set_determinism

from stseg3d.bundle import load_network
from stseg3d.training import assemble

pytestmark = pytest.mark.filterwarnings("default")  # other people's

Weights = dict[str, torch.Tensor]


@pytest.fixture
def settings(trained: Path, dataset: Path) -> Iterator[dict[str, object]]:
    """Arguments of a client whose data are the tiny ones; the bundle has weights."""
    where = {"dataset_dir": str(dataset.parent), "device": "$torch.device('cpu')"}
    yield {"bundle_root": str(trained), "train_kwargs": where | {"run_name": "fine"}, "eval_kwargs": where}
    set_determinism(None)  # what `initialize` has set for the whole process


def client(settings: dict[str, object], **more: object) -> MonaiAlgo:
    algo = MonaiAlgo(**settings, **more)
    algo.initialize(extra={ExtraItems.CLIENT_NAME: "site"})
    return algo


def weights_of(algo: MonaiAlgo) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in algo.trainer.network.state_dict().items()}


def change(before: Weights, after: Weights, stage: str) -> float:
    return sum(float((after[name] - before[name]).abs().sum()) for name in before if name.startswith(f"{stage}."))


@pytest.mark.parametrize(("stage", "other", "overlay"), [("fine", "rough", []), ("rough", "fine", ["configs/train_rough.json"])])
def test_every_round_learns_and_leaves_the_other_network_alone(
    settings: dict[str, object], stage: str, other: str, overlay: list[str]
) -> None:
    algo = client(settings, local_epochs=2, send_weight_diff=False, config_train_filename=["configs/train.json", *overlay])
    weights = weights_of(algo)
    for epoch in (2, 4, 6):
        algo.train(ExchangeObject(weights=weights), extra={})
        found = algo.get_weights()
        assert found.weight_type == WeightType.WEIGHTS
        after = {name: tensor.clone() for name, tensor in found.weights.items()}
        assert algo.trainer.state.epoch == epoch
        assert change(weights, after, stage) > 0.1
        assert change(weights, after, other) == 0
        weights = after
    metrics = algo.evaluate(ExchangeObject(weights=weights)).metrics
    assert 0 <= metrics["val_mean_dice"] <= 1
    algo.finalize()


def test_a_client_starts_each_round_from_the_weights_of_the_server(settings: dict[str, object]) -> None:
    settings["train_kwargs"] |= {"learning_rate": {"rough": 0.0, "fine": 0.0}, "fine_from_rough": True}  # type: ignore[operator]
    algo = client(settings)
    sent = {name: torch.randn_like(tensor) for name, tensor in weights_of(algo).items()}
    for _ in range(2):
        algo.train(ExchangeObject(weights={name: tensor.clone() for name, tensor in sent.items()}), extra={})
        found = algo.get_weights()
        assert found.weight_type == WeightType.WEIGHT_DIFF
        assert all(float(torch.as_tensor(difference).abs().max()) == 0 for difference in found.weights.values())


def test_the_best_weights_can_be_asked_for_and_assembled(settings: dict[str, object], trained: Path) -> None:
    algo = client(settings, best_model_filepath="models/stages/fine.pt")
    algo.train(ExchangeObject(weights=weights_of(algo)), extra={})
    best = algo.get_weights(extra={ExtraItems.MODEL_TYPE: ModelType.BEST_MODEL}).weights
    due = algo.trainer.network.state_dict()
    assert all(torch.equal(best[name], due[name]) for name in due)
    assemble(trained)
    found = load_network(trained)[0].state_dict()
    assert all(torch.equal(found[name], due[name].half().float()) for name in due if name.startswith("fine."))
