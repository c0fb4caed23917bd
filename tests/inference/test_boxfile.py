"""Boxes in files: voxels or millimetres, JSON or CSV, and one sentence for what is none of these."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from stseg3d.geometry import Box, Grid
from stseg3d.inference.boxfile import describe_box, read_boxes
from tests.ops.twins import all_boxes

GRID = Grid((20, 30, 10), np.array([[0, 0.5, 0, 10], [-2.0, 0, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]]))
BOXES = [Box((1, 2, 3), (4, 6, 8)), Box((0, 0, 0), (20, 30, 10))]


def turned(degrees):
    a = np.radians(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    return Grid(GRID.shape, turn @ GRID.affine)


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return write


def test_voxels_in_json(write):
    entries = [{"start": list(b.start), "stop": list(b.stop)} for b in BOXES]
    assert read_boxes(write("a.json", {"boxes": entries}), GRID) == BOXES
    assert read_boxes(write("b.json", entries), GRID) == BOXES
    assert read_boxes(write("c.json", []), GRID) == []


def test_millimetres_in_json_by_hand(write):
    # Voxel (i, j, k) has its centre at x = 0.5 j + 10, y = -2 i + 20, z = 3 k + 30.
    entry = {"start_mm": [10.75, 13, 37.5], "stop_mm": [12.75, 19, 52.5]}
    assert read_boxes(write("a.json", [entry]), GRID) == [BOXES[0]]
    swapped = {"start_mm": [12.75, 13, 37.5], "stop_mm": [10.75, 19, 52.5]}  # any two opposite corners will do
    assert read_boxes(write("b.json", [swapped]), GRID) == [BOXES[0]]


def test_csv_in_voxels_and_in_millimetres(write):
    voxels = "start_i, start_j, start_k, stop_i, stop_j, stop_k\n1, 2, 3, 4, 6, 8\n0,0,0,20,30,10\n"
    assert read_boxes(write("a.csv", voxels), GRID) == BOXES
    more = "name,stop_k,stop_j,stop_i,start_k,start_j,start_i\none,8,6,4,3,2,1\n"  # by name, not by place
    assert read_boxes(write("b.CSV", more), GRID) == BOXES[:1]
    world = "start_x_mm,start_y_mm,start_z_mm,stop_x_mm,stop_y_mm,stop_z_mm\n10.75,13,37.5,12.75,19,52.5\n"
    assert read_boxes(write("c.csv", world), GRID) == BOXES[:1]
    assert read_boxes(write("d.csv", voxels.splitlines()[0] + "\n"), GRID) == []


def test_a_spreadsheets_byte_order_mark_is_no_part_of_a_name(write):
    mark = "\N{ZERO WIDTH NO-BREAK SPACE}"
    assert read_boxes(write("a.csv", mark + "start_i,start_j,start_k,stop_i,stop_j,stop_k\n1,2,3,4,6,8\n"), GRID) == BOXES[:1]
    assert read_boxes(write("a.json", mark + json.dumps([{"start": [1, 2, 3], "stop": [4, 6, 8]}])), GRID) == BOXES[:1]


@pytest.mark.parametrize("grid", [GRID, Grid((3, 4, 1), spacing_mm=(0.3, 0.7, 5)), GRID.view((2, 0, 1), (True, False, True))])
def test_what_is_described_is_read_back(grid, write):
    boxes = all_boxes((3, 4, 1))
    described = [describe_box(b, grid) for b in boxes]
    assert read_boxes(write("voxels.json", {"boxes": described}), grid) == boxes
    in_mm = [{k: v for k, v in d.items() if k.endswith("_mm")} for d in described]
    assert read_boxes(write("mm.json", in_mm), grid) == boxes


@pytest.mark.parametrize("degrees", [10, 45, -80])
def test_a_box_of_the_world_is_covered_where_axes_are_oblique(degrees, write):
    grid = turned(degrees)
    low, high = np.array([[3.0, 4, 30], [9, 15, 48]])
    (box,) = read_boxes(write("a.json", [{"start_mm": low.tolist(), "stop_mm": high.tolist()}]), grid)
    corners = np.stack(np.meshgrid(*zip(low, high, strict=True), indexing="ij"), -1).reshape(-1, 3)
    edges = grid.edges(corners)
    assert (edges >= np.array(box.start) - 1e-2).all()
    assert (edges <= np.array(box.stop) + 1e-2).all()
    assert (edges.min(0) - box.start < 1).all()
    assert (box.stop - edges.max(0) < 1).all()


def test_boxes_may_reach_over_the_edge(write):
    assert read_boxes(write("a.json", [{"start": [-3, 0, 0], "stop": [4, 40, 10]}]), GRID) == [Box((-3, 0, 0), (4, 40, 10))]


# --- what is refused ---------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "rule"),
    [
        ({}, "must have start and stop (or start_mm and stop_mm) of 3 numbers, got {}"),
        ({"start": [1, 2, 3]}, "of 3 numbers, got {'start': [1, 2, 3]}"),
        ({"start": [1, 2], "stop": [3, 4]}, "of 3 numbers"),
        ({"start": [1, 2, 3], "stop": [3, 4, "x"]}, "of 3 numbers"),
        ({"start": [1, 2, 3], "stop": [3, 4, None]}, "of 3 numbers"),
        ({"start": 1, "stop": 2}, "of 3 numbers"),
        ({"start_mm": [1, 2, 3], "stop_mm": [1, 2, float("nan")]}, "of 3 numbers"),
        ({"start": [1, 2, 3], "stop": [4, 2, 8]}, "must have whole voxels with start before stop on each axis"),
        ({"start": [1, 2, 3], "stop": [4, 1, 8]}, "start before stop"),
        ({"start": [1.5, 2, 3], "stop": [4, 6, 8]}, "must have whole voxels"),
    ],
)
def test_an_entry_that_is_no_box_is_named(entry, rule, write):
    path = write("a.json", [{"start": [0, 0, 0], "stop": [1, 1, 1]}, entry])
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: box 2 must')}.*{re.escape(rule.removeprefix('must'))}"):
        read_boxes(path, GRID)


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("a.json", "{not json", "file must be JSON or CSV, got: "),
        ("a.txt", "1 2 3", "file must be JSON or CSV, got: "),
        ("a.json", "7", 'file must hold a list of boxes, alone or under "boxes", got int'),
        ("a.json", '{"box": []}', 'file must hold a list of boxes, alone or under "boxes", got NoneType'),
        ("a.json", "[[0, 0, 0]]", 'file must hold a list of boxes, alone or under "boxes", got list'),
        ("a.csv", "start_i,stop_i\n1,2\n", "box 1 must have start and stop"),
        ("a.csv", "start_i,start_j,start_k,stop_i,stop_j,stop_k\n1,2,3\n", "box 1 must have start and stop"),
    ],
)
def test_a_file_that_holds_no_boxes_is_refused(name, content, rule, write):
    path = write(name, content)
    with pytest.raises(ValueError, match="^" + re.escape(f"{path}: {rule}")):
        read_boxes(path, GRID)


@pytest.mark.parametrize("name", ["a.csv", "a.json"])
def test_bytes_that_are_no_text_are_refused(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(b"\x1f\x8b\xff\xfe\x00binary")
    with pytest.raises(ValueError, match="^" + re.escape(f"{path}: file must be JSON or CSV, got: ")):
        read_boxes(path, GRID)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="^" + re.escape(f"{tmp_path / 'a.json'}: file must exist, got none")):
        read_boxes(tmp_path / "a.json", GRID)
