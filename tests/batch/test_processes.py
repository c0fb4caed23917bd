"""Worker processes, and batches that are killed: the real thing, with real signals."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stseg3d.batch import CaseOutcome, InProcess, OutcomeLog, Processes, run_batch
from stseg3d.inference import Request
from stseg3d.results.journal import TIME_LIMIT, WORKER_DIED
from stseg3d.volumes import list_cases
from tests.batch import fakes
from tests.systems import on_linux, on_posix

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_S = 600


def segment(scans: Path, bundle: Path, out: Path, *options: object, pause_s: float = 0.0) -> subprocess.Popen[str]:
    """The command, in a session of its own; each look at a scan takes ``pause_s`` longer."""
    command = [sys.executable, "-m", "stseg3d", "segment", scans, "--bundle", bundle, "-o", out, "--trust", "--device", "cpu", *options]
    env = os.environ | {"STSEG3D_TEST_PAUSE_S": str(pause_s), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(list(map(str, command)), cwd=REPOSITORY, env=env, start_new_session=True, **pipes)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status and what was said on stderr."""
    said = process.communicate(timeout=PATIENCE_S)[1]
    return process.returncode, said


def wait_for(what: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def done(out: Path) -> list[str]:
    return [outcome.case for outcome in OutcomeLog(out).latest() if outcome.is_finished]


def children(pid: int) -> set[int]:
    """Processes that are the children of one."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        found |= {int(stat.parent.name)} if parent == pid else set()
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def labels(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("*_seg.nii.gz")}


def facts(out: Path) -> dict[str, tuple[object, ...]]:
    """What two runs must agree on."""
    return {
        o.case: (o.is_finished, o.error, o.request, o.input, o.output and o.output.sha256, o.warnings) for o in OutcomeLog(out).latest()
    }


def names(out: Path) -> set[str]:
    return {path.name for path in out.iterdir()}


@pytest.fixture
def undisturbed(bundle: Path, scans: Path, tmp_path: Path) -> Path:
    """Outputs of a batch to which nothing happened."""
    wanted = fakes.request_for(bundle, tmp_path / "undisturbed")
    run_batch(list_cases([scans]), wanted, InProcess(wanted))
    return wanted.output_dir


def run(scans: Path, wanted: Request, jobs: int, time_limit_s: float | None = None) -> dict[str, CaseOutcome]:
    told: dict[str, CaseOutcome] = {}

    def tell(outcome: CaseOutcome) -> None:
        assert told.setdefault(outcome.case, outcome) is outcome

    run_batch(list_cases([scans]), wanted, Processes(wanted, jobs, time_limit_s=time_limit_s), on_outcome=tell)
    return told


# --- workers -----------------------------------------------------------------


@pytest.mark.slow
def test_worker_processes_do_what_this_one_does(
    scans: Path, bundle: Path, undisturbed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = fakes.request_for(bundle, tmp_path / "out")
    caplog.clear()
    told = run(scans, wanted, jobs=1)
    assert {case: outcome.state for case, outcome in told.items()} == dict.fromkeys("abcd", "done")
    assert labels(wanted.output_dir) == labels(undisturbed)
    assert facts(wanted.output_dir) == facts(undisturbed)
    assert caplog.text.count("two stages may not help") == 4  # what workers log is logged here


def test_jobs_and_the_limit_are_above_0(bundle: Path, tmp_path: Path) -> None:
    for jobs, limit in ((0, None), (1, 0.0)):
        with pytest.raises(ValueError, match="jobs and time_limit_s must be above 0, got"):
            Processes(fakes.request_for(bundle, tmp_path), jobs, time_limit_s=limit)


@on_linux
@pytest.mark.slow
def test_a_worker_that_dies_costs_a_try_and_one_that_hangs_its_case(
    scans: Path, bundle: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, what in [("dies", fakes.DIES), ("dies_once", fakes.DIES_ONCE), ("hangs", fakes.SLEEPS), ("memory", fakes.LACKS_MEMORY)]:
        fakes.make_scan(scans / f"{name}.nii", brightest=what)
    monkeypatch.setenv("STSEG3D_TEST_MARK", str(tmp_path / "has_died"))
    wanted = fakes.request_for(bundle, tmp_path / "out")
    told = run(scans, wanted, jobs=2, time_limit_s=30)
    assert sorted(told) == ["a", "b", "c", "d", "dies", "dies_once", "hangs", "memory"]
    found = {case: (outcome.state, outcome.error, outcome.attempt) for case, outcome in told.items()}
    assert found == dict.fromkeys("abcd", ("done", "", 1)) | {
        "dies": ("failed", WORKER_DIED, 2),
        "dies_once": ("done", "", 2),
        "hangs": ("failed", TIME_LIMIT, 1),
        "memory": ("failed", "MemoryError", 1),
    }
    assert told["dies"].reason == "worker process died of SIGKILL in attempt 2 of 2"
    assert told["hangs"].reason == "case must end within 30 s, got a worker that had not and was killed"
    assert told["hangs"].seconds >= 30
    assert labels(undisturbed).items() <= labels(wanted.output_dir).items()
    outputs = {f"{case}_seg.{suffix}" for case in ("a", "b", "c", "d", "dies_once") for suffix in ("nii.gz", "json")}
    assert names(wanted.output_dir) == outputs | {".claims", "outcomes.jsonl", "summary.csv"}


@pytest.mark.slow
def test_a_bundle_that_no_worker_can_load_stops_the_batch(scans: Path, tmp_path: Path, bundle: Path) -> None:
    wanted = fakes.request_for(bundle, tmp_path / "out", overrides={"nothing": 0})
    with pytest.raises(ValueError, match="must have the entry 'nothing' to override it"):
        run(scans, wanted, jobs=2)
    assert not wanted.output_dir.exists()


@pytest.mark.slow
def test_workers_that_are_stillborn_stop_the_batch(scans: Path, tmp_path: Path) -> None:
    bundle = fakes.make_bundle(tmp_path / "deadly_segmentation")
    config = bundle / "configs" / "inference.json"
    config.write_text(config.read_text().replace('"level": 50.0', '"level": "$__import__(\'os\')._exit(3)"'))
    with pytest.raises(RuntimeError, match="got 3 that died one after the other, the last of exit status 3"):
        run(scans, fakes.request_for(bundle, tmp_path / "out"), jobs=1)


@on_posix
@pytest.mark.slow
def test_a_pipe_that_nobody_writes_to(scans: Path, bundle: Path, undisturbed: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "silent.nii")
    images = [*sorted(scans.iterdir()), tmp_path / "silent.nii"]
    (tmp_path / "list.csv").write_text("image\n" + "\n".join(map(str, images)) + "\n")
    status, said = finish(segment(tmp_path / "list.csv", bundle, tmp_path / "out", "--time-limit", "30"))
    assert status == 1
    assert "silent" in said
    assert done(tmp_path / "out") == ["a", "b", "c", "d"]
    assert labels(tmp_path / "out") == labels(undisturbed)


@on_linux
@pytest.mark.slow
def test_a_case_that_kills_a_batch_without_workers_is_one_failed_case_of_the_next(
    scans: Path, bundle: Path, undisturbed: Path, tmp_path: Path
) -> None:
    fakes.make_scan(scans / "aa.nii", brightest=fakes.DIES)
    out = tmp_path / "out"
    assert finish(segment(scans, bundle, out))[0] == -signal.SIGKILL
    status, said = finish(segment(scans, bundle, out))
    assert status == 1, said
    assert "WorkerDied: aa: worker process died of SIGKILL as an earlier one did" in said
    assert done(out) == ["a", "b", "c", "d"]
    assert labels(out) == labels(undisturbed)
    (failed,) = [outcome for outcome in OutcomeLog(out).latest() if outcome.error]
    assert (failed.case, failed.attempt) == ("aa", 2)


# --- the driver --------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--jobs", 2)])
@on_posix
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_a_batch_that_is_stopped_goes_on_where_it_was(
    name: str, options: tuple[object, ...], scans: Path, bundle: Path, undisturbed: Path, tmp_path: Path
) -> None:
    kind = signal.Signals[name]
    out = tmp_path / "out"
    process = segment(scans, bundle, out, *options, pause_s=0.5)
    wait_for(lambda: done(out))
    workers = children(process.pid)
    assert len(workers) >= 2 if options else not workers
    # Ctrl-C reaches every process of the terminal; a kill, one.
    os.killpg(process.pid, kind) if kind == signal.SIGINT else process.send_signal(kind)
    status, said = finish(process)
    assert status == (130 if kind == signal.SIGINT else -kind)
    wait_for(lambda: not any(is_alive(pid) for pid in workers))
    assert kind != signal.SIGINT or said.splitlines()[-1] == "stseg3d: stopped"
    assert "Traceback" not in said
    finished = done(out)
    assert 0 < len(finished) < 4
    status, said = finish(segment(scans, bundle, out, *options))
    assert status == 0, said
    assert f"{len(finished)} of 4 cases were done before" in said
    assert labels(out) == labels(undisturbed)
    assert facts(out) == facts(undisturbed)
    assert names(out) == names(undisturbed)


@pytest.mark.slow
def test_two_runs_at_once_share_the_work(scans: Path, bundle: Path, tmp_path: Path) -> None:
    for seed in range(4, 16):
        fakes.make_scan(scans / f"{seed}.nii", seed)
    out = tmp_path / "out"
    both = [segment(scans, bundle, out, pause_s=0.2) for _ in range(2)]
    for process in both:
        status, said = finish(process)
        assert status == 0, said
    lines = [line for line in out.joinpath("outcomes.jsonl").read_text().splitlines() if '"state": "done"' in line]
    assert len(lines) == len(labels(out)) == 16


# --- the disk ----------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(folder)], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs the right to mount a file system: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@on_linux
@pytest.mark.slow
def test_a_full_disk(scans: Path, bundle: Path, tmp_path: Path, small_disk: Path) -> None:
    for seed in range(4, 16):
        fakes.make_scan(scans / f"{seed}.nii", seed)
    out = small_disk / "out"
    status, said = finish(segment(scans, bundle, out))
    assert status == 1
    assert "No space left on device" in said
    finished = done(out)
    assert 0 < len(finished) < 16
    assert not any(name.startswith(".") for name in names(out) - {".claims"})
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    status, said = finish(segment(scans, bundle, out))
    assert status == 0, said
    wanted = fakes.request_for(bundle, tmp_path / "undisturbed")
    run_batch(list_cases([scans]), wanted, InProcess(wanted))
    assert labels(out) == labels(wanted.output_dir)
    assert facts(out) == facts(wanted.output_dir)
    assert names(out) == names(wanted.output_dir)


# --- all of it ---------------------------------------------------------------


@pytest.mark.slow
def test_two_hundred_cases_three_of_them_broken_killed_twice(bundle: Path, tmp_path: Path) -> None:
    scans, out = tmp_path / "scans", tmp_path / "out"
    for n in range(200):
        fakes.make_scan(scans / f"{n // 50}" / f"{n:03}.nii", seed=n)
    broken = {"0__007": b"no scan", "2__123": b"", "3__199": (scans / "3" / "199.nii").read_bytes()[:2000]}
    for case, content in broken.items():
        (scans / case.replace("__", "/")).with_suffix(".nii").write_bytes(content)
    for count in sorted(random.Random(0).sample(range(20, 180), 2)):
        process = segment(scans, bundle, out, "--jobs", 2, pause_s=0.02)
        wait_for(lambda count=count: len(done(out)) >= count)  # type: ignore[misc]
        process.kill()
        finish(process)
    status, said = finish(segment(scans, bundle, out, "--jobs", 2))
    assert status == 1
    assert said.count("stseg3d: error: ") == 3
    assert all(f"{case[-3:]}.nii" in said for case in broken)
    wanted = fakes.request_for(bundle, tmp_path / "undisturbed")
    result = run_batch(list_cases([scans]), wanted, InProcess(wanted))
    assert (len(result.done), sorted(outcome.case for outcome in result.failed)) == (197, sorted(broken))
    assert labels(out) == labels(wanted.output_dir)
    assert facts(out) == facts(wanted.output_dir)
    assert names(out) == names(wanted.output_dir)
    with (out / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["case"] for row in rows) == sorted(facts(out))
    ends = [line for line in (out / "outcomes.jsonl").read_text().splitlines() if '"state": "done"' in line]
    assert len(ends) == 197
