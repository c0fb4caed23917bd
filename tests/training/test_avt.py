"""The how-to for AVT in data/README.md, on made-up cases of the same layout: each block runs, one after the other."""

from __future__ import annotations

import json
import shlex
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from stseg3d import cli
from stseg3d.bundle_folders import embedded_folder
from stseg3d.synthesis import ct_phantom
from stseg3d.training import OpenCased
from stseg3d.volumes import Volume, load_dataset, open_volume
from tests.systems import make_link
from tests.test_readme import Block, blocks

pytestmark = pytest.mark.slow  # thorough; the nightly run has them

SOURCES = {"KiTS": "K", "Rider": "R", "Dongyang": "D"}
SHAPE = (56, 56, 48)


def how_to(language: str) -> list[Block]:
    found = [block for block in blocks("data/README.md") if "AVT" in block.text and block.language == language]
    assert found
    return found


def run_python(block: Block) -> None:
    exec(compile(block.text, str(block), "exec"), {})


phantom = cache(ct_phantom)


def write_case(folder: Path, name: str, seed: int) -> None:
    """A phantom as AVT has its scans: NRRD, LPS, the segmentation cropped, with 3D Slicer's words in its header."""
    image, label, grid = phantom(SHAPE, seed=seed)
    folder.mkdir(parents=True)
    low, high = (f(np.argwhere(label), axis=0) for f in (np.min, np.max))
    cut = tuple(slice(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))
    for suffix, array, start in ((".nrrd", image, (0, 0, 0)), (".seg.nrrd", label[cut], low)):
        written = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
        written.SetSpacing(grid.spacing_mm)
        written.SetDirection([-1, 0, 0, 0, -1, 0, 0, 0, 1])
        written.SetOrigin((np.diag([-1, -1, 1]) @ (grid.affine @ [*start, 1])[:3]).tolist())
        about = {"Segment0_Name": "Aorta", "Segment0_LabelValue": "1", "Segment0_Layer": "0"} if suffix == ".seg.nrrd" else {}
        for key, value in about.items():
            written.SetMetaData(key, value)
        sitk.WriteImage(written, str(folder / f"{name}{suffix}"), True)


def centre_mm(label: Volume) -> np.ndarray:
    inside = np.argwhere(label.read()[0])
    return label.grid.world_mm(inside + 0.5).mean(axis=0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases a source, the same two."""
    folder = tmp_path_factory.mktemp("made")
    for source, letter in SOURCES.items():
        for k in (1, 2):
            write_case(folder / source / f"{letter}{k}", f"{letter}{k}", k)
    return folder


@pytest.fixture
def avt(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with ``AVT`` and the bundles in it."""
    shutil.copytree(made, tmp_path / "AVT")
    make_link(tmp_path / "bundles", embedded_folder())
    monkeypatch.chdir(tmp_path)
    return tmp_path / "AVT"


@pytest.mark.slow
def test_the_list_has_every_source_on_both_sides(avt):
    run_python(how_to("python")[0])
    dataset = load_dataset(avt)
    assert sorted(case.id for case in dataset.training) == ["D2", "K2", "R2"]
    assert sorted(case.id for case in dataset.validation) == ["D1", "K1", "R1"]
    for case in dataset.training + dataset.validation:
        opened = OpenCased()(case.as_dict())["case"]
        cropped = open_volume(case.label).read()
        assert opened.label.shape == SHAPE != cropped.shape[1:]
        assert opened.label.sum() == cropped.sum() > 0


def test_the_smaller_copies_lie_where_the_scans_do(avt):
    shrink = how_to("python")[1]
    assert "AVT_small" in shrink.text
    run_python(shrink)
    small = avt.with_name("AVT_small")
    assert sorted(p.name for p in small.rglob("*.*")) == sorted(p.name for p in avt.rglob("*.*"))
    for path in small.rglob("*[0-9].nrrd"):
        of, label = open_volume(avt / path.relative_to(small)), open_volume(path.with_suffix(".seg.nrrd"))
        assert open_volume(path).grid.is_close(of.grid.resized((28, 28, 48)))
        assert label.grid.is_close(open_volume(path).grid)
        # Nearest neighbours would shift it by half a pixel of the scan, which is a quarter of one here.
        apart = centre_mm(label) - centre_mm(open_volume((avt / path.relative_to(small)).with_suffix(".seg.nrrd")))
        assert (np.abs(apart[:2]) < 0.15 * np.array(label.grid.spacing_mm[:2])).all()


@pytest.mark.slow
def test_the_commands_fine_tune_and_score(avt):
    run_python(how_to("python")[0])
    lines = [shlex.split(line.replace("8h", "40s")) for line in how_to("bash")[0].commands]
    assert lines[0][:2] == ["cp", "-r"]
    Path(lines[0][3]).mkdir()
    source = embedded_folder() / "aorta_ct_segmentation"
    for name in ("configs", "models", "docs"):
        for file in (p for p in (source / name).rglob("*") if p.is_file() and "stages" not in p.parts):
            copy = Path(lines[0][3]) / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    for words in lines[1:]:
        assert words[0] == "stseg3d"
        assert cli.main(words[1:]) == 0, words
    rows = {name: json.loads(Path(f"{name}.json").read_text()) for name in ("before", "after")}
    assert all(len(found["rows"] if "rows" in found else found["cases"]) == 3 for found in rows.values())
    weights = [Path(p) / "models" / "model.pt" for p in ("my_segmentation", str(source))]
    assert weights[0].read_bytes() != weights[1].read_bytes()
