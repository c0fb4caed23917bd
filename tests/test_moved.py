"""What has moved is found under its former name, and is the same object."""

from __future__ import annotations

import importlib
import pydoc
import subprocess
import sys

import pytest

from stseg3d.geometry import Box
from stseg3d.moved import MOVED, present_name


@pytest.mark.parametrize("former", sorted(MOVED))
def test_a_former_name_gives_the_module_where_it_is_now(former: str) -> None:
    assert importlib.import_module(former) is importlib.import_module(MOVED[former])


def test_a_class_in_a_package_that_has_moved_is_found_as_configs_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MOVED, "stseg3d.shapes", "stseg3d.geometry")
    assert pydoc.locate("stseg3d.shapes.Box") is pydoc.locate("stseg3d.shapes.box.Box") is Box
    assert pydoc.locate("stseg3d.shapes.Nothing") is None
    for name in ("stseg3d.shapes.box", "stseg3d.shapes"):
        sys.modules.pop(name, None)


def test_what_lies_inside_moved_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MOVED, "stseg3d.shapes", "stseg3d.geometry")
    found = importlib.import_module("stseg3d.shapes.box")
    assert found is importlib.import_module("stseg3d.geometry.box")
    assert found.__name__ == found.__spec__.name == "stseg3d.geometry.box"
    assert present_name("stseg3d.nothing") == present_name("stseg3d") == present_name("torch") == ""
    for name in ("stseg3d.shapes.box", "stseg3d.shapes"):
        sys.modules.pop(name, None)


def test_python_runs_a_module_by_its_former_name() -> None:
    code = "from stseg3d.moved import MOVED; MOVED['stseg3d.start'] = 'stseg3d.__main__'; import runpy, sys;"
    code += "sys.argv = ['stseg3d', '--version']; runpy.run_module('stseg3d.start', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("stseg3d ")


# What the configs of bundles named before their configs were rendered from a plan; others' bundles may still do.
TARGETS = """
    stseg3d.inference.FinePolicy stseg3d.inference.SegmentThenSegmentInferer stseg3d.inference.Stage stseg3d.inference.BoxProposer
    stseg3d.networks.RoughFineNet stseg3d.networks.SqueezeDepth stseg3d.networks.MeanEnsemble stseg3d.ops.BoxPolicy
    stseg3d.training.AppendRoughd stseg3d.training.ClipGradients stseg3d.training.EpochProgress stseg3d.training.FineBoxesd
    stseg3d.training.FullResolutiond stseg3d.training.HeadsLoss stseg3d.training.History stseg3d.training.KeepBest
    stseg3d.training.OpenCased stseg3d.training.PrecisionInferer stseg3d.training.RandFineCropsd stseg3d.training.ResumeHandler
    stseg3d.training.RoughSampled stseg3d.training.StartFromRough stseg3d.training.TimeBudget stseg3d.training.WeightAverage
    stseg3d.training.augmentation stseg3d.training.shared_handler stseg3d.training.synthesis.OpenAnatomyd
    stseg3d.training.synthesis.RandSyntheticCTd stseg3d.training.synthesis.anatomy_cases stseg3d.compare.WholeCased
    stseg3d.compare.SlidingWindow stseg3d.volumes.monai_io.LoadImageVolumed stseg3d.volumes.monai_io.SaveImageLabelsd
    stseg3d.volumes.monai_io.collate_alone stseg3d.training.assemble stseg3d.training.distribute stseg3d.training.join_processes
    stseg3d.training.leave_processes stseg3d.training.load_predictions stseg3d.training.own_device stseg3d.training.rank
    stseg3d.training.training_cases stseg3d.training.with_ids stseg3d.volumes.find_cases stseg3d.volumes.load_dataset
"""


@pytest.mark.parametrize("target", TARGETS.split())
def test_what_configs_of_others_name_can_be_imported(target: str) -> None:
    assert callable(pydoc.locate(target))
