"""What ``bench_segment.py`` runs: the ways from a scan to a mask, each the program of a fresh Python process."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

PEAK = 'print("VmHWM", next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))'
CLOCK = """
import json, time
stages, since = {}, time.perf_counter()
def lap(name):
    global since
    stages[name], since = round(time.perf_counter() - since, 4), time.perf_counter()
"""
STAGES = f'print("STAGES", json.dumps(stages)); {PEAK}'
FLOOR = f"""{CLOCK}
import sys
import SimpleITK as sitk
lap("start")
image = sitk.ReadImage(sys.argv[1])
lap("read")
sitk.WriteImage(image > 300, sys.argv[2] + "/floor_seg.nii.gz", True, 1)
lap("write")
{STAGES}
"""
# Runs what follows, then prints its peak: ru_maxrss of a child would begin with that of its parent.
MODULE = f"""
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as stop:
    assert not stop.code, stop.code
finally:
    {PEAK}
"""
INFERER = f"""{CLOCK}
import sys
from pathlib import Path
import numpy as np
import torch
import nibabel as nib
from monai.data import MetaTensor
from stseg3d.bundle import load_network
network, parser = load_network(Path(sys.argv[3]), "cpu")
inferer = parser.get_parsed_content("inferer")
lap("start")
image = nib.load(sys.argv[1])
tensor = MetaTensor(torch.from_numpy(np.asarray(image.dataobj))[None, None], affine=torch.from_numpy(image.affine))
lap("read")
labels = inferer(tensor, network)
lap("segment")
nib.save(nib.Nifti1Image(labels[0, 0].numpy(), image.affine), sys.argv[2] + "/scan_seg.nii.gz")
lap("write")
{STAGES}
"""
MONAI = f"""{CLOCK}
import sys
from pathlib import Path
import torch
from monai.inferers import SlidingWindowInferer
from monai.transforms import *
from stseg3d.bundle import load_network
network, _ = load_network(Path(sys.argv[3]), "cpu")
before = Compose([
    LoadImaged("image"),
    EnsureChannelFirstd("image"),
    Orientationd("image", axcodes="RAS"),
    Spacingd("image", pixdim=(1.5, 1.5, 1.5), mode="bilinear"),
    ScaleIntensityRanged("image", a_min=-200, a_max=500, b_min=-2.0, b_max=2.0, clip=True),
])
after = Compose([
    Activationsd("pred", softmax=True),
    Invertd("pred", transform=before, orig_keys="image", nearest_interp=False, to_tensor=True),
    AsDiscreted("pred", argmax=True),
    SaveImaged("pred", output_dir=sys.argv[2], output_postfix="monai", separate_folder=False, resample=False, print_log=False),
])
lap("start")
with torch.inference_mode():
    data = before({{"image": sys.argv[1]}})
    lap("transforms")
    data["pred"] = SlidingWindowInferer((96, 96, 96), sw_batch_size=1, overlap=float(sys.argv[4]))(data["image"][None], network.fine)[0]
    lap("network")
    after(data)
    lap("invert and save")
{STAGES}
"""
# In turns, all that is imported at first use already there: a case with the calls of its networks timed; and, with the mask that it
# wrote, bare reading and writing by the library that is fastest at each.
INSIDE = """
import json, sys, time
from pathlib import Path
import nibabel as nib
import numpy as np
import SimpleITK as sitk
from stseg3d.inference.segment import Segmenter
scan, small, out, bundle = map(Path, sys.argv[1:5])
segmenter = Segmenter(bundle, device="cpu")
networks_s, begun = {}, []
def watch(name):
    def begin(*_):
        begun.append(time.perf_counter())
    def end(*_):
        networks_s[name] = networks_s.get(name, 0.0) + time.perf_counter() - begun.pop()
    network = getattr(segmenter.network, name)
    network.register_forward_pre_hook(begin)
    network.register_forward_hook(end)
def seconds(function):
    start = time.perf_counter()
    result = function()
    took = time.perf_counter() - start
    del result
    return took
def floor(source):
    one, other = sitk.ReadImage(str(source)), nib.load(source)
    other = nib.Nifti1Image(np.asarray(other.dataobj), other.affine)
    to = str(out / "floor.nii.gz")
    reads = {
        "SimpleITK": lambda: sitk.ReadImage(str(scan)),
        "nibabel": lambda: np.array(nib.load(scan).dataobj),
    }
    writes = {"SimpleITK": lambda: sitk.WriteImage(one, to, True, 1), "nibabel": lambda: nib.save(other, to)}
    return tuple({name: seconds(way) for name, way in ways.items()} for ways in (reads, writes))
for name in ("rough", "fine"):
    watch(name)
segmenter.segment(small, out)
found = []
for _ in range(int(sys.argv[5])):
    networks_s.clear()
    start = time.perf_counter()
    made = segmenter.segment(scan, out)
    total_s = time.perf_counter() - start
    read_s, write_s = floor(made.output)
    row = {"total_s": total_s, "networks_s": dict(networks_s), "stages_s": made.provenance["seconds"]}
    found.append(row | {"read_s": read_s, "write_s": write_s})
print("INSIDE", json.dumps(found))
"""
FLOOR_ROW, OWN = "read + write", "stseg3d segment"
OURS = (OWN, "monai.bundle run", "inferer on a tensor")
USERS = ("MONAI, overlap 0.25", "MONAI, overlap 0.5")
ROWS = (FLOOR_ROW, *OURS, *USERS)


def command(name: str, scan: Path, out: Path, bundle: Path) -> Sequence[str]:
    """Arguments of a Python process for one row, of which each writes into a folder of its own."""
    paths = [str(scan), str(out)]
    config = ["--config_file", f"{bundle}/configs/inference.json", "--bundle_root", str(bundle)]
    return {
        FLOOR_ROW: ["-c", FLOOR, *paths],
        OWN: ["-c", MODULE, "stseg3d", "segment", paths[0], "--bundle", str(bundle), "-o", paths[1]],
        "monai.bundle run": ["-c", MODULE, "monai.bundle", "run", *config, "--dataset_dir", paths[0], "--output_dir", paths[1]],
        "inferer on a tensor": ["-c", INFERER, *paths, str(bundle)],
        "MONAI, overlap 0.25": ["-c", MONAI, *paths, str(bundle), "0.25"],
        "MONAI, overlap 0.5": ["-c", MONAI, *paths, str(bundle), "0.5"],
    }[name]
