"""`stseg3d train` end to end on tiny phantoms: rough, fine, composite; killed and gone on; started from weights."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from stseg3d.bundle import WEIGHTS, load_network, read_metadata
from stseg3d.training import KeepBest, ResumeHandler
from stseg3d.training.run import _run, train_bundle
from stseg3d.training.task import TrainingTask


def test_training_writes_one_composite_that_inference_loads(bundle: Path, dataset: Path) -> None:
    loggers = [logging.getLogger(f"monai.bundle.{name}") for name in ("scripts", "workflows")]
    for logger in loggers:
        logger.setLevel(logging.INFO)  # as MONAI sets it
    weights = train_bundle(bundle, dataset, epochs=2, device="cpu", seed=1)
    assert [logger.level for logger in loggers] == [logging.WARNING] * 2  # notes would break the progress bar; warnings are shown
    assert weights == bundle / WEIGHTS
    load_network(bundle)
    state = torch.load(weights, weights_only=True)
    assert {v.dtype for v in state.values() if v.is_floating_point()} == {torch.float16}
    assert not (bundle / "models/stages").exists()


@pytest.mark.slow
def test_one_seed_gives_one_result_and_another_gives_another(bundle: Path, dataset: Path) -> None:
    states = []
    for seed in (1, 1, 2):
        weights = train_bundle(bundle, dataset, epochs=1, device="cpu", seed=seed)
        states.append(torch.load(weights, weights_only=True))
        weights.unlink()
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    assert not all(torch.equal(states[0][k], states[2][k]) for k in states[0])


def test_the_fine_stage_leaves_the_rough_network_alone(trained: Path, dataset: Path) -> None:
    first = torch.load(trained / WEIGHTS, weights_only=True)
    again = torch.load(
        train_bundle(trained, dataset, stage="fine", epochs=1, device="cpu", seed=2, weights=trained / WEIGHTS), weights_only=True
    )
    assert all(torch.equal(first[k], again[k]) for k in first if k.startswith("rough."))
    assert not all(torch.equal(first[k], again[k]) for k in first if k.startswith("fine."))


def test_one_stage_alone_does_not_make_a_composite_and_both_in_turn_do(bundle: Path, dataset: Path) -> None:
    assert train_bundle(bundle, dataset, stage="rough", epochs=1, device="cpu") == bundle / "models/stages/rough.pt"
    assert not (bundle / WEIGHTS).exists()
    assert train_bundle(bundle, dataset, stage="fine", epochs=1, device="cpu") == bundle / WEIGHTS


def test_two_stages_trained_side_by_side_do_not_sweep_away_each_other(bundle: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("stseg3d.training.run.logger.warning", lambda text, *values: said.append(text % values))
    train_bundle(bundle, dataset, stage="rough", epochs=1, device="cpu")
    going_on = bundle / "models/stages/last_rough.pt"  # as another process leaves it while it trains
    going_on.write_bytes(b"half a training")
    assert train_bundle(bundle, dataset, stage="fine", epochs=1, device="cpu") == bundle / "models/stages/fine.pt"
    assert any("last_rough.pt: the rough stage is not finished" in sentence for sentence in said)
    assert going_on.read_bytes() == b"half a training"
    assert not (bundle / WEIGHTS).exists()


def test_without_validation_cases_nothing_is_trained(bundle: Path, dataset: Path) -> None:
    content = json.loads(dataset.read_text())
    dataset.write_text(json.dumps(content | {"validation": []}))
    with pytest.raises(ValueError, match=r"dataset\.json.*validation"):
        train_bundle(bundle, dataset, epochs=1, device="cpu")


def test_a_label_on_another_grid_is_refused_by_name(bundle: Path, dataset: Path) -> None:
    nib.save(nib.Nifti1Image(np.ones((24, 24, 24), np.uint8), np.diag([1, 1, 2, 1])), dataset.parent / "label0.nii.gz")
    with pytest.raises(ValueError, match=r"label0\.nii\.gz.*grid"):
        train_bundle(bundle, dataset, epochs=1, device="cpu")


@pytest.mark.slow
def test_a_time_budget_ends_training_early_and_whole(bundle: Path, dataset: Path) -> None:
    # Without the budget this would take a day, and the test would never end.
    train_bundle(bundle, dataset, epochs=100_000, budget_s=1, device="cpu")
    load_network(bundle)


def test_a_killed_training_goes_on_and_does_not_forget_the_best(bundle: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = ResumeHandler.save
    seen: list[int] = []

    def killed_after_two(self: ResumeHandler, engine: Any) -> None:
        save(self, engine)
        if engine.state.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(ResumeHandler, "save", killed_after_two)
    with pytest.raises(KeyboardInterrupt):
        train_bundle(bundle, dataset, stage="rough", epochs=4, device="cpu")
    assert (bundle / "models/stages/last_rough.pt").is_file()

    monkeypatch.setattr(ResumeHandler, "save", lambda self, engine: (seen.append(engine.state.epoch), save(self, engine)))
    bests: list[float] = []
    load = KeepBest.load_state_dict
    monkeypatch.setattr(KeepBest, "load_state_dict", lambda self, state: (bests.append(state["best"]), load(self, state)))
    train_bundle(bundle, dataset, stage="rough", epochs=4, device="cpu")
    assert seen == [3, 4]
    assert bests
    assert bests[0] > 0
    assert not (bundle / "models/stages/last_rough.pt").exists()


def test_a_network_that_cannot_take_its_input_is_refused_before_training(bundle: Path, dataset: Path) -> None:
    with pytest.raises(ValueError, match=r"fine#size must be divisible by \[2, 2, 2\] .* got \[16, 16, 15\]"):
        train_bundle(bundle, dataset, epochs=1, device="cpu", overrides={"fine#size": [16, 16, 15]})
    resnet = {"fine#size": [16, 16, 15], "fine#network": {"name": "SegResNet"}}
    with pytest.raises(ValueError, match=r"fine network must .*\(16, 16, 15\)"):
        train_bundle(bundle, dataset, epochs=1, device="cpu", overrides=resnet)


def test_a_training_killed_in_the_fine_stage_does_not_repeat_the_rough_one(
    bundle: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def killed_in_fine(task: TrainingTask, configs: tuple[str, ...], options: dict[str, Any]) -> None:
        ran.append("rough" if len(configs) == 2 else "fine")
        if ran == ["rough", "fine"]:
            raise KeyboardInterrupt
        _run(task, configs, options)

    monkeypatch.setattr("stseg3d.training.run._run", killed_in_fine)
    with pytest.raises(KeyboardInterrupt):
        train_bundle(bundle, dataset, epochs=1, device="cpu")
    rough = torch.load(bundle / "models/stages/rough.pt", weights_only=True)
    train_bundle(bundle, dataset, epochs=1, device="cpu")
    assert ran == ["rough", "fine", "fine"]
    state = torch.load(bundle / WEIGHTS, weights_only=True)
    assert all(torch.equal(rough[name].half(), state[name]) for name in state if name.startswith("rough."))


def test_a_stage_that_ends_between_two_validations_is_validated_at_its_end(bundle: Path, dataset: Path) -> None:
    train_bundle(bundle, dataset, epochs=2, device="cpu", overrides={"validate_every": {"rough": 5, "fine": 5}})
    load_network(bundle)


def test_a_stage_without_a_score_is_an_error_and_older_weights_are_not_passed_off_as_new(
    trained: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = (trained / WEIGHTS).read_bytes()
    monkeypatch.setattr("stseg3d.training.KeepBest._keep", lambda *_: None)  # as with a Dice of NaN
    with pytest.raises(ValueError, match="rough stage must reach a validation score"):
        train_bundle(trained, dataset, epochs=1, device="cpu")
    assert (trained / WEIGHTS).read_bytes() == old


def test_the_composite_of_another_task_is_not_touched_before_both_stages_are_trained(
    trained: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = (trained / WEIGHTS).read_bytes()
    seen: list[bytes] = []
    train = ResumeHandler.remove
    monkeypatch.setattr(ResumeHandler, "remove", lambda self, engine: (seen.append((trained / WEIGHTS).read_bytes()), train(self, engine)))
    new = train_bundle(trained, dataset, epochs=1, device="cpu", seed=5).read_bytes()
    assert seen == [old, old]
    assert new != old


def test_a_stopped_training_of_another_network_is_refused(bundle: Path, dataset: Path) -> None:
    last = bundle / "models/stages/last_rough.pt"
    last.parent.mkdir(parents=True)
    torch.save({"objects": {"model": {"other": torch.zeros(1)}}, "epoch": 1, "iteration": 1}, last)
    with pytest.raises(ValueError, match=r"last_rough\.pt: the stopped training must be of this network.*delete"):
        train_bundle(bundle, dataset, epochs=2, device="cpu")


def test_a_network_of_two_channels_learns_from_a_fourth_dimension_and_from_two_files(bundle: Path, dataset: Path) -> None:
    content = json.loads(dataset.read_text())
    one = content["training"][0]
    shutil.copy(dataset.parent / one["image"], dataset.parent / "other.nii.gz")
    shutil.copy(dataset.parent / one["image"], dataset.parent / "one.nii.gz")
    dataset.write_text(json.dumps(content | {"training": [one | {"image": ["one.nii.gz", "other.nii.gz"]}, *content["training"][1:]]}))
    for path in dataset.parent.glob("image*.nii.gz"):
        image = np.asarray(nib.load(path).dataobj)
        nib.save(nib.Nifti1Image(np.stack([image, image], axis=-1), np.eye(4)), path)
    with pytest.raises(ValueError, match=r"(image\d|one)\.nii\.gz: must have 1 channel\(s\) for these networks, got 2"):
        train_bundle(bundle, dataset, epochs=1, device="cpu")
    assert train_bundle(bundle, dataset, epochs=1, device="cpu", overrides={"image#channels": 2}).is_file()
    assert read_metadata(bundle)["network_data_format"]["inputs"]["image"]["num_channels"] == 2
    load_network(bundle)
