"""Scans that do to a worker what the world does: the brightest voxel says what, and a network that obeys."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from stseg3d.bundle import save_weights
from stseg3d.inference import Request
from tests.inference.fakes import Threshold

SHAPE = (16, 16, 16)
DIES, SLEEPS, LACKS_MEMORY, DIES_ONCE = 1000, 2000, 3000, 4000
OBJECT = 100


class Obedient(Threshold):
    """Foreground above 50; for the brightest voxels named above, what they say."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        brightest = float(x.max())
        if brightest == SLEEPS:
            time.sleep(600)
        if brightest == LACKS_MEMORY:
            _run_out_of_memory()
        if brightest == DIES or (brightest == DIES_ONCE and not _has_died()):
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
        time.sleep(float(os.environ.get("STSEG3D_TEST_PAUSE_S", "0")))
        return super().forward(x)


def _run_out_of_memory() -> None:
    """Ask for more than this process may have; elsewhere than on Linux as if."""
    statm = Path("/proc/self/statm")
    if not statm.is_file():
        raise MemoryError
    import resource

    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(statm.read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**26, limits[1]))
    try:
        bytearray(2**30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def _has_died() -> bool:
    mark = Path(os.environ["STSEG3D_TEST_MARK"])
    if mark.exists():
        return True
    mark.touch()
    return False


def make_bundle(folder: Path, level: float = 50.0) -> Path:
    """A bundle whose networks do as the scan says."""
    network = {"_target_": "tests.batch.fakes.Obedient", "level": level}
    stage = {"_target_": "stseg3d.inference.Stage", "size": SHAPE}
    config = {
        "bundle_root": ".",
        "device": "$torch.device('cpu')",
        "displayable_configs": {"batch_size": 4},
        "network_def": {"_target_": "stseg3d.networks.RoughFineNet", "rough": network, "fine": network},
        "inferer": {
            "_target_": "stseg3d.inference.SegmentThenSegmentInferer",
            "rough": stage,
            "fine": stage,
            "policy": {"_target_": "stseg3d.ops.BoxPolicy", "min_volume_mm3": 0},
            "fine_policy": {"_target_": "stseg3d.inference.FinePolicy", "batch_size": "@displayable_configs#batch_size"},
            "output": "@output",
        },
        "output": {"_target_": "stseg3d.plan.Output", "kind": "labels"},
    }
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    (folder / "configs" / "metadata.json").write_text("{}")
    save_weights({f"{stage}.level": torch.tensor(level) for stage in ("rough", "fine")}, folder / "models" / "model.pt")
    return folder


def make_scan(path: Path, seed: int = 0, brightest: int = OBJECT) -> Path:
    """A block somewhere in noise; one voxel of it is as bright as asked for."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 20, SHAPE).astype(np.int16)
    corner = rng.integers(1, 9, 3)
    image[tuple(slice(c, c + 6) for c in corner)] = OBJECT
    image[tuple(corner)] = brightest
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(image, np.eye(4)), path)
    return path


def make_scans(folder: Path) -> Path:
    """Four scans, a to d."""
    for seed, name in enumerate("abcd"):
        make_scan(folder / f"{name}.nii", seed)
    return folder


def request_for(bundle: Path, out: Path, **options: Any) -> Request:
    """A request on one thread; the fakes are on nobody's allow-list."""
    return Request(bundle, out, device="cpu", threads=1, trust=True, **options)
