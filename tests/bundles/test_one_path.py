"""The command, ``monai.bundle run`` and the Python inferer give bit-identical labels, one file a case, on the input's exact grid."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from stseg3d.bundle import find_bundle, load_network
from stseg3d.cli import main
from stseg3d.volumes.monai_io import LoadImageVolumed

pytestmark = pytest.mark.slow  # thorough; the nightly run has them

CASES = ("vb3_10", "vb3_47")


@pytest.fixture(scope="module")
def folder(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = tmp_path_factory.mktemp("images")
    for case in CASES:
        shutil.copy(data_dir / "vertebrae_mr/images" / f"{case}.nii.gz", images)
    return images


@pytest.fixture(scope="module")
def by_bundle_run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """``monai.bundle run`` and where it writes; begun with the first test and looked at by the last, for it takes seconds."""
    bundle, out = find_bundle("vertebrae_mr_segmentation"), tmp_path_factory.mktemp("bundle")
    arguments = ["--config_file", f"{bundle}/configs/inference.json", "--bundle_root", str(bundle), "--device", "$torch.device('cpu')"]
    command = [sys.executable, "-m", "monai.bundle", "run", *arguments, "--dataset_dir", str(folder), "--output_dir", str(out / "labels")]
    with subprocess.Popen(command, cwd=out, stdout=subprocess.DEVNULL) as process:
        yield out / "labels", process


@pytest.fixture(scope="module")
def by_command(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("command")
    assert main(["segment", str(folder), "--bundle", "vertebrae_mr", "-o", str(out), "--device", "cpu"]) == 0
    return out


def labels(folder: Path, case: str) -> np.ndarray:
    return np.asarray(nib.load(folder / f"{case}_seg.nii.gz").dataobj)


@pytest.mark.usefixtures("by_bundle_run")
@pytest.mark.slow
def test_five_vertebrae_are_numbered_from_the_top(by_command: Path) -> None:
    for case in CASES:
        found = labels(by_command, case)
        assert set(np.unique(found)) == {0, 1, 2, 3, 4, 5}
        heights = [np.argwhere(found == i)[:, 0].mean() for i in range(1, 6)]
        assert heights == sorted(heights)  # the files are stored I P L: the first axis runs downwards


@pytest.mark.slow
def test_the_inferer_gives_the_labels_of_the_command(folder: Path, by_command: Path) -> None:
    network, parser = load_network(find_bundle("vertebrae_mr"))
    for case in CASES:
        image = LoadImageVolumed("image")({"image": folder / f"{case}.nii.gz"})["image"]
        pred = parser.get_parsed_content("inferer")(image[None], network)
        np.testing.assert_array_equal(pred[0, 0].numpy(), labels(by_command, case))


def test_the_grid_is_that_of_the_input(folder: Path, by_command: Path) -> None:
    for case in CASES:
        image, found = nib.load(folder / f"{case}.nii.gz"), nib.load(by_command / f"{case}_seg.nii.gz")
        assert found.shape == image.shape
        assert found.get_data_dtype() == np.uint8
        for name in ("qform_code", "sform_code", "xyzt_units"):
            assert found.header[name] == image.header[name]
        np.testing.assert_array_equal(found.affine, image.affine)


@pytest.mark.slow
def test_bundle_run_gives_the_labels_of_the_command(by_bundle_run: tuple[Path, subprocess.Popen[bytes]], by_command: Path) -> None:
    out, process = by_bundle_run
    assert process.wait() == 0
    for case in CASES:
        np.testing.assert_array_equal(labels(out, case), labels(by_command, case))
