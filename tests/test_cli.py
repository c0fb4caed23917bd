"""The command line, in-process: what it makes of its arguments, what it prints, and how it ends."""

from __future__ import annotations

import csv
import errno
import gc
import inspect
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from stseg3d import __version__, cli
from stseg3d.cli.arguments import seconds as read_seconds
from stseg3d.cli.terminal import loading, log_to_stderr
from stseg3d.inference import Request
from stseg3d.machine.files import atomic_write_text
from stseg3d.machine.tables import Table
from stseg3d.metrics import Confusion
from stseg3d.volumes import Case
from tests.systems import on_posix


def save(path: Path, array: Any, spacing: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.asarray(array, np.uint8), np.diag([spacing] * 3 + [1.0])), path)
    return path


def block(stop: int, value: int = 1, shape: tuple[int, int, int] = (4, 4, 4)) -> np.ndarray:
    """A map whose planes before ``stop`` on the first axis have the value."""
    array = np.zeros(shape, np.uint8)
    array[:stop] = value
    return array


def is_one_sentence(text: str, *parts: str) -> bool:
    return text.count("\n") == 1 and text.endswith("\n") and "Traceback" not in text and all(part in text for part in parts)


# --- help --------------------------------------------------------------------


COMMANDS = ("segment", "train", "select", "calibrate", "evaluate", "compare", "report", "demo")


@pytest.mark.parametrize("arguments", [["--help"], *([command, "--help"] for command in COMMANDS)])
def test_help_imports_neither_torch_nor_monai(arguments: list[str]) -> None:
    code = """if 1:
        import sys
        from stseg3d.cli import main
        try:
            main(sys.argv[1:])
        except SystemExit as end:
            heavy = {"torch", "monai", "numpy", "scipy", "nibabel", "SimpleITK", "itk"} & set(sys.modules)
            sys.exit(f"heavy: {heavy}" if heavy or end.code else 0)
    """
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: stseg3d")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"stseg3d {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ([], "required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["segment", "x.nii", "-o", "out"], "required: --bundle"),
        (["segment", "x.nii", "--bundle", "b", "-o", "out", "--device", "gpu"], "must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        (["segment", "x.nii", "--bundle", "b", "-o", "out", "--batch-size", "0"], "must be a whole number above 0, got '0'"),
        (["segment", "x.nii", "--bundle", "b", "-o", "out", "--jobs", "0"], "must be a whole number above 0, got '0'"),
        (["segment", "x.nii", "--bundle", "b", "-o", "out", "--time-limit", "0"], "must be a time such as 90s, 30min or 2h, got '0s'"),
        (["segment", "x.nii", "--bundle", "b", "-o", "out", "--rough"], "unrecognized arguments: --rough"),  # no guessing of half a flag
        (["train", "b", "--data", "d", "--budget", "30"], "must be a time such as 90s, 30min or 2h, got '30'"),
        (["compare", "b"], "required: --data"),
        (["compare", "b", "--data", "d", "--sizes", "32;48"], "must be sizes such as 32,48,64, got '32;48'"),
        (["compare", "b", "--data", "d", "--set", "ema_decay"], "must be KEY=JSON"),
        (["compare", "b", "--data", "d", "--part", "all"], "invalid choice: 'all'"),
    ],
)
def test_bad_arguments_are_one_sentence_and_status_2(arguments: list[str], rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert is_one_sentence(capsys.readouterr().err, rule, "error: ")


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30min", 1800), ("1.5 h", 5400)])
def test_budgets_are_read(text: str, seconds: float) -> None:
    assert read_seconds(text) == seconds


# --- segment -----------------------------------------------------------------


BESIDE = [".claims", "outcomes.jsonl", "summary.csv"]


class FakeSegmenter:
    """A bundle that was loaded as was asked for."""

    made: list[Request]
    cases: list[str]
    failures: dict[str, BaseException]

    def __init__(self, request: Request) -> None:
        self.request = request
        self.made.append(request)


class FakeWork:
    """Writes an empty file a case; stumbles over cases named so."""

    held_bytes = 0

    def __init__(self, segmenter: FakeSegmenter, case: Case) -> None:
        self.segmenter, self.case = segmenter, case

    def open(self, volume: Any) -> None:
        if self.case.id in self.segmenter.failures:
            raise self.segmenter.failures[self.case.id]
        self.segmenter.cases.append(self.case.id)

    def read_ahead(self) -> None:
        pass

    def find(self) -> None:
        pass

    def write(self) -> SimpleNamespace:
        output = self.segmenter.request.output_dir / f"{self.case.id}_seg.nii.gz"
        output.touch()
        output.with_name(f"{self.case.id}_seg.json").touch()
        if self.case.id == "empty":
            logging.getLogger("stseg3d.inference").warning("%s: nothing found\nhere", self.case.id)
        return SimpleNamespace(case_id=self.case.id, output=output, provenance={"seconds": {}, "warnings": []})


@pytest.fixture
def segmenter(monkeypatch: pytest.MonkeyPatch) -> type[FakeSegmenter]:
    fake = type("Segmenter", (FakeSegmenter,), {"made": [], "cases": [], "failures": {}})
    monkeypatch.setattr("stseg3d.batch.work.Segmenter", fake)
    monkeypatch.setattr("stseg3d.batch.work.CaseWork", FakeWork)
    return fake


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "bundle" / "configs").mkdir(parents=True)
    (tmp_path / "bundle" / "configs" / "inference.json").write_text("{}")
    return tmp_path / "bundle"


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    for name in ("a", "b", "empty"):
        save(tmp_path / "scans" / f"{name}.nii.gz", block(2))
    return tmp_path / "scans"


def segment(*arguments: object) -> int:
    return cli.main(["segment", *map(str, arguments)])


def test_segment_takes_files_and_folders_and_prints_what_it_wrote(
    segmenter: type[FakeSegmenter], bundle: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "out"
    other = save(tmp_path / "c.nii", block(2))
    assert segment(other, scans, "--bundle", bundle, "-o", out) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [str(out / f"{name}_seg.nii.gz") for name in ("c", "a", "b", "empty")]
    assert printed.err == "stseg3d: empty: nothing found here\n"
    assert segmenter.made == [Request(bundle, out)]


def test_the_first_scan_is_read_while_libraries_are_loaded(
    segmenter: type[FakeSegmenter], bundle: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def note(self: FakeWork, volume: Any) -> None:
        given[self.case.id] = volume

    monkeypatch.setattr(FakeWork, "open", note)
    for out, more, read in (
        ("out", [], True),
        ("out", ["--overwrite"], False),  # it was done before, and most often is skipped
        ("of_series", ["--series", "1.2.3"], False),  # which a NIfTI file is not
    ):
        assert segment(scans, "--bundle", bundle, "-o", tmp_path / out, *more) == 0
        assert {name: volume is not None for name, volume in given.items()} == {"a": read, "b": False, "empty": False}
        if read:
            np.testing.assert_array_equal(given["a"].read()[0], block(2))
        given.clear()
        for output in (tmp_path / out).glob("*_seg.nii.gz"):
            output.write_bytes(b"another's")  # so that --overwrite makes it anew


def test_segment_passes_its_choices_on(segmenter: type[FakeSegmenter], bundle: Path, scans: Path, tmp_path: Path) -> None:
    chosen = ["--device", "cpu", "--output", "instances", "--batch-size", "2", "--mask", "m.nii", "--series", "1.2"]
    chosen += ["--keep-rough", "--trust", "--precision", "bfloat16", "--runtime", "openvino"]
    assert segment(scans / "a.nii.gz", "--bundle", bundle, "-o", tmp_path / "out", *chosen) == 0
    options = {"device": "cpu", "output": "instances", "batch_size": 2, "mask": Path("m.nii"), "series": "1.2"}
    options |= {"keep_rough": True, "trust": True, "precision": "bfloat16", "runtime": "openvino"}
    assert segmenter.made == [Request(bundle, tmp_path / "out", **options)]  # type: ignore[arg-type]
    assert segmenter.cases == ["a"]


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["--mask", "m.nii", "--boxes", "b.json"], "mask and boxes cannot both say where to look, got m.nii and b.json"),
        (["--rough-only", "--boxes", "b.json"], "rough_only asks the rough network where to look, got b.json too"),
        (["--rough-only", "--output", "instances"], "rough_only gives labels, got output='instances' too"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    options: list[str], rule: str, segmenter: type[FakeSegmenter], bundle: Path, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert segment(scans / "a.nii.gz", "--bundle", bundle, "-o", scans / "out", *options) == 2
    assert is_one_sentence(capsys.readouterr().err, rule)
    assert segmenter.made == []


@pytest.mark.parametrize(
    ("error", "said", "status"),
    [
        (
            ValueError("spacing must be positive,\n got 0"),
            "stseg3d: error: a: spacing must be positive, got 0\n",
            2,
        ),
        (FileNotFoundError("a.nii.gz is gone"), "stseg3d: error: a.nii.gz is gone\n", 2),
        (RuntimeError("out of luck"), "stseg3d: error: RuntimeError: a: out of luck\n", 1),
        (MemoryError(), "stseg3d: error: MemoryError: a: no reason given\n", 1),
    ],
)
def test_a_single_failing_case(
    error: Exception, said: str, status: int, segmenter: type[FakeSegmenter], bundle: Path, scans: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    segmenter.failures["a"] = error
    assert segment(scans / "a.nii.gz", "--bundle", bundle, "-o", scans.parent / "out") == status
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", said)
    assert sorted(p.name for p in (scans.parent / "out").iterdir()) == BESIDE


def test_a_failing_case_never_stops_the_batch(
    segmenter: type[FakeSegmenter], bundle: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    segmenter.failures["a"] = ValueError("a is bad")
    assert segment(tmp_path / "missing.nii", scans, "--bundle", bundle, "-o", tmp_path / "out") == 1
    assert sorted(p.name for p in (tmp_path / "out").glob("*.nii.gz")) == ["b_seg.nii.gz", "empty_seg.nii.gz"]
    said = capsys.readouterr().err
    assert said.count("stseg3d: error: ") == 2
    assert "missing.nii" in said
    assert "a is bad" in said


@pytest.mark.parametrize("inputs", [["missing.nii"], ["missing.nii", "notes.txt"], ["nothing"]])
def test_bad_inputs_alone_are_status_2_and_nothing_is_written(
    inputs: list[str], segmenter: type[FakeSegmenter], bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("not a scan")
    (tmp_path / "nothing").mkdir()
    assert segment(*(tmp_path / name for name in inputs), "--bundle", bundle, "-o", tmp_path / "out") == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == len(inputs)
    assert all(name in line for name, line in zip(inputs, said, strict=True))
    assert segmenter.made == []
    assert not (tmp_path / "out").exists()


def test_a_bundle_that_is_not_there(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert segment(scans, "--bundle", tmp_path / "nowhere", "-o", tmp_path / "out") == 2
    assert is_one_sentence(capsys.readouterr().err, "configs/inference.json", "nowhere", "does not exist")
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_written(
    segmenter: type[FakeSegmenter], bundle: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert segment(scans, "--bundle", bundle, "-o", tmp_path / "file" / "out") == 2
    assert is_one_sentence(capsys.readouterr().err, str(tmp_path / "file" / "out"))
    assert segmenter.made == []


def test_outputs_are_replaced_only_when_asked(
    segmenter: type[FakeSegmenter], bundle: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a_seg.nii.gz").write_text("yesterday's")
    arguments = (scans / "a.nii.gz", "--bundle", bundle, "-o", tmp_path / "out")
    assert segment(*arguments) == 2
    assert is_one_sentence(capsys.readouterr().err, "a_seg.nii.gz is there already; --overwrite replaces it")
    assert (tmp_path / "out" / "a_seg.nii.gz").read_text() == "yesterday's"
    assert segment(scans, *arguments[1:]) == 1  # the others were done
    assert segment(*arguments, "--overwrite") == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "out" / "a_seg.nii.gz")


def test_the_same_command_again_skips_what_is_done(
    segmenter: type[FakeSegmenter], bundle: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (scans, "--bundle", bundle, "-o", tmp_path / "out")
    assert segment(*arguments) == 0
    capsys.readouterr()
    assert segment(*arguments) == 0
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "stseg3d: 3 of 3 cases were done before and are skipped\n")
    assert len(segmenter.made) == 1


def test_an_output_folder_among_the_scans_is_no_input(segmenter: type[FakeSegmenter], bundle: Path, scans: Path) -> None:
    for _ in range(2):
        assert segment(scans, "--bundle", bundle, "-o", scans / "out") == 0
    assert segmenter.cases == ["a", "b", "empty"]


@pytest.mark.parametrize(
    ("options", "jobs", "limit", "threads"),
    [
        (["--jobs", "2", "--threads", "5"], 2, None, 2),
        (["--jobs", "9", "--threads", "2"], 3, None, 1),  # no more than cases
        (["--jobs", "1"], 1, None, None),
        (["--time-limit", "90"], 1, 90.0, None),
        (["--time-limit", "1.5min", "--jobs", "2", "--threads", "1"], 2, 90.0, 1),
    ],
)
def test_jobs_and_a_time_limit_ask_for_processes(
    options: list[str],
    jobs: int,
    limit: float | None,
    threads: int | None,
    bundle: Path,
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[Any] = []

    def processes(settings: Any, jobs: int, *, time_limit_s: float | None) -> str:
        calls.append((jobs, time_limit_s, settings.threads))
        return "processes"

    def run_batch(cases: Any, settings: Any, runner: str, **_: Any) -> SimpleNamespace:
        assert runner == "processes"
        return SimpleNamespace(done={"a"}, skipped=0, failed=[])

    monkeypatch.setattr("stseg3d.batch.Processes", processes)
    monkeypatch.setattr("stseg3d.batch.run_batch", run_batch)
    assert segment(scans, "--bundle", bundle, "-o", tmp_path / "out", *options) == 0
    assert calls == [(jobs, limit, threads)]


@pytest.mark.parametrize("flag", ["--mask", "--boxes"])
def test_mask_and_boxes_are_for_one_case(
    flag: str, segmenter: type[FakeSegmenter], bundle: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert segment(scans, "--bundle", bundle, "-o", tmp_path / "out", flag, "x") == 2
    assert is_one_sentence(capsys.readouterr().err, "--mask and --boxes are for one case, got 3")


def test_two_cases_of_one_name_are_told_apart_by_their_folders(
    segmenter: type[FakeSegmenter], bundle: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twin = save(tmp_path / "other" / "a.nii.gz", block(2))
    assert segment(scans, twin, "--bundle", bundle, "-o", tmp_path / "out") == 0
    assert [Path(line).name for line in capsys.readouterr().out.splitlines()] == [
        f"{name}_seg.nii.gz" for name in ("scans__a", "b", "empty", "other__a")
    ]


@on_posix
def test_cases_of_odd_names_fail_and_the_others_are_done(
    segmenter: type[FakeSegmenter], bundle: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = {"a": "a.nii", "-rf": "-rf.nii", "NUL": "NUL.nii", "x\ny": "x\ny.nii", "b\udcff": os.fsdecode(b"b\xff.nii")}
    for file in odd.values():
        save(scans / file, block(2))
    out = tmp_path / "out"
    assert segment(scans, "--bundle", bundle, "-o", out) == 1
    told = capsys.readouterr()
    assert told.out.splitlines() == [str(out / f"{name}_seg.nii.gz") for name in ("b", "empty")]
    errors = [line for line in told.err.splitlines() if "error" in line]
    assert len(errors) == len(odd) + 1  # a.nii and a.nii.gz
    assert sum("must be unique, got 'a' twice" in line for line in errors) == 2
    assert sum("must have a name" in line for line in errors) == 4
    failed = {case for case, state in _states(out).items() if state == "failed"}
    assert failed == set(odd)
    with (out / "summary.csv").open(encoding="utf-8", newline="") as file:
        assert {row["case"] for row in csv.DictReader(file) if row["state"] == "failed"} == {*odd} - {"b\udcff"} | {"b\\udcff"}
    assert segment(scans / "a.nii", "--bundle", bundle, "-o", out) == 0  # alone it is what it says
    assert segment(scans / odd["NUL"], "--bundle", bundle, "-o", out) == 2


def _states(out: Path) -> dict[str, str]:
    lines = (out / "outcomes.jsonl").read_text(encoding="utf-8").splitlines()
    return {entry["case"]: entry["state"] for entry in map(json.loads, lines)}


def test_traceback_only_when_asked(
    segmenter: type[FakeSegmenter], bundle: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    segmenter.failures["a"] = RuntimeError("out of luck")
    assert segment(scans / "a.nii.gz", "--bundle", bundle, "-o", tmp_path / "out", "--traceback") == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_the_keyboard_stops_it(
    segmenter: type[FakeSegmenter], bundle: Path, scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    segmenter.failures["b"] = KeyboardInterrupt()
    assert segment(scans, "--bundle", bundle, "-o", tmp_path / "out") == 130
    assert is_one_sentence(capsys.readouterr().err, "stopped")


def test_what_the_package_logs_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        with pytest.raises(SystemExit):
            cli.main(["--version"])
    with pytest.raises(SystemExit):
        cli.main(["fly"])
    log_to_stderr()
    capsys.readouterr()
    logging.getLogger("stseg3d.ops").warning("a box is %s", "clipped")
    logging.getLogger("stseg3d.ops").info("not this")
    assert capsys.readouterr().err == "stseg3d: a box is clipped\n"


def test_a_folder_for_the_table_that_is_not_there_is_told_before_the_work(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(*folders, "-o", "none/rows.csv") == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert is_one_sentence(told.err, "-o must lie in a folder that exists, got none/rows.csv")


def test_a_table_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "rows.csv"
    output.write_text("from before")

    def fill_the_disk(path: Path, text: str, **_: Any) -> None:
        path.write_bytes(text[:4].encode())
        raise OSError(errno.ENOSPC, "disk is full")

    monkeypatch.setattr(Path, "write_text", fill_the_disk)
    with pytest.raises(OSError, match="disk is full"):
        atomic_write_text(output, "a table")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"rows.csv": "from before"}


# --- train and demo ----------------------------------------------------------


def test_train_is_a_thin_caller(bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = ModuleType("stseg3d.training.run")
    calls: list[Any] = []

    def train_bundle(*args: Any, **kwargs: Any) -> Path:
        calls.append((args, kwargs))
        return bundle / "models" / "model.pt"

    module.train_bundle = train_bundle  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stseg3d.training.run", module)
    scores = Table(["Dice", "mean"], [["foreground", "0.900"]])
    monkeypatch.setattr("stseg3d.training.outcome.score_trained", lambda *_, **__: scores)
    given = [
        "--epochs",
        "3",
        "--budget",
        "2min",
        "--stage",
        "fine",
        "--seed",
        "5",
        "--from",
        "w.pt",
        "--device",
        "cpu",
        "--trust",
        "--overwrite",
    ]
    assert cli.main(["train", str(bundle), "--data", "dataset.json", *given]) == 0
    assert capsys.readouterr().out == f"{bundle / 'models' / 'model.pt'}\n{scores.text()}\n"
    expected = {"stage": "fine", "epochs": 3, "budget_s": 120, "device": "cpu", "seed": 5, "weights": Path("w.pt"), "trust": True}
    expected["overrides"] = {}
    assert calls == [((bundle, Path("dataset.json")), expected)]


def test_an_embedded_bundle_is_not_trained_in_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "vertebrae_mr", "--data", "dataset.json"]) == 2
    assert is_one_sentence(capsys.readouterr().err, "DIR must be a folder of your own", "vertebrae_mr_segmentation and train the copy")


def test_demo_says_where_everything_is_and_how_well_it_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = ModuleType("stseg3d.demo")
    files = {"scan": tmp_path / "phantom.nii.gz", "picture": tmp_path / "phantom_seg.png"}
    module.demonstrate = lambda *_, **__: SimpleNamespace(  # type: ignore[attr-defined]
        files=files, boxes=7, counts=Confusion(90, 10, 10)
    )
    monkeypatch.setitem(sys.modules, "stseg3d.demo", module)
    assert cli.main(["demo", "-o", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"scan     {files['scan']}",
        f"picture  {files['picture']}",
        "boxes    7",
        "scores   dice 0.900, iou 0.818, precision 0.900, recall 0.900",
    ]


def test_the_commands_call_what_is_there() -> None:
    """The fakes above take anything; the real ones must take what the command line gives."""
    from stseg3d.compare import compare
    from stseg3d.training.run import train_bundle

    inspect.signature(compare).bind("b", "d", "out", **dict.fromkeys(COMPARE_OPTIONS), overrides={})
    inspect.signature(train_bundle).bind("b", "d", stage="all", device="cpu", epochs=1, budget_s=1.0, seed=0, weights="w")


# --- compare -----------------------------------------------------------------

COMPARE_OPTIONS = ("sizes", "rough_sizes", "sliding_sizes", "ways", "part", "budget_s", "epochs", "device", "seed", "threads")


@pytest.fixture
def comparisons(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    """What is asked for of a module that compares nothing."""
    calls: list[tuple[Any, dict[str, Any]]] = []

    def compare(*args: Any, **options: Any) -> str:
        calls.append((args, options))
        return "comparison"

    module = ModuleType("stseg3d.compare")
    module.compare = compare  # type: ignore[attr-defined]
    module.write_outputs = lambda comparison, data, folder: [folder / "summary.md"]  # type: ignore[attr-defined]
    module.summary_text = lambda comparison: "a table"  # type: ignore[attr-defined]
    module.advise = lambda comparison: SimpleNamespace(sentence="Cropping pays.")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stseg3d.compare", module)
    return calls


def test_compare_ends_with_one_sentence_of_advice(
    comparisons: list[tuple[Any, dict[str, Any]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compare", "aorta_ct", "--data", "dataset.json", "-o", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == ["a table", str(tmp_path / "summary.md"), "Cropping pays."]
    expected = {"sizes": [32, 48, 64], "part": "validation", "device": "auto", "overrides": {}, "trust": False}
    assert comparisons == [(("aorta_ct", Path("dataset.json"), tmp_path), expected)]


def test_compare_passes_its_choices_on(comparisons: list[tuple[Any, dict[str, Any]]], tmp_path: Path) -> None:
    given = [
        *("--sizes", "16,32", "--rough-sizes", "64", "--sliding-sizes", "32", "--ways", "rough_only,two_stage", "--part", "test"),
        *("--budget", "2h", "--epochs", "3", "--seed", "5", "--device", "cpu", "--threads", "1"),
        *("--set", "ema_decay=0.5", "--set", "policy#margin_mm=2"),
    ]
    assert cli.main(["compare", "aorta_ct", "--data", "dataset.json", "-o", str(tmp_path), *given]) == 0
    values = ([16, 32], [64], [32], ["rough_only", "two_stage"], "test", 7200.0, 3, "cpu", 5, 1)
    expected = dict(zip(COMPARE_OPTIONS, values, strict=True)) | {
        "overrides": {"ema_decay": 0.5, "policy#margin_mm": 2},
        "trust": False,
    }
    assert comparisons[0][1] == expected


# --- evaluate ----------------------------------------------------------------


def evaluate(*arguments: object) -> int:
    return cli.main(["evaluate", *map(str, arguments)])


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two cases: one half found, one found whole."""
    for name, found, true in [("a", 1, 2), ("b", 3, 3)]:
        save(tmp_path / "pred" / f"{name}_seg.nii.gz", block(found))
        save(tmp_path / "label" / f"{name}.nii.gz", block(true, value=2))
    return tmp_path / "pred", tmp_path / "label"


def test_evaluate_pairs_folders_by_name_and_prints_a_table(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(*folders) == 0
    told = capsys.readouterr().out
    # a: two layers of 16 voxels are called one. All are surface; of the label's, half lie 1 mm from the prediction's.
    assert told.splitlines() == [
        "case     class         dice     iou  precision  recall  hd95_mm  assd_mm     nsd",
        "a        foreground  0.6667  0.5000     1.0000  0.5000     1.00     0.33  1.0000",
        "b        foreground  1.0000  1.0000     1.0000  1.0000     0.00     0.00  1.0000",
        "mean     foreground  0.8333  0.7500     1.0000  0.7500     0.50     0.17  1.0000",
        "ci_low   foreground  0.6667  0.5000     1.0000  0.5000     0.00     0.00  1.0000",
        "ci_high  foreground  1.0000  1.0000     1.0000  1.0000     1.00     0.33  1.0000",
        "ci_low to ci_high: 95% interval of the mean over cases, 10000 bootstrap resamples (expanded percentile)",
    ]


def test_evaluate_takes_lengths_and_objects(folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--tolerance-mm", "0.5", "--boundary-mm", "0", "--objects", "components"]
    assert evaluate(*folders, *options, "-o", tmp_path / "rows.json") == 0
    head, case, *_ = capsys.readouterr().out.splitlines()
    shown = dict(zip(head.split(), case.split(), strict=True))
    assert (shown["nsd"], shown["objects_found"], shown["objects_missed"], shown["object_f1_50"]) == ("0.6667", "1", "0", "0.0000")
    content = json.loads((tmp_path / "rows.json").read_text())
    assert {k: v for k, v in content["settings"].items() if k != "bootstrap"} == {
        "tolerance_mm": 0.5,
        "boundary_mm": 0.0,
        "objects": "components",
    }
    assert content["cases"][0]["boundary_iou_fixed"] == 0.5


def test_a_length_must_be_one(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        evaluate(*folders, "--tolerance-mm=-1")
    assert is_one_sentence(capsys.readouterr().err, "must be a number of mm, 0 or more, got '-1'")


def test_evaluate_gives_each_class_a_row(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    assert evaluate(*folders, "--per-class", "-o", out) == 0
    content = json.loads(out.read_text())
    assert [summary["class"] for summary in content["summary"]] == ["foreground", "1", "2"]
    rows = {(row["case"], row["class"]): row for row in content["cases"]}
    assert rows["a", "1"]["dice"] == 0  # all of it is called 2 in the label
    assert (rows["a", "2"]["prediction_voxels"], rows["a", "2"]["label_voxels"]) == (0, 32)


def test_evaluate_writes_csv(folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert evaluate(*folders, "-o", tmp_path / "rows.csv") == 0
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["a", "b", "mean", "median", "sd", "ci_low", "ci_high", "n", "n_undefined"]
    assert float(rows[2]["dice"]) == pytest.approx(5 / 6)
    assert (rows[0]["prediction_voxels"], rows[0]["label_voxels"]) == ("16", "32")


def test_two_files_pair_whatever_their_names(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(folders[0] / "a_seg.nii.gz", folders[1] / "b.nii.gz") == 0
    assert "b     foreground  0.5000" in capsys.readouterr().out


def test_the_validation_list_of_a_dataset_says_which_labels_count(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = {n: {"image": f"label/{n}.nii.gz", "label": f"label/{n}.nii.gz"} for n in ("a", "b")}
    (tmp_path / "dataset.json").write_text(json.dumps({"training": [entries["a"]], "validation": [entries["b"]]}))
    (folders[0] / "a_seg.nii.gz").unlink()
    assert evaluate(folders[0], tmp_path / "dataset.json") == 0
    assert "mean  foreground  1.0000" in capsys.readouterr().out


@pytest.fixture
def kits(tmp_path: Path) -> Path:
    """Three cases as KiTS has them, and their labels as `segment` would name its outputs."""
    entries = []
    for n in (1, 2, 3):
        for kind in ("imaging", "segmentation"):
            save(tmp_path / f"case_{n}" / f"{kind}.nii.gz", block(n))
        save(tmp_path / "pred" / f"case_{n}__imaging_seg.nii.gz", block(n))
        entries.append({"image": f"case_{n}/imaging.nii.gz", "label": f"case_{n}/segmentation.nii.gz"})
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"training": entries[:1], "validation": entries[1:]}))
    return path


@pytest.mark.parametrize("left", [(1, 2, 3), (2, 3)])
def test_cases_whose_files_have_one_name_pair_by_their_folders(
    left: tuple[int, ...], kits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = kits.parent / "pred"
    for n in {1, 2, 3} - {*left}:
        (predictions / f"case_{n}__imaging_seg.nii.gz").unlink()
    assert evaluate(predictions, kits, "--part", "validation") == 0
    told = capsys.readouterr()
    scored = {line.split()[0]: line.split()[2] for line in told.out.splitlines() if line.startswith("case_")}
    assert scored == {"case_2__imaging": "1.0000", "case_3__imaging": "1.0000"}
    assert ("1 predictions are of cases that validation does not score: case_1__imaging_seg.nii.gz" in told.err) == (1 in left)


def test_segment_names_the_cases_of_a_dataset_as_evaluate_does(
    kits: Path, segmenter: type[FakeSegmenter], bundle: Path, tmp_path: Path
) -> None:
    assert segment(kits, "--bundle", bundle, "-o", tmp_path / "out") == 0
    assert segmenter.cases == ["case_1__imaging", "case_2__imaging", "case_3__imaging"]


def test_segment_takes_one_part_of_a_dataset_under_the_same_names(
    kits: Path, scans: Path, segmenter: type[FakeSegmenter], bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert segment(kits, "--part", "training", "--bundle", bundle, "-o", tmp_path / "out") == 0
    assert segmenter.cases == ["case_1__imaging"]  # told apart from those of the other parts
    assert segment(kits, "--part", "test", "--bundle", bundle, "-o", tmp_path / "out") == 2
    assert segment(scans, "--part", "test", "--bundle", bundle, "-o", tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert f"{kits}: list of cases must name one at least under 'test', got none" in told
    assert f"{scans}: input must be a list with parts, such as a dataset.json, for part 'test'" in told
    assert segmenter.cases == ["case_1__imaging"]


def test_a_prediction_that_may_be_of_any_case_is_refused(kits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lone = save(kits.parent / "one" / "imaging_seg.nii.gz", block(2))
    assert evaluate(lone, kits) == 2
    assert is_one_sentence(capsys.readouterr().err, "no label for imaging_seg.nii.gz; no prediction for case_2__imaging, case_3__imaging")


def test_a_prediction_of_two_cases_is_refused_unless_segment_says_which(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    save(folders[1] / "a_seg.nii.gz", block(3))
    assert evaluate(*folders) == 2
    assert is_one_sentence(capsys.readouterr().err, "several cases for a_seg.nii.gz (a_seg or a)")
    entries = {n: {"image": f"label/{n}.nii.gz", "label": f"label/{n}.nii.gz"} for n in ("a", "a_seg", "b")}
    path = folders[0].parent / "dataset.json"
    path.write_text(json.dumps({"training": [entries["a_seg"]], "validation": [entries["a"], entries["b"]]}))
    assert evaluate(folders[0], path) == 2
    (folders[0] / "a_seg.json").touch()
    capsys.readouterr()
    assert evaluate(folders[0], path) == 0
    assert "a        foreground  0.6667" in capsys.readouterr().out


def test_files_without_a_counterpart_are_an_error_that_lists_them(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(folders[0] / "x_seg.nii.gz", block(1))
    save(folders[1] / "y.nii.gz", block(1))
    assert evaluate(*folders, "-o", tmp_path / "rows.csv") == 2
    assert is_one_sentence(capsys.readouterr().err, "no label for x_seg.nii.gz; no prediction for y")
    assert not (tmp_path / "rows.csv").exists()


def test_a_folder_of_all_labels_serves_for_some_predictions(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    save(folders[1] / "y.nii.gz", block(1))
    assert evaluate(*folders) == 0
    printed = capsys.readouterr()
    assert printed.err.endswith("label: 1 labels have no prediction and are not scored: y\n")
    assert "y " not in printed.out


def test_two_predictions_of_one_case_are_an_error(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    save(folders[0] / "a.nii.gz", block(1))
    assert evaluate(*folders) == 2
    assert is_one_sentence(capsys.readouterr().err, "one file a case, got several of a")


@pytest.mark.parametrize(
    ("array", "spacing", "what"), [(block(1, shape=(4, 4, 5)), 1, "shape (4, 4, 5) and (4, 4, 4)"), (block(1), 2, "affine [[2.0, ")]
)
def test_a_label_on_another_grid_is_refused(
    array: np.ndarray, spacing: float, what: str, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    save(folders[0] / "a_seg.nii.gz", array, spacing)
    assert evaluate(folders[0] / "a_seg.nii.gz", folders[1] / "a.nii.gz") == 2
    told = capsys.readouterr()
    assert is_one_sentence(told.err, "a_seg.nii.gz", "a.nii.gz", "must be on the same grid", what)
    assert told.out == ""


@pytest.mark.parametrize(("value", "rule"), [(0.5, "labels must be whole numbers, got 0.5"), (-1.0, "must not be negative, got -1")])
def test_what_is_not_a_label_map_is_refused(
    value: float, rule: str, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), value, np.float32), np.eye(4)), folders[0] / "a_seg.nii.gz")
    assert evaluate(folders[0] / "a_seg.nii.gz", folders[1] / "a.nii.gz") == 2
    assert is_one_sentence(capsys.readouterr().err, "a_seg.nii.gz", rule)


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_a_case_that_cannot_be_scored_is_told_and_does_not_stop_the_others(
    suffix: str, folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folders[0] / "a_seg.nii.gz").write_bytes(b"not a scan")
    assert evaluate(*folders, "-o", tmp_path / f"rows.{suffix}") == 1
    told = capsys.readouterr()
    assert is_one_sentence(told.err, "a_seg.nii.gz")
    assert "mean  foreground  1.0000" in told.out
    written = (tmp_path / f"rows.{suffix}").read_text()
    failed = (
        json.loads(written)["failed"] if suffix == "json" else {row["case"]: row["error"] for row in csv.DictReader(written.splitlines())}
    )
    assert "a_seg.nii.gz" in failed["a"]


def test_where_no_case_can_be_scored_nothing_is_written(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        save(folders[0] / f"{name}_seg.nii.gz", block(1, shape=(4, 4, 5)))
    assert evaluate(*folders, "-o", tmp_path / "rows.csv") == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("must be on the same grid")) == ("", 2)
    assert not (tmp_path / "rows.csv").exists()


def test_a_fault_of_ours_in_every_case_is_not_bad_input(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from stseg3d import evaluate as room

    def fail(*_: object, **__: object) -> None:
        msg = "out of luck"
        raise RuntimeError(msg)

    monkeypatch.setattr(room, "evaluate_case", fail)
    assert evaluate(*folders) == 1
    assert capsys.readouterr().err == "stseg3d: error: RuntimeError: a: out of luck\nstseg3d: error: RuntimeError: b: out of luck\n"


def test_tables_are_csv_or_json(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(*folders, "-o", "rows.txt") == 2
    assert is_one_sentence(capsys.readouterr().err, "-o must end on .csv or .json, got rows.txt")


# --- loading -----------------------------------------------------------------


def test_what_is_loaded_is_never_looked_through_for_garbage(tmp_path, monkeypatch):
    (tmp_path / "a_module_of_this_test.py").write_text("rows = [[n] for n in range(1000)]")
    monkeypatch.syspath_prepend(tmp_path)
    before = gc.get_freeze_count()
    with loading():
        assert not gc.isenabled()
        import a_module_of_this_test as module
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + 1000
    assert not any(found is module.rows for found in gc.get_objects())


def test_nothing_is_kept_for_ever_where_nothing_was_loaded():
    gc.collect()
    before = gc.get_freeze_count()
    with loading():
        rows = [[n] for n in range(1000)]
    assert gc.get_freeze_count() == before
    assert any(found is rows for found in gc.get_objects())
