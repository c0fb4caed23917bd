"""Training in several processes: `multi_gpu_train.json`, `torchrun`, and what the processes must agree on. On the CPU, with gloo."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import torch.distributed as dist
from monai.bundle import ConfigWorkflow
from monai.utils import set_determinism

from stseg3d.bundle import WEIGHTS, bundle_names, find_bundle, load_network, open_bundle, write_plan
from stseg3d.training import join_processes, own_device, rank
from stseg3d.training.history import read_history
from stseg3d.training.processes import distribute, undistributed
from stseg3d.training.run import MULTI_GPU_CONFIG, train_bundle
from tests.systems import on_linux
from tests.training import two_processes

REPOSITORY = Path(__file__).resolve().parents[2]
LAUNCHED = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
# Nothing by chance, so that the samples of an epoch are the same however many processes share them.
PLAIN = {"rough_training": "@rough_validation", "fine_training": "@fine_validation", "precision": "float32"}


@pytest.fixture
def alone() -> Iterator[None]:
    """A group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def four(dataset: Path) -> Path:
    """A data set of four training and two validation cases; each has two boxes."""
    cases = []
    for n in range(6):
        label = np.zeros((24, 24, 24), dtype=np.uint8)
        label[4:10, 6:16, 4 + n : 12 + n] = 1
        label[14:20, 6:16, 10:18] = 2
        image = (label > 0) * 200 + np.random.default_rng(n).integers(0, 30, label.shape)
        for kind, array in (("image", image.astype(np.int16)), ("label", label)):
            nib.save(nib.Nifti1Image(array, np.eye(4)), dataset.parent / f"{kind}{n}.nii.gz")
        cases.append({"image": f"image{n}.nii.gz", "label": f"label{n}.nii.gz"})
    dataset.write_text(json.dumps({"name": "blocks", "training": cases[:4], "validation": cases[4:]}))
    return dataset


@pytest.fixture
def without_dropout(bundle: Path) -> Path:
    plan = open_bundle(bundle).require_plan()
    write_plan(bundle, plan.set({f"{stage}#network#dropout": 0.0 for stage in ("rough", "fine")}))
    return bundle


def torchrun(*words: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *words]


def environment() -> dict[str, str]:
    paths = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONPATH": paths}


def together(*words: str) -> None:
    """Two processes; what they say is shown where they fail."""
    done = subprocess.run(torchrun(*words), env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


def files(folder: Path) -> list[str]:
    """Without TensorBoard's, whose names hold the time and the process."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and "tfevents" not in p.name)


# --- one process -------------------------------------------------------------


def test_all_bundles_train_in_several_processes_alike() -> None:
    assert len({(find_bundle(name) / "configs" / MULTI_GPU_CONFIG).read_text() for name in bundle_names()}) == 1


@pytest.mark.parametrize("overlay", [[], ["train_rough.json"]], ids=["fine", "rough"])
def test_the_overlay_has_the_properties_monai_asks_for(bundle: Path, four: Path, alone: None, overlay: list[str]) -> None:
    files = [str(bundle / "configs" / name) for name in ("train.json", *overlay, MULTI_GPU_CONFIG)]
    paths = {"bundle_root": str(bundle), "dataset_dir": str(four.parent), "device": "$torch.device('cpu')"}
    workflow = ConfigWorkflow(config_file=files, meta_file=str(bundle / "configs/metadata.json"), workflow_type="train", **paths)
    workflow.initialize()
    try:
        assert not workflow.check_properties()
    finally:
        set_determinism(None)  # what `initialize` has set for the whole process


@pytest.mark.parametrize("active", ["rough", "fine"])
def test_only_the_active_network_is_waited_for_and_names_stay_plain(alone: None, active: str) -> None:
    network = two_processes.made(seed=0)
    network.active = active
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    wrapped = distribute(network, torch.device("cpu"))
    assert {name.split(".")[0] for name, p in undistributed(wrapped).named_parameters() if p.requires_grad} == {active}
    two_processes.made(seed=1).load_state_dict(undistributed(wrapped).state_dict())  # strict
    assert all(torch.equal(undistributed(wrapped).state_dict()[name], tensor) for name, tensor in state.items())
    two_processes.gradients(wrapped, *two_processes.batch())  # DDP raises if it waits in vain


def test_without_torchrun_the_overlay_says_how_to_run_it() -> None:
    with pytest.raises(ValueError, match=r"multi_gpu_train\.json must be run by torchrun"):
        join_processes(torch.device("cpu"))


def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert own_device() == torch.device("cuda")
    for name, value in (LAUNCHED | {"RANK": "5"}).items():
        monkeypatch.setenv(name, value)
    assert rank() == 5
    assert own_device() == torch.device("cuda", 1)
    assert own_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="--nproc_per_node must be at most the number of GPUs, 1, got 2"):
        own_device()


# --- two processes -----------------------------------------------------------


@pytest.mark.slow
def test_gradients_of_two_processes_are_those_of_one_and_all_agree(tmp_path: Path) -> None:
    together(str(Path(two_processes.__file__)), str(tmp_path))
    due = two_processes.gradients(two_processes.made(seed=0), *two_processes.batch())
    for number in (0, 1):
        found = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert found["gradients"].keys() == due.keys()
        for name, gradient in due.items():
            torch.testing.assert_close(found["gradients"][name], gradient, atol=1e-5, rtol=0)
        assert (found["first"], found["all"], found["by_first"]) == (0, [0, 1], 0)
        assert found["failed"] == "only the first process comes here"
        assert "must lie on a disk that all machines share; 1 processes do not see the file" in found["apart"]


@pytest.mark.slow
def test_the_command_learns_in_two_processes_what_one_learns(without_dropout: Path, four: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one_segmentation", tmp_path / "two_segmentation"
    for copy in (one, two):
        shutil.copytree(without_dropout, copy)
    whole = {"cases_a_batch": {"rough": 4, "fine": 4}}
    train_bundle(one, four, epochs=5, device="cpu", overrides=PLAIN | whole)
    options = [f"--set={key}={json.dumps(value)}" for key, value in (PLAIN | {"cases_a_batch": {"rough": 2, "fine": 2}}).items()]
    together("-m", "stseg3d", "train", str(two), "--data", str(four), "--epochs", "5", "--device", "cpu", *options)
    for stage in ("rough", "fine"):
        due, found = (read_history(folder / f"logs/{stage}.jsonl") for folder in (one, two))
        assert [line["epoch"] for line in found] == [1, 2, 3, 4, 5]
        for name in ("loss", "metric"):
            np.testing.assert_allclose([line[name] for line in found], [line[name] for line in due], atol=1e-5)
        assert found[-1]["loss"] < found[0]["loss"]
    assert files(two) == files(one)
    states = [torch.load(folder / WEIGHTS, weights_only=True) for folder in (one, two)]
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, atol=1e-3, rtol=0)  # stored as float16
    load_network(two)


@pytest.mark.slow
def test_the_bundle_trains_in_two_processes_and_the_first_alone_writes(without_dropout: Path, dataset: Path, tmp_path: Path) -> None:
    # One validation case for two processes: both score it.
    roots = [tmp_path / f"of{n}" for n in (0, 1)]
    for root in roots:
        shutil.copytree(without_dropout, root)
    before = files(roots[1])
    for overlay in (["train_rough.json"], []):
        configs = [f"{roots[0]}/configs/{name}" for name in ("train.json", *overlay, MULTI_GPU_CONFIG)]
        # Each process is given a folder of its own: in that of the second one nothing may be found afterwards.
        arguments = {"bundle_root": f"$'{tmp_path}/of' + str(rank())", "dataset_dir": str(dataset.parent), "device": "$torch.device('cpu')"}
        arguments |= {"epochs": '{"rough": 2, "fine": 2}', "ema_decay": "0.5", "jitter#shift": "0.1"}
        words = [word for key, value in arguments.items() for word in (f"--{key}", value)]
        together("-m", "monai.bundle", "run", "--config_file", str(configs), *words)
    assert files(roots[1]) == before
    assert not list(roots[1].rglob("*tfevents*"))
    load_network(roots[0])
    assert [len(read_history(roots[0] / f"logs/{stage}.jsonl")) for stage in ("rough", "fine")] == [2, 2]
    assert not list(roots[0].glob("models/stages/last_*"))


@on_linux
@pytest.mark.slow
def test_a_training_killed_in_two_processes_goes_on(bundle: Path, four: Path) -> None:
    words = ["-m", "stseg3d", "train", str(bundle), "--data", str(four), "--stage", "rough", "--device", "cpu"]
    history, last = bundle / "logs/rough.jsonl", bundle / "models/stages/last_rough.pt"
    running = subprocess.Popen(torchrun(*words, "--epochs", "100000"), env=environment(), start_new_session=True, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while len(read_history(history)) < 3 and time.monotonic() < end:
        time.sleep(0.05)
    for pid in children(running.pid):  # torchrun gives each of them a session of its own
        os.kill(pid, signal.SIGKILL)
    running.wait()
    done: int = torch.load(last, weights_only=True)["epoch"]
    assert done >= 2
    before = read_history(history)[:done]
    together(*words, "--epochs", str(done + 2))
    after = read_history(history)
    assert after[:done] == before
    assert [line["epoch"] for line in after] == list(range(1, done + 3))
    assert not last.exists()


def children(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(word) for word in path.read_text().split()]
    return found
