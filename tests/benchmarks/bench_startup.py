"""What a command costs before it works: seconds of ``--help``, of the imports, and of a small scan.

Run: ``python tests/benchmarks/bench_startup.py [--runs 5]``. Every run is a fresh process; the least of the runs counts, as others can only
add to it. Each row contains those above it that it needs.

MONAI imports each optional package that is installed when it is imported itself, and has no switch for that. Of 3.5 s of processor time
(torch and MONAI) 0.9 s are ignite's, which pulls in torch.distributed, 0.3 s itk's, and some 0.5 s matplotlib's where it is installed. The
command needs all of MONAI (its configs name transforms, networks and handlers by class), and hiding packages from it would break the
bundles that use them, so nothing is hidden. What can be saved is the garbage collector's work: it looks at none of it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib

from stseg3d.synthesis import ct_phantom

PAUSED = "import gc; gc.disable(); "
# What MONAI imports where it is installed, and what it would cost without.
HIDDEN = (("ignite",), ("itk",), ("matplotlib",), ("ignite", "itk", "matplotlib"))


def hiding(names: tuple[str, ...]) -> str:
    """Program that imports MONAI as if these packages were not installed."""
    return f"import sys; sys.modules.update(dict.fromkeys({names!r})); import monai"


def commands(scan: Path, out: Path) -> dict[str, list[str]]:
    """What is measured, as arguments of a Python process."""
    segment = ["-m", "stseg3d", "segment", str(scan), "--bundle", "aorta_ct_segmentation", "-o", str(out), "--threads", "1"]
    return {
        "stseg3d --help": ["-m", "stseg3d", "--help"],
        "import torch": ["-c", "import torch"],
        "import ignite.engine": ["-c", "import ignite.engine"],
        "import monai": ["-c", "import monai"],
        **{f"import monai, no {' or '.join(names)}": ["-c", hiding(names)] for names in HIDDEN},
        "import monai.bundle": ["-c", "import monai.bundle"],
        "import monai.bundle, collector off": ["-c", f"{PAUSED}import monai.bundle"],
        "what segment imports": ["-c", "import stseg3d.batch, monai.bundle"],
        "what segment imports, collector off": ["-c", f"{PAUSED}import stseg3d.batch, monai.bundle"],
        "stseg3d segment, 64 x 64 x 64": segment,
    }


def measure(arguments: list[str], out: Path) -> tuple[float, float]:
    """Processor and wall seconds of a fresh process."""
    shutil.rmtree(out, ignore_errors=True)  # what is there already would not be segmented again
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = process.stderr.read() if process.stderr else b""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(errors.decode()[-2000:])
    return used.ru_utime + used.ru_stime, time.perf_counter() - start


def main() -> None:
    """Print a row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scan, out = Path(folder, "scan.nii.gz"), Path(folder, "out")
        image, _, grid = ct_phantom((64, 64, 64), seed=1)
        nib.save(nib.Nifti1Image(image, grid.affine), scan)
        print("| what | CPU s | wall s |\n|---|---|---|")
        for name, arguments in commands(scan, out).items():
            runs = [measure(arguments, out) for _ in range(options.runs)]
            cpu_s, wall_s = (min(column) for column in zip(*runs, strict=True))
            print(f"| {name} | {cpu_s:.2f} | {wall_s:.2f} |", flush=True)


if __name__ == "__main__":
    main()
