"""A large volume: ``stseg3d segment`` on an int16 ``.nii`` of 1024 x 1024 x 2000, 4 GB, filled by a CT phantom.

Run: ``python tests/benchmarks/bench_huge.py [--shape 1024 1024 2000] [--folder DIR] [-o huge.json]``, sizes divisible by 4. Prints wall
and processor seconds and the peak of resident memory of the fresh process, imports and output included, and the stages of the run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from bench_segment import BUNDLE, MODULE, measure

from stseg3d.synthesis import ct_phantom

REPEAT = 4  # each voxel of the phantom becomes as many a side: only the size counts here


def write_phantom(path: Path, shape: tuple[int, int, int], seed: int = 8) -> None:
    """A CT phantom that fills a ``.nii`` of this shape, written plane by plane."""
    image, _, grid = ct_phantom((shape[0] // REPEAT, shape[1] // REPEAT, shape[2] // REPEAT), seed=seed)
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(shape)
    header.set_sform(grid.resized(shape).affine, code=1)
    header.set_xyzt_units("mm")
    header["vox_offset"], header["scl_slope"], header["scl_inter"] = 352, 1, 0
    with path.open("wb") as file:
        file.write(header.binaryblock + bytes(4))
        for k in range(shape[2]):
            plane = image[:, :, k // REPEAT].astype("<i2").repeat(REPEAT, 0).repeat(REPEAT, 1)
            file.write(plane.tobytes(order="F"))


def bench(shape: tuple[int, int, int], folder: Path) -> dict[str, Any]:
    """What one run took, and where it went."""
    scan, out = folder / "huge.nii", folder / "out"
    write_phantom(scan, shape)
    found: dict[str, Any] = measure(
        ["-c", MODULE, "stseg3d", "segment", str(scan), "--bundle", str(BUNDLE), "-o", str(out), "--threads", "2"]
    )
    notes = json.loads((out / "huge_seg.json").read_text())
    scan.unlink()
    return {
        "shape": shape,
        **found,
        "boxes": len(notes["boxes"]),
        "stages_s": notes["seconds"],
        "stage_peak_bytes": notes["stage_peak_bytes"],
    }


def main() -> None:
    """Print the figures; write them as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=(1024, 1024, 2000))
    parser.add_argument("--folder", type=Path, help="where the scan and the output go (default: the system's temporary folder)")
    parser.add_argument("-o", dest="output", type=Path, help="JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = bench(tuple(options.shape), Path(folder))
    print(json.dumps(found, indent=1))
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
