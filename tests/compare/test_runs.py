from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stseg3d.bundle import PLAN, find_bundle
from stseg3d.compare.checks import check_runs
from stseg3d.compare.runs import SLIDING, TWO_STAGE, Run, input_size, prepare_runs, train_missing
from stseg3d.plan import Plan
from stseg3d.volumes import load_dataset
from tests.tiny import read_config

CONFIGS = ("train.json", "inference.json")


def prepare(bundle: Path, data: Path, folder: Path, sizes: tuple[int, ...] = (16,), **options: Any) -> list[Run]:
    return prepare_runs(bundle, load_dataset(data), folder, sizes=sizes, **options)


def config(run: Run, name: str = "train.json") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run.folder / "configs" / name).read_text())
    return content


def finish(run: Run, *stages: str) -> None:
    """As if these stages were trained."""
    folder = run.folder / "models/stages"
    folder.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        (folder / f"{stage}.pt").touch()


# --- sizes -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nominal", "shapes", "size"),
    [
        (32, [(64, 64, 64)], (32, 32, 32)),
        (32, [(256, 320, 1)], (32, 32, 1)),
        (64, [(35, 50, 36)], (48, 64, 48)),  # the next multiple of 16 that holds the image
        (64, [(48, 48, 33)], (48, 48, 48)),
        (32, [(8, 64, 64)], (16, 32, 32)),
        (64, [(20, 64, 64), (40, 64, 64), (100, 64, 64)], (48, 64, 64)),  # the median
    ],
)
def test_no_axis_gets_more_voxels_than_the_images_have(nominal: int, shapes: list[tuple[int, ...]], size: tuple[int, ...]) -> None:
    assert input_size(nominal, shapes) == size


@pytest.mark.parametrize("nominal", [8, 24, 0, -16])
def test_a_size_that_networks_cannot_halve_is_refused(nominal: int) -> None:
    with pytest.raises(ValueError, match=f"multiples of 16, got {nominal}"):
        input_size(nominal, [(64, 64, 64)])


def test_two_sizes_of_one_input_are_refused(bundle: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sizes 48 and 64 give the same input, \(48, 32, 32\).*leave 64 out"):
        prepare(bundle, data, tmp_path / "out", (16, 48), rough_sizes=[64])
    assert not (tmp_path / "out").exists()


def test_sizes_of_the_sliding_window_are_of_the_sizes(bundle: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sliding_sizes must be of the sizes \[16\], got \[32\]"):
        prepare(bundle, data, tmp_path / "out", sliding_sizes=[32])


# --- configs -----------------------------------------------------------------


def test_each_size_has_its_runs(bundle: Path, data: Path, tmp_path: Path) -> None:
    runs = prepare(bundle, data, tmp_path, (16, 32), rough_sizes=[48], sliding_sizes=[32])
    assert [(run.nominal_size, run.kind, run.stages) for run in runs] == [
        (16, TWO_STAGE, ("rough", "fine")),
        (32, TWO_STAGE, ("rough", "fine")),
        (32, SLIDING, ("fine",)),
        (48, TWO_STAGE, ("rough",)),
    ]
    assert [run.size for run in runs] == [(16, 16, 16), (32, 32, 32), (32, 32, 32), (48, 32, 32)]


@pytest.mark.parametrize("name", ["vertebrae_mr", "nuclei"])
@pytest.mark.parametrize("overrides", [{}, {"rough_channel": True, "folds": 2}], ids=["plain", "rough channel"])
def test_one_architecture_and_one_size_in_every_role(
    name: str, overrides: dict[str, Any], data: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if name == "nuclei":
        data = request.getfixturevalue("pictures")
    for run in prepare(find_bundle(name), data, tmp_path / "out", overrides=overrides):
        has_channel = bool(overrides) and run.kind == TWO_STAGE
        for which in CONFIGS:
            parser = read_config(run.folder, which)
            network = parser.get_parsed_content("network_def")
            rough, fine = ({k: tuple(v.shape) for k, v in part.state_dict().items()} for part in (network.rough, network.fine))
            differing = [key for key in rough if rough[key] != fine[key]]
            assert rough.keys() == fine.keys()
            assert bool(differing) == has_channel  # the input of the first convolutions alone
            assert all(fine[key][1] == rough[key][1] + 1 for key in differing)
            stages = [parser.get_parsed_content(f"{stage}_stage") for stage in ("rough", "fine")]
            assert [stage.size for stage in stages] == [run.size] * 2
            assert [stage.rough_channel for stage in stages] == [False, has_channel]
            assert all(run.size[axis] > 1 for stage in stages for axis in stage.mirror_axes)
        formats = config(run, "metadata.json")["network_data_format"]
        assert formats["inputs"]["image"]["spatial_shape"] == list(run.size)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    import nibabel as nib

    for name, array in (("a", np.zeros((40, 40, 1, 3), np.uint8)), ("a_label", np.ones((40, 40, 1), np.uint8))):
        nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / f"{name}.nii")
    path = tmp_path / "pictures.json"
    case = {"image": "a.nii", "label": "a_label.nii"}
    path.write_text(json.dumps({"training": [case], "validation": [case]}))
    return path


def test_a_flat_axis_is_not_mirrored(bundle: Path, pictures: Path, tmp_path: Path) -> None:
    flat = {"fine_network_def#strides": [[2, 2, 1]]}
    (run, _) = prepare(bundle, pictures, tmp_path / "out", overrides=flat | {"fine_stage#mirror_axes": [0, 1]})
    assert run.size == (16, 16, 1)
    with pytest.raises(ValueError, match=r"must leave fine_stage#mirror_axes to the comparison.*\[0\]; got \[0, 2\]"):
        prepare(bundle, pictures, tmp_path / "out", overrides=flat | {"fine_stage#mirror_axes": [0, 2]})


@pytest.mark.parametrize(("size", "batch"), [(16, 8), (64, 4), (128, 1)])
def test_batches_hold_as_many_voxels_as_fit(size: int, batch: int, bundle: Path, tmp_path: Path) -> None:
    import nibabel as nib

    for name in ("a", "b"):
        nib.save(nib.Nifti1Image(np.zeros((128,) * 3, np.uint8), np.eye(4)), tmp_path / f"{name}.nii")
    path = tmp_path / "large.json"
    path.write_text(json.dumps({"training": [{"image": "a.nii", "label": "b.nii"}]}))
    assert config(prepare(bundle, path, tmp_path / "out", (size,))[0])["cases_a_batch"]["rough"] == batch


def test_overrides_reach_what_they_name(bundle: Path, data: Path, tmp_path: Path) -> None:
    overrides = {
        "ema_decay": 0.5,  # in train.json alone
        "displayable_configs#threshold": 0.3,  # in inference.json alone
        "policy#margin_mm": 2.5,  # in both
        "cases_a_batch#rough": 3,
        "fine_network_def#channels": [4, 6],
        "samples": 7,
        "lr_scheduler#power": 0.5,  # of no plan
    }
    (run, sliding) = prepare(bundle, data, tmp_path / "out", overrides=overrides)
    for of in (run, sliding):
        train, inference = (config(of, name) for name in CONFIGS)
        assert train["ema_decay"] == 0.5
        assert "ema_decay" not in inference
        assert inference["displayable_configs"]["threshold"] == 0.3
        assert train["policy"]["margin_mm"] == inference["displayable_configs"]["margin_mm"] == 2.5
        assert train["cases_a_batch"]["rough"] == 3
        assert train["lr_scheduler"]["power"] == 0.5
        assert [train[f"{stage}_network_def"]["channels"] for stage in ("rough", "fine")] == [[4, 6], [4, 6]]
    assert config(run)["fine_training"]["transforms"][2]["samples"] == 7
    assert config(sliding)["fine_training"]["transforms"][3]["num_samples"] == 7


@pytest.mark.parametrize(
    ("overrides", "rule"),
    [
        ({"ema_dekay": 0.5}, "must have the entry 'ema_dekay' to set it"),
        ({"policy#nothing": 1}, "must have the entry 'policy#nothing' to set it"),
        ({"fine_stage#size": [8, 8, 8]}, r"must leave fine_stage#size to the comparison, which makes it \[16, 16, 16\]; got \[8, 8, 8\]"),
        ({"rough_network_def#channels": [2, 4]}, "must leave rough_network_def#channels to the comparison"),
    ],
)
def test_overrides_that_cannot_be_are_refused(overrides: dict[str, Any], rule: str, bundle: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rule):
        prepare(bundle, data, tmp_path / "out", overrides=overrides)
    assert not (tmp_path / "out").exists()


def test_a_sliding_window_is_told_nothing_by_a_rough_network(bundle: Path, data: Path, tmp_path: Path) -> None:
    told = {"rough_channel": True, "folds": 2, "predicted_boxes": 0.5, "fine_from_rough": True}
    (run, sliding) = prepare(bundle, data, tmp_path / "out", overrides=told)
    plan, slid = (Plan.parse((one.folder / PLAN).read_bytes()) for one in (run, sliding))
    assert {key: plan.get(key) for key in told} == told
    assert not any(slid.get(key) for key in told)


@pytest.mark.parametrize(("from_rough", "rate"), [(False, 0.0005), (True, 0.002)])
def test_a_sliding_window_learns_at_the_rate_of_a_network_that_starts_from_nothing(
    from_rough: bool, rate: float, bundle: Path, data: Path, tmp_path: Path
) -> None:
    told = {"fine_from_rough": from_rough, "learning_rate": {"rough": 0.002, "fine": 0.0005}}
    (run, sliding) = prepare(bundle, data, tmp_path / "out", overrides=told)
    assert config(run)["learning_rate"]["fine"] == 0.0005
    assert config(sliding)["learning_rate"]["fine"] == rate


@pytest.mark.parametrize("weights", ["model.pt", "stages/rough.pt", "stages/last_rough.pt"])
def test_other_settings_are_refused_where_training_has_begun(weights: str, bundle: Path, data: Path, tmp_path: Path) -> None:
    (run, _) = prepare(bundle, data, tmp_path / "out")
    prepare(bundle, data, tmp_path / "out", overrides={"ema_decay": 0.5})  # nothing is lost yet
    (run.folder / "models" / weights).parent.mkdir(parents=True)
    (run.folder / "models" / weights).touch()
    prepare(bundle, data, tmp_path / "out", overrides={"ema_decay": 0.5})
    with pytest.raises(ValueError, match=r"016.two_stage.configs.plan\.json: .*other settings; choose another folder, or remove"):
        prepare(bundle, data, tmp_path / "out", overrides={"ema_decay": 0.9})
    assert config(run)["ema_decay"] == 0.5


def test_what_training_writes_into_the_metadata_is_no_other_setting(bundle: Path, data: Path, tmp_path: Path) -> None:
    (run, _) = prepare(bundle, data, tmp_path / "out")
    finish(run, "rough")
    (run.folder / "configs/metadata.json").write_text("{}")
    prepare(bundle, data, tmp_path / "out")
    assert config(run, "metadata.json") == {}


def test_a_network_that_cannot_take_a_size_is_refused_before_training(bundle: Path, data: Path, tmp_path: Path) -> None:
    deep = {"fine_network_def#channels": [4] * 7, "fine_network_def#strides": [2] * 6}
    with pytest.raises(ValueError, match=r"fine#size must be divisible by \[64, 64, 64\] .* got \[16, 16, 16\]"):
        prepare(bundle, data, tmp_path / "out", overrides=deep)
    runs = prepare(bundle, data, tmp_path / "out", overrides={"fine_network_def": {"name": "SegResNet", "blocks_down": [1] * 6}})
    with pytest.raises(ValueError, match=r"size 16: rough network must .*\(16, 16, 16\)"):
        check_runs(runs, load_dataset(data), data)


def test_without_validation_cases_nothing_is_trained(bundle: Path, data: Path, tmp_path: Path) -> None:
    data.write_text(json.dumps(json.loads(data.read_text()) | {"validation": []}))
    runs = prepare(bundle, data, tmp_path / "out")
    with pytest.raises(ValueError, match=r"dataset\.json: file must list cases under .validation"):
        check_runs(runs, load_dataset(data), data)
    finish(runs[0], "rough", "fine")
    finish(runs[1], "fine")
    check_runs(runs, load_dataset(data), data)


# --- training ----------------------------------------------------------------


class FakeTraining:
    """Takes as long as it is told, on a clock of its own."""

    def __init__(self) -> None:
        self.now, self.calls, self.takes = 0.0, [], {}
        self.budgets: list[float | None] = []

    def __call__(self, folder: Path, data: Path, *, stage: str, budget_s: float | None, **options: Any) -> None:
        name = f"{folder.parent.name} {folder.name} {stage}"
        self.calls.append(name)
        self.budgets.append(budget_s)
        spent = self.takes.get(name, budget_s if budget_s is not None else 60.0)
        self.now += abs(spent)
        if spent < 0:
            raise KeyboardInterrupt
        (folder / "models/stages").mkdir(parents=True, exist_ok=True)
        (folder / f"models/stages/{stage}.pt").touch()


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTraining]:
    fake = FakeTraining()
    monkeypatch.setattr("stseg3d.compare.runs.train_bundle", fake)
    monkeypatch.setattr("stseg3d.compare.runs.time.monotonic", lambda: fake.now)
    return fake


@pytest.fixture
def runs(bundle: Path, data: Path, tmp_path: Path) -> list[Run]:
    return prepare(bundle, data, tmp_path / "out", (16, 32), sliding_sizes=[16])


def test_a_budget_is_shared_by_the_root_of_the_size(runs: list[Run], training: FakeTraining, data: Path) -> None:
    seconds = train_missing(runs, data, budget_s=1000.0)
    assert training.calls == [
        *("016 two_stage rough", "016 two_stage fine", "016 sliding_window fine"),
        *("032 two_stage rough", "032 two_stage fine"),
    ]
    small, large = 16**1.5, 32**1.5
    due = [1000 * effort / (3 * small + 2 * large) for effort in (small, small, small, large, large)]
    assert training.budgets == pytest.approx(due, abs=0.1)  # seconds are noted to a tenth
    assert list(seconds.values()) == pytest.approx(due, abs=0.1)
    assert next(iter(seconds)) == "16 two_stage rough"


def test_what_one_stage_leaves_of_its_share_goes_to_the_others(runs: list[Run], training: FakeTraining, data: Path) -> None:
    training.takes = {"016 two_stage rough": 0.0, "032 two_stage rough": 5000.0}
    train_missing(runs, data, budget_s=1000.0)
    small, large = 16**1.5, 32**1.5
    assert training.budgets[1] == pytest.approx(1000 * small / (2 * small + 2 * large))
    assert training.budgets[-1] == pytest.approx(1.0)  # nothing is left, and never no limit


def test_what_is_trained_is_not_trained_again_and_the_others_get_no_more_than_their_share(
    runs: list[Run], training: FakeTraining, data: Path
) -> None:
    train_missing(runs, data, budget_s=1000.0)
    whole = dict(zip(training.calls, training.budgets, strict=True))
    (runs[-1].folder / "models/stages/fine.pt").unlink()
    training.calls.clear()
    seconds = train_missing(runs, data, budget_s=1000.0)
    assert training.calls == ["032 two_stage fine"]
    assert training.budgets[-1] == pytest.approx(whole["032 two_stage fine"], abs=0.1)
    assert len(seconds) == 5


def test_a_killed_stage_goes_on_and_its_time_is_counted(runs: list[Run], training: FakeTraining, data: Path) -> None:
    training.takes = {"016 two_stage fine": -7.0}
    with pytest.raises(KeyboardInterrupt):
        train_missing(runs, data)
    last = runs[0].folder / "models/stages/last_fine.pt"
    last.touch()
    (runs[0].folder / "models/stages/fine.pt").touch()  # the best so far does not make it a trained one
    assert runs[0].missing == ["fine"]
    training.takes, training.calls = {}, []
    seconds = train_missing(runs, data)
    assert training.calls[0] == "016 two_stage fine"
    assert seconds["16 two_stage fine"] == 67.0


def test_epochs_device_and_seed_are_passed_on(runs: list[Run], data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr("stseg3d.compare.runs.train_bundle", lambda *_, **options: calls.append(options))
    train_missing(runs[:1], data, epochs=3, device="cpu", seed=5)
    assert calls == [
        {"stage": stage, "budget_s": None, "epochs": 3, "device": "cpu", "seed": 5, "trust": False} for stage in ("rough", "fine")
    ]
