"""`stseg3d select`: candidates compared on cases not seen, the winner as one bundle with its table; nothing is predicted twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from stseg3d.bundle import load_network, open_bundle
from stseg3d.cli import main
from stseg3d.inference.segment import Segmenter
from stseg3d.plan import Output, Plan
from stseg3d.planning.new_bundle import plan_bundle
from stseg3d.selection import select_bundle, train_folds
from stseg3d.selection.cross_validation import Validated
from stseg3d.selection.pieces import Pieces
from stseg3d.selection.select import judge_mirroring, least_volumes
from tests.planning.spheres import write_cases
from tests.planning.test_new_bundle import SMALL, ball
from tests.selection.conftest import Trainer

pytestmark = pytest.mark.slow  # thorough; the nightly run has them


@pytest.fixture
def folds(bundle: Path, dataset: Path, trainer: Trainer) -> Path:
    train_folds(bundle, dataset, 3, device="cpu")
    return bundle


def validated(bundle: Path, predictions: list[list[int]], seconds: float = 1.0) -> Validated:
    truth = np.array([1, 1, 1, 1, 0, 0])
    pieces = tuple(Pieces.of(np.array(one), truth, ("background", "a")) for one in predictions)
    plan = open_bundle(bundle).require_plan().set({"classes": ["background", "a"]})
    return Validated("x", plan, tuple("abcdef"[: len(pieces)]), tuple(range(len(pieces))), pieces, seconds)


def test_the_winner_is_one_bundle_with_its_table_and_a_second_call_predicts_nothing(
    folds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = select_bundle(folds, tmp_path / "out", device="cpu")
    scores = [one.interval().mean for one in found.candidates]
    assert len(scores) == 2
    assert scores[0] == max(scores)
    content = json.loads((tmp_path / "out/selection.json").read_text())
    assert content["winner"] == found.candidates[0].name
    assert len(content["candidates"]["one_stage"]["cases"]) == 6
    text = (tmp_path / "out/docs/README.md").read_text()
    assert all(one.name in text for one in found.candidates)
    assert "mean of the networks of 3 folds" in text
    plan = open_bundle(tmp_path / "out").require_plan()  # data alone
    assert [len(getattr(plan, stage).network.arguments["networks"]) for stage in plan.stages] == [3] * len(plan.stages)
    assert plan.output.largest_only == found.rules.largest_only
    assert dict(plan.output.min_volume_mm3) == dict(found.rules.min_volume_mm3)
    load_network(tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "out", "tiny_segmentation"]

    monkeypatch.setattr(Segmenter, "__init__", None)  # no bundle can be loaded for a case
    again = select_bundle(folds, tmp_path / "again", device="cpu")
    assert again.as_json() == found.as_json()


@pytest.mark.parametrize("winner", ["two_stages", "one_stage"])
def test_plans_of_one_and_of_two_stages_become_one_bundle_or_that_of_one_fold(folds: Path, tmp_path: Path, winner: str) -> None:
    (folds / "candidates.json").write_text(json.dumps({winner: {}}))
    found = select_bundle(folds, tmp_path / "mean", device="cpu")
    single = select_bundle(folds, tmp_path / "one", single=True, device="cpu")
    assert single.single == int(np.argmax(single.final.by_fold(single.rules)))
    plan, one = (Plan.parse((tmp_path / name / "configs/plan.json").read_bytes()) for name in ("mean", "one"))
    assert (plan.fine.network.name, one.fine.network.name) == ("MeanEnsemble", "UNet")
    assert plan.stages == one.stages == (("rough", "fine") if winner == "two_stages" else ("fine",))
    kept = bool(found.mirroring and found.mirroring.kept)
    assert plan.fine.mirror_axes == one.fine.mirror_axes == ((0,) if kept else ())
    own = (folds / f"folds/{winner}/fold_{single.single}/models/model.pt").read_bytes()
    assert (tmp_path / "one/models/model.pt").read_bytes() == own


def test_each_case_is_segmented_by_networks_that_have_not_seen_it(folds: Path, tmp_path: Path) -> None:
    select_bundle(folds, tmp_path / "out", device="cpu")
    notes = [json.loads(path.read_text()) for path in (folds / "folds/two_stages/predictions").glob("*_seg.json")]
    assert len(notes) == 6
    for one in notes:
        dataset = json.loads(Path(one["bundle"]["path"], "data/dataset.json").read_text())
        assert one["case"] in [case["id"] for case in dataset["test"]]
        assert one["bundle"]["overrides"]["fine_stage#mirror_axes"] == []


def test_what_is_not_trained_or_would_be_replaced_is_told(folds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folds / "folds/one_stage/fold_1/models/model.pt").unlink()
    with pytest.raises(ValueError, match=r"got 1 of 6 that are not, the first .*one_stage.fold_1: `stseg3d train .* --folds 3` goes on"):
        select_bundle(folds, tmp_path / "out")
    (tmp_path / "out").mkdir()
    assert main(["select", str(folds), "-o", str(tmp_path / "out")]) == 2
    assert "must not exist yet" in capsys.readouterr().err
    assert main(["select", str(tmp_path / "data"), "-o", str(tmp_path / "new")]) == 2
    assert "splits.json: file must exist, got none" in capsys.readouterr().err


def test_mirroring_stays_only_if_its_gain_is_more_than_chance(bundle: Path) -> None:
    poor, good, best = [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]
    plain = validated(bundle, [poor, poor, good, poor])
    found = judge_mirroring(plain, validated(bundle, [good, good, best, good], seconds=2.0))
    assert (found.kept, found.times) == (True, 2.0)
    assert found.gain.low > 0
    assert not judge_mirroring(plain, plain).kept
    mixed = judge_mirroring(plain, validated(bundle, [best, poor, poor, poor]))
    assert mixed.gain.mean > 0.001
    assert not mixed.kept
    assert not judge_mirroring(validated(bundle, [poor]), validated(bundle, [best])).kept  # one case shows nothing


def test_least_volumes_are_quantiles_of_the_true_objects(bundle: Path) -> None:
    volumes = [float(np.prod((6, 8, 6)))] * 6
    assert least_volumes(bundle, open_bundle(bundle).require_plan()) == {"vertebral body": sorted({*volumes})}
    (bundle / "fingerprint.json").unlink()
    assert least_volumes(bundle, open_bundle(bundle).require_plan()) == {}


def test_a_score_by_fold_is_that_of_its_cases(bundle: Path) -> None:
    found = validated(bundle, [[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]])
    assert found.by_fold() == [1.0, pytest.approx(2 / 3)]
    assert found.by_class() == {"a": pytest.approx(5 / 6)}
    assert found.interval(Output(min_volume_mm3={"a": 3.0})).mean == 0.5


@pytest.mark.slow
def test_from_data_to_the_selected_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_cases(tmp_path / "data", 5, ball, noise=20)
    assert plan_bundle(tmp_path / "balls", data, wishes=SMALL).bundle
    line = ["train", str(tmp_path / "balls"), "--folds", "3", "--budget", "60s", "--threads", "1"]
    assert main(line) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "balls/folds").rglob("model.pt")}
    assert len(before) == 6
    assert main(line) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert main(["select", str(tmp_path / "balls"), "-o", str(tmp_path / "best"), "--threads", "1"]) == 0
    assert "mean Dice, cross-validated" in capsys.readouterr().out
    content: dict[str, Any] = json.loads((tmp_path / "best/selection.json").read_text())
    assert content["score"]["mean"] > 0.6
    scan = str(data / "images/case1.nii.gz")
    assert main(["segment", scan, "--bundle", str(tmp_path / "best"), "-o", str(tmp_path / "out"), "--threads", "1"]) == 0
    found, truth = (np.asarray(nib.load(path).dataobj) > 0 for path in (tmp_path / "out/case1_seg.nii.gz", data / "labels/case1.nii.gz"))
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.6
