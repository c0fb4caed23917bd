"""The recipe's options, each by a real small training: what is averaged, predicted, shown and carried over is what should be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import verify_net_in_out

from stseg3d.bundle import PLAN, WEIGHTS, load_network, open_bundle, read_metadata
from stseg3d.bundle.trained import TRAINED
from stseg3d.cli import main
from stseg3d.inference.segment import Segmenter
from stseg3d.plan import json_text, set_entries
from stseg3d.training import ResumeHandler, ensemble_bundles
from stseg3d.training.folds import load_predictions, predictions_path, save_predictions
from stseg3d.training.history import read_history
from stseg3d.training.run import _run, train_bundle
from stseg3d.training.task import TrainingTask
from stseg3d.volumes import find_cases

FOLDED = {"predicted_boxes": 0.5, "folds": 2}


def change(bundle: Path, **entries: Any) -> None:
    """Set entries of the plan, as a person does who edits it."""
    plan = set_entries(open_bundle(bundle).require_plan(), entries)
    (bundle / PLAN).write_text(json_text(plan.as_json()))


def state_of(path: Path, part: str) -> dict[str, torch.Tensor]:
    found = torch.load(path, weights_only=True)
    return {name.removeprefix(f"{part}."): tensor for name, tensor in found.items() if name.startswith(f"{part}.")}


class Runs:
    """What is trained by name, and what lies in the folder of the stages after it; a kill in the n-th if asked for."""

    def __init__(self, kill: int | None = None) -> None:
        self.names: list[str] = []
        self.kill = kill

    def __call__(self, task: TrainingTask, configs: tuple[str, ...], options: dict[str, Any]) -> None:
        fold = options.get("fold")
        self.names.append("fine" if len(configs) == 1 else "rough" if fold is None else f"fold{fold}")
        if len(self.names) == self.kill:
            raise KeyboardInterrupt
        _run(task, configs, options)


# --- options from outside ----------------------------------------------------


def test_an_entry_that_does_not_exist_is_named(bundle: Path, dataset: Path) -> None:
    with pytest.raises(ValueError, match="must have the entry 'ema_decoy'"):
        train_bundle(bundle, dataset, epochs=1, device="cpu", overrides={"ema_decoy": 0.9})


@pytest.mark.parametrize(
    ("option", "match"),
    [
        ({"negatives": 1.5}, r"negatives must be in \[0, 1\], got 1\.5"),
        ({"corruption": -1}, r"corruption must be in \[0, 1\], got -1"),
        ({"ema_decay": 2}, "ema_decay must be at least 0 and below 1, got 2"),
        ({"target": "organ"}, "target must be one of"),
    ],
)
def test_an_option_out_of_range_is_refused_before_training(
    option: dict[str, Any], match: str, bundle: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs()
    monkeypatch.setattr("stseg3d.training.run._run", runs)
    with pytest.raises(ValueError, match=match):
        train_bundle(bundle, dataset, epochs=1, device="cpu", overrides=option)
    assert runs.names == []


def test_the_command_line_sets_entries(bundle: Path, dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["train", str(bundle), "--data", str(dataset), "--epochs", "1", "--device", "cpu"]
    assert main([*line, "--stage", "rough", "--set", "ema_decay=0.5", "--set", 'target="component"']) == 0
    assert json.loads((bundle / "logs/rough.json").read_text())["options"] == {"ema_decay": 0.5, "target": "component"}
    assert main([*line, "--set", "training#folds=9", "--set", "predicted_boxes=0.5"]) == 2
    assert "folds must be 0, or from 2 to the number of training cases, 2, got 9" in capsys.readouterr().err
    for wrong in ("ema_decay", "target=component", "ema_decay=", "=1"):
        with pytest.raises(SystemExit, match="2"):
            main([*line, "--set", wrong])
        assert "must be KEY=JSON, such as training#ema_decay=0.99" in capsys.readouterr().err


@pytest.mark.slow
def test_options_reach_the_training_and_are_written_beside_its_log(bundle: Path, dataset: Path) -> None:
    before = {path: path.read_bytes() for path in (bundle / "configs").iterdir()}
    plain = train_bundle(bundle, dataset, epochs=1, device="cpu", seed=1).read_bytes()
    options = {"negatives": 1.0, "jitter#shift": 0.5}
    changed = train_bundle(bundle, dataset, epochs=1, device="cpu", seed=1, overrides=options)
    assert changed.read_bytes() != plain
    assert json.loads((bundle / "logs/fine.json").read_text())["options"] == options
    assert {path: path.read_bytes() for path in (bundle / "configs").iterdir()} == before


@pytest.mark.slow
def test_what_one_stage_was_trained_to_see_holds_for_the_next_one(bundle: Path, dataset: Path) -> None:
    train_bundle(bundle, dataset, stage="rough", epochs=1, device="cpu")
    change(bundle, normalization=[{"name": "ScaleIntensity"}])
    with pytest.raises(ValueError, match=r"logs/rough\.json: normalization#0.* in plan\.json must be what the stage was trained with"):
        train_bundle(bundle, dataset, epochs=1, device="cpu")
    shutil.rmtree(bundle / "models")
    train_bundle(bundle, dataset, epochs=1, device="cpu")
    load_network(bundle)


@pytest.mark.slow
def test_a_stage_is_not_trained_beside_one_that_sees_other_images(trained: Path, dataset: Path) -> None:
    other = {"normalization": [{"name": "ScaleIntensity"}]}
    with pytest.raises(ValueError, match=r"plan\.json: normalization#0.* must be what the weights were trained with"):
        train_bundle(trained, dataset, stage="fine", epochs=1, device="cpu", overrides=other)
    train_bundle(trained, dataset, stage="fine", epochs=1, device="cpu", overrides={"fine#network#channels": [4, 16]})
    load_network(trained)
    train_bundle(trained, dataset, epochs=1, device="cpu", overrides=other)
    load_network(trained)


def test_a_network_that_is_set_from_outside_is_written_into_both_configs(bundle: Path, dataset: Path) -> None:
    options = {"fine_network_def#channels": [4, 16], "policy#keep_aspect": True, "jitter#shift": 0.2}
    options["fine#network#bias"] = True  # an argument that the plan did not give
    train_bundle(bundle, dataset, epochs=1, device="cpu", overrides=options)
    load_network(bundle)
    for name in ("train.json", "inference.json"):
        config = json.loads((bundle / "configs" / name).read_text())
        assert config["fine_network_def"]["channels"] == [4, 16]
        assert config["policy"]["keep_aspect"] is True
    assert json.loads((bundle / "configs/train.json").read_text())["jitter"]["shift"] != 0.2
    train_bundle(bundle, dataset, stage="fine", epochs=1, device="cpu")


def test_a_stopped_stage_goes_on_with_the_options_it_was_begun_with(bundle: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = ResumeHandler.save

    def killed(self: ResumeHandler, engine: Any) -> None:
        save(self, engine)
        raise KeyboardInterrupt

    begun = {"ema_decay": 0.9, "fine_stage#mirror_axes": (0, 1)}  # a tuple is a list in JSON, and the same option
    with monkeypatch.context() as patch:
        patch.setattr(ResumeHandler, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train_bundle(bundle, dataset, stage="rough", epochs=2, device="cpu", overrides=begun)
    with pytest.raises(ValueError, match=r"rough\.json: a stopped stage must go on with .*0\.9.*, got \{\}"):
        train_bundle(bundle, dataset, stage="rough", epochs=2, device="cpu")
    train_bundle(bundle, dataset, stage="rough", epochs=2, device="cpu", overrides=begun)


# --- the course of a training ------------------------------------------------


@pytest.mark.slow
def test_each_validation_is_a_line_of_the_log_whether_killed_or_not(bundle: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_bundle(bundle, dataset, stage="rough", epochs=4, device="cpu", seed=1)
    whole = read_history(bundle / "logs/rough.jsonl")
    assert [line["epoch"] for line in whole] == [1, 2, 3, 4]
    assert all(0 <= line["metric"] <= 1 and line["loss"] > 0 for line in whole)
    seconds = [line["seconds"] for line in whole]
    assert seconds == sorted(seconds)
    save = ResumeHandler.save

    def killed(self: ResumeHandler, engine: Any) -> None:
        if engine.state.epoch == 3:  # validated, but not saved
            raise KeyboardInterrupt
        save(self, engine)

    with monkeypatch.context() as patch:
        patch.setattr(ResumeHandler, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train_bundle(bundle, dataset, stage="rough", epochs=4, device="cpu", seed=1)
    assert len(read_history(bundle / "logs/rough.jsonl")) == 3
    train_bundle(bundle, dataset, stage="rough", epochs=4, device="cpu", seed=1)
    lines = read_history(bundle / "logs/rough.jsonl")
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert lines[:2] == [{**line, "seconds": found["seconds"]} for line, found in zip(whole[:2], lines[:2], strict=True)]


# --- averaged weights --------------------------------------------------------


def test_the_checkpoint_holds_the_averaged_weights(bundle: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, torch.Tensor] = {}
    remove = ResumeHandler.remove
    monkeypatch.setattr(
        ResumeHandler, "remove", lambda self, engine: (seen.update(self.objects["model"].state_dict()), remove(self, engine))
    )
    change(bundle, validate_every={"rough": 3, "fine": 3})
    best = train_bundle(bundle, dataset, stage="rough", epochs=3, device="cpu", overrides={"ema_decay": 0.9})
    averaged = torch.load(best, weights_only=True)
    assert averaged.keys() == seen.keys()
    assert not torch.equal(averaged["rough.model.0.conv.weight"], seen["rough.model.0.conv.weight"])
    # The other network is not trained, so that its mean is itself.
    assert all(torch.allclose(averaged[name], seen[name], atol=1e-6) for name in seen if name.startswith("fine."))


# --- the fine network from the rough one -------------------------------------


def test_the_fine_network_starts_from_the_rough_one(bundle: Path, dataset: Path) -> None:
    options = {"fine_from_rough": True, "learning_rate": {"rough": 0.01, "fine": 0.0}}
    train_bundle(bundle, dataset, stage="rough", epochs=1, device="cpu", overrides=options)
    composite = train_bundle(bundle, dataset, stage="fine", epochs=1, device="cpu", overrides=options)
    rough, fine = state_of(composite, "rough"), state_of(composite, "fine")
    assert all(torch.equal(rough[name], fine[name]) for name in rough)


def test_networks_that_are_not_alike_are_refused(bundle: Path, dataset: Path) -> None:
    change(bundle, **{"fine#network#channels": [6, 12]})
    with pytest.raises(ValueError, match=r"fine_from_rough needs networks alike: .* \d+% .* at least 50% are due, from .*rough\.pt"):
        train_bundle(bundle, dataset, epochs=1, device="cpu", overrides={"fine_from_rough": True})


def test_without_a_rough_stage_there_is_nothing_to_start_from(bundle: Path, dataset: Path) -> None:
    with pytest.raises(FileNotFoundError, match="fine_from_rough needs a trained rough stage"):
        train_bundle(bundle, dataset, stage="fine", epochs=1, device="cpu", overrides={"fine_from_rough": True})


# --- out-of-fold predictions -------------------------------------------------


@pytest.mark.slow
def test_rough_networks_predict_what_they_have_not_seen_for_the_fine_one(
    bundle: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    runs = Runs()

    def run(task: TrainingTask, configs: tuple[str, ...], options: dict[str, Any]) -> None:
        if len(configs) == 1:
            seen.append(load_predictions(task.stages))
        runs(task, configs, options)

    monkeypatch.setattr("stseg3d.training.run._run", run)
    train_bundle(bundle, dataset, epochs=2, device="cpu", overrides=FOLDED)
    assert runs.names == ["rough", "fold0", "fold1", "fine"]
    assert {name: (array.dtype, array.shape) for name, array in seen[0].items()} == {
        f"image{n}": (np.float16, (1, 16, 16, 16)) for n in (0, 1)
    }
    assert not np.array_equal(seen[0]["image0"], seen[0]["image1"])
    assert not (bundle / "models/stages").exists()
    assert [len(read_history(bundle / f"logs/rough_fold{n}of2.jsonl")) for n in (0, 1)] == [1, 1]  # half of the epochs


@pytest.mark.slow
def test_a_training_with_folds_that_is_killed_again_and_again_repeats_none_of_them(
    bundle: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for names in (["rough", "fold0"], ["fold0", "fold1"], ["fold1", "fine"]):
        killed = Runs(kill=2)
        monkeypatch.setattr("stseg3d.training.run._run", killed)
        with pytest.raises(KeyboardInterrupt):
            train_bundle(bundle, dataset, epochs=1, device="cpu", overrides=FOLDED)
        assert killed.names == names
    again = Runs()
    monkeypatch.setattr("stseg3d.training.run._run", again)
    train_bundle(bundle, dataset, epochs=1, device="cpu", overrides=FOLDED)
    assert again.names == ["fine"]


def test_folds_start_without_weights_that_may_have_seen_their_cases(
    bundle: Path, dataset: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, given = trained / WEIGHTS, []

    def run(task: TrainingTask, configs: tuple[str, ...], options: dict[str, Any]) -> None:
        given.append((options.get("fold"), options["pretrained"]))
        _run(task, configs, options)

    monkeypatch.setattr("stseg3d.training.run._run", run)
    train_bundle(bundle, dataset, epochs=1, device="cpu", weights=weights, overrides=FOLDED)
    assert given == [(None, str(weights)), (0, ""), (1, ""), (None, str(weights))]


def test_predictions_of_other_folds_or_cases_are_not_taken_for_these(bundle: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = bundle / "models/stages"
    stale = np.zeros((1, 16, 16, 16))
    save_predictions({"image0": stale}, predictions_path(stages, "fold0of7"))
    save_predictions({"of_another_data_set": stale}, predictions_path(stages, "fold1of2"))
    runs, seen = Runs(), []

    def run(task: TrainingTask, configs: tuple[str, ...], options: dict[str, Any]) -> None:
        seen.append(set(load_predictions(task.stages)))
        runs(task, configs, options)

    monkeypatch.setattr("stseg3d.training.run._run", run)
    train_bundle(bundle, dataset, epochs=1, device="cpu", overrides=FOLDED)
    assert runs.names == ["rough", "fold0", "fold1", "fine"]
    assert seen[-1] == {"image0", "image1"}
    assert not stages.exists()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"folds": 3, "predicted_boxes": 0.5}, "folds must be 0, or from 2 to the number of training cases, 2, got 3"),
        ({"folds": 1, "predicted_boxes": 0.5}, "folds must be 0, or from 2"),
        ({"folds": 2}, "folds=2 must serve predicted_boxes or rough_channel, both are off"),
        ({"predicted_boxes": 0.5}, "predicted_boxes=0.5 must have folds"),
    ],
)
def test_folds_that_cannot_be_or_serve_nothing_are_refused(options: dict[str, Any], match: str, bundle: Path, dataset: Path) -> None:
    with pytest.raises(ValueError, match=match):
        train_bundle(bundle, dataset, epochs=1, device="cpu", overrides=options)


def test_cases_of_one_name_are_refused_where_predictions_go_by_it(bundle: Path, dataset: Path) -> None:
    content = json.loads(dataset.read_text())
    content["training"][1] = content["training"][0]
    dataset.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"image0\.nii\.gz: case id must be unique, got 'image0' twice"):
        train_bundle(bundle, dataset, epochs=1, device="cpu", overrides=FOLDED)


# --- the rough channel -------------------------------------------------------


@pytest.mark.parametrize("folds", [0, 2])
@pytest.mark.slow
def test_a_fine_network_learns_with_the_rough_channel_and_inference_gives_it_one(folds: int, bundle: Path, dataset: Path) -> None:
    weights = train_bundle(bundle, dataset, epochs=2, device="cpu", overrides={"rough_channel": True, "folds": folds})
    assert weights == bundle / WEIGHTS
    network, parser = load_network(bundle)
    assert network.fine.model[0].conv.weight.shape[1] == 2
    assert parser.get_parsed_content("fine_stage").rough_channel
    assert json.loads((bundle / "configs/train.json").read_text())["fine_stage"]["rough_channel"] is True
    assert json.loads((bundle / PLAN).read_text())["fine"]["rough_channel"] is True
    metadata = bundle / "configs/metadata.json"
    assert read_metadata(bundle)["network_data_format"]["inputs"]["image"]["channel_def"] == {"0": "image", "1": "rough probability"}
    verify_net_in_out("network_def", str(metadata), str(bundle / "configs/inference.json"), device="cpu")
    case = find_cases([dataset.parent / "image2.nii.gz"])[0]
    out = dataset.parent.parent / "out"
    out.mkdir()
    assert Segmenter(bundle, device="cpu").segment(case, out).output.is_file()


def test_a_rough_channel_needs_a_rough_network(bundle: Path, dataset: Path) -> None:
    with pytest.raises(FileNotFoundError, match="rough_channel needs a trained rough stage"):
        train_bundle(bundle, dataset, stage="fine", epochs=1, device="cpu", overrides={"rough_channel": True})


# --- deep supervision --------------------------------------------------------


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.slow
def test_a_network_with_several_heads_learns_and_infers(flat: bool, bundle: Path, dataset: Path) -> None:
    depth = 1 if flat else 2
    heads = {
        "name": "DynUNet",
        "kernel_size": [[3, 3, 2 * depth - 1]] * 3,
        "strides": [[1, 1, 1], [2, 2, depth], [2, 2, depth]],
        "upsample_kernel_size": [[2, 2, depth], [2, 2, depth]],
        "filters": [4, 8, 16],
        "deep_supervision": True,
        "deep_supr_num": 1,
    }
    options: dict[str, Any] = {"fine_network_def": heads} | ({"fine_stage#size": [16, 16, 1]} if flat else {})
    train_bundle(bundle, dataset, epochs=2, device="cpu", overrides=options)
    network, _ = load_network(bundle)
    size = (16, 16, 1 if flat else 16)
    assert network.fine(torch.zeros(1, 1, *size)).shape == (1, 2, *size)
    assert network.fine.train()(torch.zeros(1, 1, *size)).shape == (1, 2, 2, *size)
    lines = read_history(bundle / "logs/fine.jsonl")
    assert [0 <= line["metric"] <= 1 for line in lines] == [True, True]


# --- ensembles ---------------------------------------------------------------


def test_trained_bundles_become_one_that_asks_them_all(bundle: Path, dataset: Path, trained: Path, tmp_path: Path) -> None:
    train_bundle(bundle, dataset, epochs=1, device="cpu", seed=2)
    members = [trained, bundle]
    out = tmp_path / "both_segmentation"
    assert ensemble_bundles(members, out, stages=["fine"]) == out / WEIGHTS
    network, parser = load_network(out)
    ones = [load_network(member)[0] for member in members]
    x = torch.rand(1, 1, 16, 16, 16)
    with torch.inference_mode():
        mean = sum(one.fine(x).softmax(1) for one in ones) / 2
        torch.testing.assert_close(network.fine(x).softmax(1), mean)
        torch.testing.assert_close(network.rough(x), ones[0].rough(x))
    assert parser.get_parsed_content("inferer").fine.size == (16, 16, 16)
    with pytest.raises(FileExistsError, match="must not exist yet"):
        ensemble_bundles(members, out)


def test_members_of_an_ensemble_may_be_of_any_architecture(bundle: Path, dataset: Path, trained: Path, tmp_path: Path) -> None:
    train_bundle(bundle, dataset, epochs=1, device="cpu", overrides={"fine_network_def#channels": [4, 16]})
    ensemble_bundles([trained, bundle], tmp_path / "out", stages=["fine"])
    both, wide = load_network(tmp_path / "out")[0].fine, load_network(bundle)[0].fine
    x = torch.rand(1, 1, 16, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(both(x).softmax(1), (load_network(trained)[0].fine(x).softmax(1) + wide(x).softmax(1)) / 2)
    with pytest.raises(ValueError, match="at least one"):
        ensemble_bundles([], tmp_path / "none")


def test_members_of_an_ensemble_tell_the_same_classes_apart(trained: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(trained, tmp_path / "other"))
    change(other, classes=["background", "vertebra"])
    (other / TRAINED).unlink()
    with pytest.raises(ValueError, match=r"other: classes of an ensemble's members must be that of"):
        ensemble_bundles([trained, other], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_ensemble_that_cannot_be_written_leaves_nothing(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left")  # noqa: EM101

    monkeypatch.setattr("stseg3d.training.ensemble.save_weights", full)
    with pytest.raises(OSError, match="no space left"):
        ensemble_bundles([trained, trained], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_members_of_an_ensemble_see_inputs_of_one_size(trained: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(trained, tmp_path / "other"))
    change(other, fine_stage={"size": [16, 16, 32], "network": json.loads((other / PLAN).read_text())["fine"]["network"]})
    with pytest.raises(ValueError, match=r"other: fine input of an ensemble's members must be that of"):
        ensemble_bundles([trained, other], tmp_path / "out")
