from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stseg3d import demo
from stseg3d.geometry import Box, Grid
from stseg3d.metrics import dice
from stseg3d.volumes import ArrayVolume, open_volume, output_name, write_labels

SMALL = (48, 48, 40)


class Oracle:
    """Knows the phantom's truth, but for the lower half; of another scan it knows nothing."""

    def __init__(self, bundle: Path, *, device: str) -> None:
        assert (bundle, device) == (Path(demo.BUNDLE_NAME), "cpu")

    def segment(self, source: Path, output_dir: Path) -> SimpleNamespace:
        image = open_volume(source)
        truth = output_dir / "phantom_truth.nii.gz"
        labels = np.array(open_volume(truth).read()[0]) if truth.exists() else np.zeros(image.grid.shape, np.uint8)
        labels[..., : SMALL[-1] // 2] = 0
        case = source.name.removesuffix(".nii.gz")
        output = write_labels(labels, output_dir / output_name(case), image)
        return SimpleNamespace(case_id=case, output=output, boxes=[Box.of(image.grid.shape)])


@pytest.fixture(autouse=True)
def oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "Segmenter", Oracle)
    monkeypatch.setattr(demo, "find_bundle", Path)
    monkeypatch.setattr("stseg3d.report.picture.PANEL_HEIGHT", 190)


def made(folder: Path, **options: Any) -> demo.Demonstration:
    return demo.demonstrate(folder, device="cpu", shape=SMALL, **options)


def voxels(found: demo.Demonstration) -> np.ndarray:
    return np.array(open_volume(found.files["scan"]).read())


def test_the_demo_makes_a_scan_segments_scores_and_draws_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = made(tmp_path / "out", seed=1)
    assert list(found.files) == ["scan", "truth", "segmentation", "what was done", "picture"]
    assert found.files["picture"].read_bytes().startswith(b"\x89PNG")
    truth, labels = (open_volume(found.files[name]).read()[0] for name in ("truth", "segmentation"))
    upper = np.count_nonzero(truth[..., SMALL[-1] // 2 :])
    assert found.counts is not None
    assert (found.counts.both, found.counts.label_voxels, np.count_nonzero(labels)) == (upper, np.count_nonzero(truth), upper)
    assert 0 < dice(found.counts) < 1
    assert found.boxes == 1
    # The seed chooses the phantom.
    monkeypatch.setattr(demo, "picture_of_case", lambda *_, **__: None)
    assert np.array_equal(voxels(made(tmp_path / "again", seed=1)), voxels(found))
    assert not np.array_equal(voxels(made(tmp_path / "other", seed=2)), voxels(found))


def test_one_s_own_scan_is_segmented_and_left_where_it_is(tmp_path: Path) -> None:
    grid = Grid(SMALL, spacing_mm=(7.5, 7.5, 9.0))
    scan = write_labels(np.ones(SMALL, np.uint8), tmp_path / "mine.nii.gz", ArrayVolume(np.zeros((1, *SMALL), np.uint8), grid))
    before = scan.read_bytes()
    found = made(tmp_path / "out", scan=scan)
    assert found.counts is None
    assert found.files["scan"] == scan
    assert scan.read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["mine_seg.nii.gz", "mine_seg.png"]
