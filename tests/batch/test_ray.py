"""Batches on a Ray cluster of two simulated nodes, and what becomes of them when nodes, workers and drivers die."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stseg3d import cli
from stseg3d.batch import CaseOutcome, InProcess, OutcomeLog, RayCluster, run_batch
from stseg3d.batch.actor import ensure_in, place_of
from stseg3d.batch.crew import Crew, Job, Worker
from stseg3d.batch.run import BatchResult
from stseg3d.bundle import find_bundle
from stseg3d.inference import Request
from stseg3d.results.journal import TIME_LIMIT, WORKER_DIED
from stseg3d.synthesis.phantoms import write_dataset
from stseg3d.volumes import Case, list_cases
from tests.batch import fakes
from tests.batch.test_processes import children, done, facts, finish, is_alive, labels, names, segment, wait_for
from tests.systems import on_linux

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray: pip install 'stseg3d[ray]'")
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@pytest.fixture
def wanted(bundle: Path, tmp_path: Path) -> Request:
    return fakes.request_for(bundle, tmp_path / "out")


def undisturbed(scans: Path, wanted: Request) -> Path:
    """Outputs of the same batch to which nothing happens, in this process."""
    there = replace(wanted, output_dir=wanted.output_dir.with_name("undisturbed"))
    run_batch(list_cases([scans]), there, InProcess(there))
    return there.output_dir


# --- without a cluster -------------------------------------------------------


@needs_ray
@pytest.mark.parametrize(
    ("options", "device", "sentence"),
    [
        ({"address": "ray://head:10001"}, "cpu", "must be local, auto or HOST:PORT, got 'ray://head:10001'; Ray Client"),
        ({"address": "head"}, "cpu", "must be local, auto or HOST:PORT, got 'head'$"),
        ({"jobs": 0}, "cpu", "jobs and time_limit_s must be above 0, got 0 and None"),
        ({"time_limit_s": 0.0}, "cpu", "jobs and time_limit_s must be above 0, got None and 0.0"),
        ({"gpus": 2.0}, "auto", "gpus must be above 0 and at most 1"),
        ({"gpus": 0.5}, "cpu", "the device not cpu, got gpus=0.5 and device=cpu"),
        ({}, "cuda:1", "device must be auto, cpu or cuda on a cluster"),
    ],
)
def test_what_no_cluster_takes_is_refused_before_one_is_started(
    options: dict[str, Any], device: str, sentence: str, wanted: Request
) -> None:
    with pytest.raises(ValueError, match=sentence):
        RayCluster(replace(wanted, device=device), **({"address": "local"} | options))


def test_without_ray_the_install_command_is_told(wanted: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'stseg3d\[ray\]'"):
        RayCluster(wanted, "local")


@pytest.mark.parametrize(
    ("gpus", "resources", "room"),
    [
        (0.0, {"CPU": 7.0, "GPU": 4.0}, 3),
        (0.0, {"memory": 1e9}, 0),
        (1.0, {"CPU": 64.0, "GPU": 4.0}, 4),
        (0.25, {"CPU": 64.0, "GPU": 2.0}, 8),
        (0.3, {"CPU": 64.0, "GPU": 2.0}, 6),  # the last tenth of two GPUs is no third of one
        (0.1, {"CPU": 64.0, "GPU": 1.0}, 10),
        (0.1, {"CPU": 8.0, "GPU": 1.0}, 4),
        (1.0, {"CPU": 8.0}, 0),
    ],
)
def test_a_node_has_room_for_whole_workers(gpus: float, resources: dict[str, float], room: int, wanted: Request) -> None:
    assert Job(wanted, SimpleNamespace(), lambda _: None, cpus=2, gpus=gpus).room(resources) == room


def test_a_worker_looks_whether_it_is_in_the_right_place(bundle: Path, wanted: Request, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="output folder must be on storage that all nodes share, got none at"):
        place_of(wanted)
    wanted.output_dir.mkdir()
    (wanted.output_dir / ".claims").touch()
    place = place_of(wanted)
    ensure_in(place, wanted)
    with pytest.raises(ValueError, match=r"stseg3d must be 0\.0\.1 on all nodes"):
        ensure_in(replace(place, version="0.0.1"), wanted)
    copy = shutil.copytree(bundle, tmp_path / "copy")
    ensure_in(place, replace(wanted, bundle=copy))
    (copy / "configs" / "inference.json").write_text("{}")
    with pytest.raises(ValueError, match=r"or be the same on all, got another one at .*copy"):
        ensure_in(place, replace(wanted, bundle=copy))
    with pytest.raises(FileNotFoundError, match=r"bundle must be on storage that all nodes share, got none at .*nowhere"):
        ensure_in(place, replace(wanted, bundle=tmp_path / "nowhere"))
    os.utime(wanted.output_dir / ".claims", (0, 0))
    with pytest.raises(ValueError, match="output folder must be on storage that all nodes share, got another one at"):
        ensure_in(place, wanted)


@needs_ray
def test_when_a_worker_dies_its_idle_neighbours_are_asked_for_a_sign_of_life(wanted: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def get(_: Any) -> Any:
        raise ray.exceptions.RayActorError

    actor = SimpleNamespace(load=SimpleNamespace(remote=object), run=SimpleNamespace(remote=lambda _: object()))
    crew = Crew(Job(wanted, SimpleNamespace(), lambda _: None, cpus=1, gpus=0.0), is_fixed=False)
    crew.workers = [Worker(actor, node, f"host of {node}") for node in ("one", "one", "other")]
    busy, neighbour, stranger = crew.workers
    for worker in crew.workers:
        worker.done(None)
    busy.give(Case("a", Path("a.nii")), 1, 60.0)
    monkeypatch.setattr(ray, "kill", lambda _: None)
    monkeypatch.setattr(ray, "wait", lambda answers, **_: (answers, []))
    monkeypatch.setattr(ray, "get", get)
    outcome = crew.hear(busy, 60.0)
    assert outcome
    assert (outcome.case, outcome.error, outcome.reason) == ("a", WORKER_DIED, "worker on host of one died in attempt 1 of 2")
    assert crew.workers == [neighbour, stranger]
    assert [worker for worker in crew.workers if worker.is_idle] == [stranger]  # the other gets no case until it answers


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--ray", "auto"], ("auto", 4, None, None, None)),
        (["--ray", "head:6379", "--jobs", "3", "--threads", "2"], ("head:6379", 3, None, None, 2)),
        (["--ray", "auto", "--ray-gpus", "0.25", "--time-limit", "90"], ("auto", 4, 0.25, 90.0, None)),
        (["--ray", "local", "--jobs", "9"], ("local", 4, None, None, None)),  # no more than cases
        (["--ray", "local", "--threads", "1000"], ("local", 1, None, None, 1000)),
    ],
)
def test_the_command_asks_for_a_cluster(
    options: list[str], expected: tuple[Any, ...], scans: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def cluster(wanted: Request, address: str, *, jobs: int, gpus: float, time_limit_s: float) -> str:
        calls.append((address, jobs, gpus, time_limit_s, wanted.threads))
        return "cluster"

    def run_batch(cases: Any, wanted: Any, runner: str, **_: Any) -> BatchResult:
        assert runner == "cluster"
        return BatchResult(done={"a"})

    monkeypatch.setattr("stseg3d.batch.RayCluster", cluster)
    monkeypatch.setattr("stseg3d.batch.run_batch", run_batch)
    assert cli.main(["segment", str(scans), "--bundle", str(bundle), "-o", str(tmp_path / "out"), *options]) == 0
    assert calls == [expected]


def test_a_share_of_gpus_is_for_clusters(scans: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["segment", str(scans), "--bundle", str(bundle), "-o", str(tmp_path / "out"), "--ray-gpus", "0.5"]) == 2
    assert "--ray-gpus is for workers of --ray, got 0.5 without it" in capsys.readouterr().err


# --- on a cluster ------------------------------------------------------------


@pytest.fixture(scope="module")
def mark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file by which a scan knows that it has killed somebody."""
    return tmp_path_factory.mktemp("mark") / "has_died"


@pytest.fixture(scope="module")
def cluster(mark: Path) -> Iterator[Any]:
    """Two nodes, of which each has room for one worker, and this process connected to them."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'stseg3d[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_DEDUP_LOGS_SKIP_REGEX", "^")
        patch.setenv("STSEG3D_TEST_MARK", str(mark))  # processes of the nodes inherit it
        import ray
        from ray.cluster_utils import Cluster

        before = signal.getsignal(signal.SIGTERM)
        nodes = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
        try:
            nodes.add_node(**NODE)
            ray.init(nodes.address, log_to_driver=False, logging_level=logging.ERROR)
            yield nodes
        finally:
            ray.shutdown()
            nodes.shutdown()
            signal.signal(signal.SIGTERM, before)


@pytest.fixture
def nodes(cluster: Any) -> Any:
    """The cluster, with two nodes again if a test has killed one."""
    while len(cluster.list_all_nodes()) < 2:
        cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    return cluster


@pytest.mark.slow
def test_two_hundred_cases_three_of_them_broken_and_a_node_that_dies(
    nodes: Any, wanted: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans, out = tmp_path / "scans", wanted.output_dir
    for n in range(200):
        fakes.make_scan(scans / f"{n:03}.nii", seed=n)
    broken = {"007": b"no scan", "123": b"", "199": (scans / "199.nii").read_bytes()[:2000]}
    for case, content in broken.items():
        (scans / f"{case}.nii").write_bytes(content)
    told: list[CaseOutcome] = []
    hired: list[str] = []
    start = Job.start
    monkeypatch.setattr(Job, "start", lambda job, node: hired.append(node) or start(job, node))
    lost = nodes.worker_nodes.copy().pop()

    def tell(outcome: CaseOutcome) -> None:
        told.append(outcome)
        if len(told) == 60:
            nodes.remove_node(lost, allow_graceful=False)
        elif len(told) == 70:
            nodes.add_node(**NODE)

    result = run_batch(list_cases([scans]), wanted, RayCluster(wanted, "auto"), on_outcome=tell)
    assert (len(result.done), sorted(outcome.case for outcome in result.failed)) == (197, sorted(broken))
    assert sorted(outcome.case for outcome in told) == [f"{n:03}" for n in range(200)]
    assert len(set(hired)) == 3  # the third joined meanwhile
    there = undisturbed(scans, wanted)
    assert labels(out) == labels(there)
    assert facts(out) == facts(there)
    assert names(out) == names(there)


@pytest.mark.slow
def test_a_worker_that_dies_costs_a_try_and_one_that_hangs_its_case(
    nodes: Any, mark: Path, scans: Path, wanted: Request, caplog: pytest.LogCaptureFixture
) -> None:
    there = undisturbed(scans, wanted)
    for name, what in [("dies", fakes.DIES), ("dies_once", fakes.DIES_ONCE), ("hangs", fakes.SLEEPS)]:
        fakes.make_scan(scans / f"{name}.nii", brightest=what)
    caplog.clear()
    told: dict[str, CaseOutcome] = {}
    cluster = RayCluster(wanted, "auto", time_limit_s=20)
    run_batch(list_cases([scans]), wanted, cluster, on_outcome=lambda outcome: told.update({outcome.case: outcome}))
    found = {case: (outcome.state, outcome.error, outcome.attempt) for case, outcome in told.items()}
    assert found == dict.fromkeys("abcd", ("done", "", 1)) | {
        "dies": ("failed", WORKER_DIED, 2),
        "dies_once": ("done", "", 2),
        "hangs": ("failed", TIME_LIMIT, 1),
    }
    assert mark.exists()
    assert told["dies"].reason.startswith("worker on ")
    assert told["dies"].reason.endswith(" died in attempt 2 of 2")
    assert told["hangs"].reason == "case must end within 20 s, got a worker that had not and was killed"
    assert labels(there).items() <= labels(wanted.output_dir).items()
    outputs = {f"{case}_seg.{suffix}" for case in ("a", "b", "c", "d", "dies_once") for suffix in ("nii.gz", "json")}
    assert names(wanted.output_dir) == outputs | {".claims", "outcomes.jsonl", "summary.csv"}
    assert caplog.text.count("two stages may not help") == 5  # what workers log is logged here


@pytest.mark.slow
def test_a_bundle_that_no_node_can_load_stops_the_batch(nodes: Any, scans: Path, wanted: Request) -> None:
    bad = replace(wanted, overrides={"nothing": 0})
    with pytest.raises(ValueError, match=r"node .*: .*must have the entry 'nothing' to override it"):
        run_batch(list_cases([scans]), bad, RayCluster(bad, "auto"))
    assert not wanted.output_dir.exists()


def _exit(_: Request) -> Any:
    os._exit(3)


@pytest.mark.slow
def test_nodes_where_no_worker_lives_stop_the_batch(nodes: Any, scans: Path, wanted: Request) -> None:
    with pytest.raises(RuntimeError, match="workers must live to load the bundle, got 3 that died one after the other"):
        run_batch(list_cases([scans]), wanted, RayCluster(wanted, "auto", jobs=1, make_worker=_exit))


@pytest.mark.slow
def test_a_real_bundle_gives_the_same_labels_bit_for_bit(nodes: Any, tmp_path: Path) -> None:
    write_dataset(tmp_path, training=2, validation=1, seed=0, shape=(64, 64, 56))
    scans = tmp_path / "imagesTr"
    wanted = Request(find_bundle("aorta_ct_segmentation"), tmp_path / "out", device="cpu")
    result = run_batch(list_cases([scans]), wanted, RayCluster(wanted, "auto"))
    assert (len(result.done), result.failed) == (2, [])
    there = undisturbed(scans, wanted)
    assert labels(wanted.output_dir) == labels(there)
    assert facts(wanted.output_dir) == facts(there)


# --- the driver --------------------------------------------------------------


def descendants(pid: int) -> set[int]:
    """Processes that come of one: Ray's own, and workers."""
    found = children(pid)
    return found.union(*(descendants(child) for child in found))


@needs_ray
@on_linux
@pytest.mark.slow
@pytest.mark.parametrize("kind", [getattr(signal, "SIGKILL", signal.SIGTERM), signal.SIGTERM, signal.SIGINT], ids=lambda kind: kind.name)
def test_a_batch_that_is_stopped_leaves_nobody_and_goes_on_where_it_was(
    kind: signal.Signals, scans: Path, bundle: Path, wanted: Request
) -> None:
    out = wanted.output_dir
    process = segment(scans, bundle, out, "--ray", "local", "--jobs", 1, pause_s=2.0)
    wait_for(lambda: done(out))
    crowd = descendants(process.pid)
    assert len(crowd) >= 3
    os.killpg(process.pid, kind) if kind == signal.SIGINT else process.send_signal(kind)
    status, said = finish(process)
    assert status == (130 if kind == signal.SIGINT else -kind)
    assert kind != signal.SIGINT or said.splitlines()[-1] == "stseg3d: stopped"
    assert "Traceback" not in said
    wait_for(lambda: not any(is_alive(pid) for pid in crowd))
    finished = done(out)
    assert 0 < len(finished) < 4
    assert len(OutcomeLog(out).latest()) > len(finished)
    status, said = finish(segment(scans, bundle, out, "--ray", "local", "--jobs", 1))
    assert status == 0, said
    assert f"{len(finished)} of 4 cases were done before" in said
    there = undisturbed(scans, wanted)
    assert labels(out) == labels(there)
    assert facts(out) == facts(there)
    assert names(out) == names(there)
