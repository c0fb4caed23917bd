"""What a comparison leaves for people, and the command that does it all."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from stseg3d import cli
from stseg3d.compare import Comparison, advise, write_outputs
from stseg3d.compare.measure import measure
from stseg3d.compare.write import example_size
from tests.compare.conftest import Compared
from tests.compare.made_up import made_up

TABLES = {"scores.csv", "summary.csv", "differences.csv", "summary.md"}


@pytest.fixture
def copied(compared: Compared, tmp_path: Path) -> Compared:
    shutil.copytree(compared.folder, tmp_path / "out")
    return replace(compared, folder=tmp_path / "out")


def test_without_matplotlib_the_tables_are_complete(
    copied: Compared, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("stseg3d.compare.write.can_draw", lambda: False)
    logger = logging.getLogger("stseg3d.compare.write")
    monkeypatch.setattr(logger, "disabled", False)  # MONAI's logging.conf may have run
    with caplog.at_level(logging.WARNING):
        files = write_outputs(copied.comparison, copied.data, copied.folder)
    assert {path.name for path in files} == TABLES
    assert not (copied.folder / "figures").exists()
    assert "pip install 'stseg3d[report]'" in caplog.text


def test_examples_are_shown_at_the_advised_size_or_the_largest() -> None:
    assert example_size(made_up({("rough_only", 32): 0.8})) is None
    both = made_up({(way, size): mean for way, mean in (("rough_only", 0.7), ("two_stage", 0.9)) for size in (32, 64)})
    assert example_size(both) == advise(both).size == 32
    neither = made_up({("rough_only", 32): 0.8, ("two_stage", 32): 0.8, ("two_stage", 64): 0.8})
    assert example_size(neither) in (32, 64)


@pytest.mark.slow
def test_the_command_from_data_to_advice(
    bundle: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["compare", str(bundle), "--data", str(data), "-o", str(out), "--sizes", "16,32", "--sliding-sizes", "32"]
    options = ["--epochs", "2", "--ways", "rough_only,two_stage,sliding_window", "--device", "cpu", "--set", "ema_decay=0.5"]
    monkeypatch.setattr("stseg3d.compare.experiment.measure_alone", measure)  # a process for each way takes seconds to start
    monkeypatch.setattr("stseg3d.compare.figure_style.DPI", 72)
    assert cli.main([*command, *options]) == 0
    printed = capsys.readouterr().out.splitlines()
    comparison = Comparison.load(out / "results.json")
    assert printed[-1] == advise(comparison).sentence
    assert "at least 5 are needed" in printed[-1]  # two cases are too few to tell
    assert comparison.sizes == [16, 32]
    assert comparison.at("sliding_window", 32)
    assert not comparison.at("sliding_window", 16)
    files = [line.removeprefix(f"{out}/") for line in printed if line.startswith(f"{out}/")]
    figures = [f"figures/{name}.{suffix}" for name in ("scores", "cases", "costs", "examples") for suffix in ("png", "pdf")]
    assert sorted(files) == sorted([*TABLES, *figures])
    assert all((out / name).stat().st_size > 0 for name in files)


def test_the_command_refuses_bad_sizes_in_one_sentence_and_writes_nothing(
    bundle: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert cli.main(["compare", str(bundle), "--data", str(data), "-o", str(out), "--sizes", "20"]) == 2
    assert capsys.readouterr().err.strip() == "stseg3d: error: sizes must be multiples of 16, got 20"
    assert not out.exists()
