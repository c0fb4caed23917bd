"""`stseg3d train --folds`: every candidate on every fold, each once, in its share of the time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stseg3d.bundle import PLAN, open_bundle, write_plan
from stseg3d.cli import main
from stseg3d.plan import Plan
from stseg3d.planning.new_bundle import DATASET
from stseg3d.selection import train_folds
from stseg3d.selection.candidates import kept_candidates
from stseg3d.selection.splits import read_splits
from stseg3d.volumes import load_dataset
from tests.selection.conftest import Trainer

ALL = [f"{name} fold_{n}" for name in ("two_stages", "one_stage") for n in range(3)]


def test_every_candidate_is_trained_on_every_fold_without_the_cases_held_out(bundle: Path, dataset: Path, trainer: Trainer) -> None:
    folders = train_folds(bundle, dataset, 3, epochs=7, device="cpu", seed=5)
    assert trainer.names == ALL
    assert {json.dumps(options) for _, options in trainer.asked} == {
        json.dumps({"epochs": 7, "budget_s": None, "device": "cpu", "seed": 5, "trust": False})
    }
    splits = read_splits(bundle)
    for folder, fold in zip(folders, (*splits.folds, *splits.folds), strict=True):
        content = load_dataset(folder / DATASET)
        lists = [[case.id for case in part] for part in (content.training, content.validation, content.test)]
        assert [sorted(ids) for ids in lists] == [sorted(ids) for ids in (fold.training, fold.validation, fold.held_out)]
        plan = open_bundle(folder).require_plan()  # data alone, without trust
        assert plan.stages == (("rough", "fine") if folder.parent.name == "two_stages" else ("fine",))
    assert not (bundle / "models/model.pt").exists()


def test_a_second_call_trains_nothing_and_one_after_a_stop_the_rest(bundle: Path, dataset: Path, trainer: Trainer) -> None:
    trainer.stops_after = 4
    with pytest.raises(KeyboardInterrupt):
        train_folds(bundle, dataset, 3)
    (bundle / "folds/two_stages/fold_1/models/stages").mkdir()  # as a training leaves it that was killed
    trainer.stops_after = 100
    train_folds(bundle, dataset, 3)
    assert trainer.names == [*ALL[:4], ALL[1], *ALL[4:]]
    (bundle / "folds/two_stages/fold_1/models/stages").rmdir()
    train_folds(bundle, dataset, 3, seed=9)
    assert len(trainer.asked) == 7


def test_the_budget_is_shared_equally_also_by_those_that_are_left(bundle: Path, dataset: Path, trainer: Trainer) -> None:
    trainer.stops_after = 2
    with pytest.raises(KeyboardInterrupt):
        train_folds(bundle, dataset, 3, budget_s=6000)
    trainer.stops_after = 100
    train_folds(bundle, dataset, 3, budget_s=6000)
    shares = [options["budget_s"] for _, options in trainer.asked]
    # The first two took no time here, which their successors share; a new call has 4 of 6 shares.
    assert shares[:3] == pytest.approx([1000, 1200, 1000], rel=0.02)


def test_an_edited_plan_is_for_folds_that_are_not_begun_and_refused_for_others(bundle: Path, dataset: Path, trainer: Trainer) -> None:
    trainer.stops_after = 0
    with pytest.raises(KeyboardInterrupt):
        train_folds(bundle, dataset, 3)
    write_plan(bundle, open_bundle(bundle).require_plan().set({"training#samples": 3}))
    trainer.stops_after = 1
    with pytest.raises(KeyboardInterrupt):
        train_folds(bundle, dataset, 3)
    assert Plan.parse((bundle / "folds/two_stages/fold_0" / PLAN).read_bytes()).training.samples == 3
    with pytest.raises(ValueError, match=r"fold_0/configs/plan\.json: plan and --set must be those that the fold was trained with"):
        train_folds(bundle, dataset, 3, overrides={"training#samples": 4})


def test_a_planned_bundle_of_two_stages_has_a_candidate_of_one_which_may_be_edited(bundle: Path) -> None:
    (bundle / "candidates.json").unlink()
    plan = open_bundle(bundle).require_plan()
    found = kept_candidates(bundle, plan, "cpu")
    assert list(found) == ["two_stages", "one_stage"]
    assert found["two_stages"] == {}
    one = plan.set(found["one_stage"])
    assert (one.stages, one.policy.max_components) == (("fine",), None)
    (bundle / "candidates.json").write_text('{"two_stages": {}, "wide": {"fine#network#channels": [8, 16]}}')
    assert list(kept_candidates(bundle, plan, "cpu")) == ["two_stages", "wide"]


def test_a_candidate_that_contradicts_itself_is_named(bundle: Path, dataset: Path, trainer: Trainer) -> None:
    (bundle / "candidates.json").write_text('{"odd": {"fine#size": [15, 16, 16]}}')
    with pytest.raises(ValueError, match=r"candidates\.json: odd: .*fine#size must be divisible"):
        train_folds(bundle, dataset, 3)
    (bundle / "candidates.json").write_text('["odd"]')
    with pytest.raises(ValueError, match=r"candidates\.json: candidates must be entries of the plan by name"):
        train_folds(bundle, dataset, 3)
    assert trainer.asked == []


def test_a_training_that_cannot_be_is_told_with_its_fold(bundle: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train_bundle(*_: object, **__: object) -> None:
        raise ValueError("the policy must keep the objects")  # noqa: EM101

    monkeypatch.setattr("stseg3d.selection.train.train_bundle", train_bundle)
    with pytest.raises(ValueError, match="two_stages, fold_0: the policy must keep the objects"):
        train_folds(bundle, dataset, 3)


def test_several_processes_are_refused(bundle: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.setenv(name, "0")
    with pytest.raises(ValueError, match="folds must be trained by one process, got several of torchrun"):
        train_folds(bundle, dataset, 3)


def test_the_command_line_trains_folds_and_refuses_what_they_cannot_have(
    bundle: Path, dataset: Path, trainer: Trainer, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["train", str(bundle), "--data", str(dataset), "--folds", "3", "--device", "cpu"]
    for more, sentence in ((["--from", "x.pt"], "may have seen the cases held out"), (["--stage", "fine"], "got --stage fine")):
        assert main([*line, *more]) == 2
        assert sentence in capsys.readouterr().err
    assert main([*line, "--budget", "1h", "--set", "training#ema_decay=0.5"]) == 0
    assert trainer.names == ALL
    assert Plan.parse((bundle / "folds/one_stage/fold_2" / PLAN).read_bytes()).training.ema_decay == 0.5
    assert "two_stages, fold_0: training 1 of 6" in capsys.readouterr().err
