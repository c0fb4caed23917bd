"""How large a report of many cases is, and how long it takes to open.

``python tests/benchmarks/bench_report.py [--cases 100] [--runs 5]``: copies of a made-up CT, the page in headless Chromium.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from stseg3d.geometry import Box, Grid
from stseg3d.report.gather import gather_cases
from stseg3d.report.look import look_at
from stseg3d.report.viewer import Scene, scene_data
from stseg3d.report.write import MAX_CASE_BYTES, MAX_PAGE_BYTES, MIN_CASE_BYTES, html
from stseg3d.synthesis import ct_phantom
from stseg3d.volumes import ArrayVolume, write_labels
from tests.report.browser import Browser, find_chromium
from tests.report.made_up import write_case, write_rough

TIMES = "(t => [t.domContentLoadedEventEnd, t.loadEventEnd])(performance.getEntriesByType('navigation')[0])"
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def write_page(folder: Path, cases: int) -> tuple[Path, float]:
    """A page of so many copies of one case, whose image is large enough to fill the room of the viewer's copies; seconds of one case."""
    image, label, grid = ct_phantom((96, 96, 88), seed=0)
    out = folder / "out"
    first = write_case(out, "case")
    write_labels((image.astype(np.int32) + 1024).clip(0), first, grid)
    write_labels(label, out / "case_seg.nii.gz", grid)
    write_rough(out / "case_rough.nii.gz", label, grid)
    (record,) = gather_cases(out)
    begun = time.perf_counter()
    look = look_at(record, max(min(MAX_CASE_BYTES, MAX_PAGE_BYTES / cases), MIN_CASE_BYTES))
    took = time.perf_counter() - begun
    if not look.viewer:
        sys.exit(f"the case could not be drawn: {record.remarks}")
    looks = [replace(look, record=replace(record, name=f"case_{n:03d}")) for n in range(cases)]
    page = folder / "report.html"
    page.write_text(html(out, looks), encoding="utf-8")
    return page, took


def bytes_a_voxel() -> float:
    """Of the viewer's copies of a CT with noise, before base64."""
    image, label, grid = ct_phantom((96, 96, 96), seed=0)
    data = scene_data(Scene(ArrayVolume(image[None], Grid(grid.shape, grid.affine)), label, [Box.of(grid.shape)]), 1e9)
    return (len(data["image"]) + len(data["labels"])) * 0.75 / label.size


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    chromium = find_chromium()
    if chromium is None:
        sys.exit("no Chromium found; STSEG3D_CHROMIUM names one")
    print(f"bytes a voxel of the viewer's copies: {bytes_a_voxel():.2f}")
    with TemporaryDirectory() as folder:
        page, took = write_page(Path(folder), args.cases)
        print(f"one case drawn in {took:.1f} s; {args.cases} cases: {page.stat().st_size / 1e6:.1f} MB")
        runs = []
        for _ in range(args.runs):
            with Browser(chromium) as browser:
                browser.call("Performance.enable", timeDomain="threadTicks")
                browser.open(page)
                browser.wait(f"{PAINT} > 0")
                metrics = {m["name"]: m["value"] for m in browser.call("Performance.getMetrics")["metrics"]}
                runs.append([1000 * metrics["TaskDuration"], browser.evaluate(PAINT), *browser.evaluate(TIMES)])
                browser.evaluate("location.hash = '#case-7'")
                start = time.perf_counter()
                browser.wait("document.querySelector('.viewer[data-ready]') !== null")
                runs[-1].append(1000 * (time.perf_counter() - start))
        for name, values in zip(
            ("processor time of the page until then", "first paint", "DOMContentLoaded", "load", "a case's viewer after its click"),
            zip(*runs, strict=True),
            strict=True,
        ):
            print(f"{name}: median {median(values) / 1000:.2f} s of {args.runs}, most {max(values) / 1000:.2f} s")


if __name__ == "__main__":
    main()
