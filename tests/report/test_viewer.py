"""What the viewer is given lies where the image lies."""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
from base64 import b64decode
from importlib import resources
from itertools import product

import nibabel as nib
import numpy as np
import pytest

from stseg3d.geometry import Box, Grid
from stseg3d.report.viewer import NIIVUE, Scene, edge_mesh, scene_data, small_shape
from stseg3d.volumes import ArrayVolume
from tests.phantoms import touching_objects
from tests.report.made_up import BOXES, GRID, SHAPE


def nifti(text):
    return nib.Nifti1Image.from_bytes(gzip.decompress(b64decode(text)))


def scene(**more):
    image, mask = touching_objects(SHAPE)
    mask[:, :4] = mask[:, 20:] = False  # what is not in boxes
    return Scene(ArrayVolume(image[None], GRID), mask.astype(np.uint8), BOXES, **more)


def test_copies_lie_where_the_image_lies():
    one = scene()
    data = scene_data(one, 1e9)
    image, labels = nifti(data["image"]), nifti(data["labels"])
    where = Box((0, 1, 0), (40, 23, 28))  # the boxes and some context
    assert image.shape == labels.shape == tuple(data["shape"]) == where.shape
    np.testing.assert_allclose(image.affine, GRID.crop(where).affine)
    assert np.array_equal(np.asarray(labels.dataobj), one.labels[where.slices])
    wanted = one.volume.read(where)[0]
    step = float(image.dataobj.slope)
    far = np.abs(image.get_fdata() - wanted)
    assert np.quantile(far, 0.998) <= step  # but for the extremes, which are cut off
    assert step < np.ptp(wanted) / 200


def test_the_crosshair_begins_in_the_object():
    one = scene()
    at = np.floor(GRID.edges([scene_data(one, 1e5)["focus"]])[0]).astype(int)
    assert one.labels[tuple(at)] == 1


@pytest.mark.parametrize("limit", [3_000, 12_000])
def test_copies_are_as_fine_as_the_limit_allows(limit):
    noise = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32)
    data = scene_data(Scene(ArrayVolume(noise, GRID), np.zeros(SHAPE, np.uint8), []), limit)
    voxels = np.prod(data["shape"])
    assert 0.4 * limit < len(json.dumps(data)) < 1.6 * limit
    assert voxels < noise.size
    spacing = np.array(GRID.resized(data["shape"]).spacing_mm)
    assert spacing.max() / spacing.min() < 1.6  # from 1 x 1.5 x 2 mm: nearer to cubes, not farther


def test_small_shapes_cover_odd_cases():
    assert small_shape(Grid((10, 10, 1)), 10**6) == (10, 10, 1)
    assert small_shape(Grid((1000, 1000, 1)), 10_000) == (100, 100, 1)
    assert small_shape(Grid((7, 5, 3)), 1) == (1, 1, 1)


def test_flat_images_have_the_colours_of_each_label_and_no_boxes_where_there_are_none():
    labels = np.zeros((8, 9, 1), np.uint16)
    labels[4, 4], labels[5, 5] = 3, 700
    data = scene_data(Scene(ArrayVolume(np.ones((3, 8, 9, 1), np.uint8), Grid((8, 9, 1))), labels, []), 1e6)
    assert data["flat"]
    assert data["labelCount"] == 700
    assert np.asarray(nifti(data["labels"]).dataobj).max() == 700
    assert "edges" not in data
    assert "boxes" not in data
    assert "rough" not in data


def test_the_rough_mask_keeps_its_own_grid():
    rough = np.zeros((1, 5, 6, 7), np.float32)
    rough[0, 2, 2, 2:4] = 0.3, 0.5
    grid = GRID.resized((5, 6, 7))
    stored = nifti(scene_data(scene(rough=ArrayVolume(rough, grid), threshold=0.4), 1e6)["rough"])
    np.testing.assert_allclose(stored.affine, grid.affine, atol=1e-5)
    assert np.argwhere(stored.get_fdata()).tolist() == [[2, 2, 3]]


def test_edges_of_a_box_are_beams_around_its_edges():
    corners = np.array(list(product((0.0, 10.0), (0.0, 20.0), (0.0, 30.0))))
    content = gzip.decompress(edge_mesh([corners, corners + 100], 1.0))
    magic, attributes, faces, vertices, skip = struct.unpack_from("<HHIII", content)
    assert (magic, attributes, skip) == (23117, 3, 0)
    assert (faces, vertices) == (2 * 12 * 12, 2 * 12 * 8)
    triangles = np.frombuffer(content, "<i4", 3 * faces, 16).reshape(-1, 3)
    points = np.frombuffer(content, "<f4", 3 * vertices, 16 + 12 * faces).reshape(-1, 3)
    assert len(content) == 16 + 12 * faces + 12 * vertices
    first = points[:96]
    assert first.min(axis=0).tolist() == [-0.5] * 3
    assert first.max(axis=0).tolist() == [10.5, 20.5, 30.5]
    near_faces = np.minimum(np.abs(first), np.abs(first - [10, 20, 30])) <= 0.5
    assert (near_faces.sum(axis=1) == 3).all()  # beams end at corners
    beam = triangles[:12]
    a, b, c = (points[beam[:, n]] for n in range(3))
    volume = np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6
    assert volume == pytest.approx(1 * 1 * 31)  # closed, its faces outwards: as long as the edge and a half on both ends


def test_the_viewer_script_is_the_one_that_was_published():
    files = resources.files("stseg3d.report").joinpath("page")
    script = gzip.decompress(files.joinpath(NIIVUE).read_bytes())
    assert hashlib.sha256(script).hexdigest() == "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"
    licences = files.joinpath(NIIVUE.replace(".umd.js.gz", ".LICENSES.txt")).read_text()
    assert "BSD 2-Clause License" in licences
    assert b"</script" not in script.lower()
