"""Pictures as viewers show them: TIFF by its metadata, EXIF, palettes, few bits, and label maps of one channel."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageOps, TiffImagePlugin

from stseg3d.geometry import Grid
from stseg3d.volumes import open_label, open_volume

Array = NDArray[Any]
HYPERSTACK = "ImageJ=1.53c\nimages=12\nchannels=2\nslices=6\nhyperstack=true\nunit=micron\nspacing=2.0\n"


@pytest.fixture
def noise(rng) -> Array:
    """4 channels x 3 slices of 20 rows and 30 columns, smooth enough to be packed."""
    return (rng.integers(0, 5, (4, 3, 20, 30)) + 7 * np.arange(30)).astype(np.uint8)


def pixels(path: Path) -> Array:
    """Voxels of shape ``(C, z, y, x)``."""
    volume = open_volume(path)
    array = volume.read()
    assert array.shape == (volume.channels, *volume.grid.shape)
    assert array.dtype == volume.dtype
    return array.transpose(0, 3, 2, 1)


def refusal(path: Path, *, label: bool = False) -> str:
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        (open_label if label else open_volume)(path).read()
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def labels(path: Path, **options: Any) -> Array:
    volume = open_label(path, open_volume(path).grid, **options)
    assert volume.channels == 1
    return volume.read()[0, ..., 0].T


# --- channels, slices, time --------------------------------------------------


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_the_channels_of_an_imagej_hyperstack_are_no_slices(tmp_path, noise, compression):
    pages = [Image.fromarray(noise[c, z % 3]) for z in range(6) for c in range(2)]
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270] = HYPERSTACK
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], tiffinfo=tags, compression=compression)
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif"), noise[:2][:, [0, 1, 2, 0, 1, 2]])
    assert open_volume(tmp_path / "a.tif").grid.spacing_mm == pytest.approx((0.001, 0.001, 0.002))  # one pixel a unit


def test_an_imagej_stack_after_one_directory_is_whole(tmp_path, noise):
    tifffile.imwrite(tmp_path / "a.tif", noise[:2].swapaxes(0, 1), imagej=True, metadata={"axes": "ZCYX"})
    content = bytearray((tmp_path / "a.tif").read_bytes())
    (first,) = struct.unpack("<I", content[4:8])
    (count,) = struct.unpack("<H", content[first : first + 2])
    content[first + 2 + 12 * count : first + 6 + 12 * count] = bytes(4)  # as ImageJ writes what is larger than 4 GB
    (tmp_path / "a.tif").write_bytes(content)
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif"), noise[:2])
    (tmp_path / "a.tif").write_bytes(content[:2000])
    assert "file must hold the whole image that its metadata describe" in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize(("unit", "mm"), [("um", 1e-3), (r"\u00B5m", 1e-3), ("nm", 1e-6), ("cm", 10), ("inch", 25.4), ("pixel", None)])
def test_imagej_tells_its_spacing(tmp_path, noise, unit, mm):
    tifffile.imwrite(tmp_path / "a.tif", noise[0], imagej=True, resolution=(4, 2), metadata={"axes": "ZYX", "unit": unit, "spacing": 3})
    expected = (1, 1, 3) if mm is None else (mm / 4, mm / 2, 3 * mm)
    assert open_volume(tmp_path / "a.tif").grid.spacing_mm == pytest.approx(expected)


@pytest.mark.parametrize("axes", ["CZYX", "ZCYX"])
def test_ome_tiff_is_read_by_its_metadata(tmp_path, noise, axes):
    array = noise if axes == "CZYX" else noise.swapaxes(0, 1)
    about = {"axes": axes, "PhysicalSizeX": 0.5, "PhysicalSizeY": 250, "PhysicalSizeYUnit": "nm", "PhysicalSizeZ": 2.0}
    tifffile.imwrite(tmp_path / "a.ome.tif", array, metadata=about)
    np.testing.assert_array_equal(pixels(tmp_path / "a.ome.tif"), noise)
    assert open_volume(tmp_path / "a.ome.tif").grid.spacing_mm == pytest.approx((0.0005, 0.00025, 0.002))


def test_ome_without_a_distance_of_slices_takes_that_of_pixels_and_says_so(tmp_path, noise, caplog):
    tifffile.imwrite(tmp_path / "a.ome.tif", noise[0], metadata={"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5})
    assert open_volume(tmp_path / "a.ome.tif").grid.spacing_mm == pytest.approx((0.0005,) * 3)
    assert "a.ome.tif: the distance of slices is not given" in caplog.text


@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_several_time_points_are_refused_and_one_is_read(tmp_path, noise, kind):
    tifffile.imwrite(tmp_path / "a.tif", noise[:2][None], metadata={"axes": "TCZYX"}, ome=True)
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif"), noise[:2])
    tifffile.imwrite(tmp_path / "a.tif", noise, metadata={"axes": "TZYX"}, **{kind: True})
    assert "time points must be one, got 4 along T of TZYX: save each part in a file of its own" in refusal(tmp_path / "a.tif")


def test_ome_parts_in_other_files_are_not_made_up(tmp_path, noise):
    tifffile.imwrite(tmp_path / "a.ome.tif", noise[0], photometric="minisblack", metadata={"axes": "ZYX"})
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
        xml = str(tiff.ome_metadata)
    other = '<TiffData IFD="0" PlaneCount="3"><UUID FileName="b.tif">urn:uuid:1</UUID></TiffData>'
    xml = re.sub(r"<TiffData[^>]*?(/>|>.*?</TiffData>)", other, xml)
    assert other in xml
    tifffile.imwrite(tmp_path / "a.ome.tif", noise[0], photometric="minisblack", description=xml, metadata=None)
    assert "file must hold the whole image that its metadata describe" in refusal(tmp_path / "a.ome.tif")


def test_plain_pages_are_slices(tmp_path, noise):
    sitk.WriteImage(sitk.GetImageFromArray(noise[0].astype(np.uint16)), str(tmp_path / "a.tif"), True)
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif"), noise[:1])
    assert open_volume(tmp_path / "a.tif").grid.is_close(Grid((30, 20, 3)))


@pytest.mark.parametrize("copy_first", [False, True])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_reduced_copies_are_left_out_and_pages_of_other_sizes_refused(tmp_path, noise, compression, copy_first):
    plane, small = noise[0, 0], noise[0, 0, ::2, ::2]
    pages = [(small, 1), (plane, 0)] if copy_first else [(plane, 0), (small, 1)]
    for reduced in (True, False):
        with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
            for page, flag in pages:
                writer.write(page, subfiletype=flag * reduced, compression=compression, metadata=None)
        if reduced:
            np.testing.assert_array_equal(pixels(tmp_path / "a.tif")[0, 0], plane)
    assert "pages must be of one size and kind to be slices, got" in refusal(tmp_path / "a.tif")


@pytest.mark.parametrize("kinds", [(2, 2, 43, 2, 2), (0, 2, 2, 2, 2), (2, 2, 2, 2, 0)])
def test_pages_of_several_kinds_do_not_overrun_itk(tmp_path, noise, kinds):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for n, kind in enumerate(kinds):
            writer.write(noise[n % 4, n % 3], subfiletype=kind, compression="zlib", metadata=None)
    kept = [noise[n % 4, n % 3] for n, kind in enumerate(kinds) if not kind & 1]
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif")[0], kept)


def test_a_page_of_another_size_in_the_midst_is_refused(tmp_path, noise):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for n in range(7):
            writer.write(noise[0, 0].reshape(30, 20) if n == 3 else noise[0, 0], metadata=None)
    assert "got 30 x 20 of uint8 and 20 x 30 of uint8" in refusal(tmp_path / "a.tif")


def test_of_ome_images_the_first_is_read_unless_another_is_as_large(tmp_path, noise, caplog):
    for other in (noise[0, 0, ::2, ::2], noise[0, 1]):
        with tifffile.TiffWriter(tmp_path / "a.ome.tif") as writer:
            writer.write(noise[0, 0], metadata={"axes": "YX"})
            writer.write(other, metadata={"axes": "YX"})
        if other.shape[0] < 20:
            np.testing.assert_array_equal(pixels(tmp_path / "a.ome.tif")[0, 0], noise[0, 0])
            assert "a.ome.tif: 1 pages of smaller images are left out" in caplog.text
    assert "file must hold one image, got 1 further pages of its size" in refusal(tmp_path / "a.ome.tif")


# --- how pixels are stored ---------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8"])
@pytest.mark.parametrize("samples", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "layout", [{}, {"tile": (16, 16)}, {"byteorder": ">"}, {"bigtiff": True}, {"rowsperstrip": 7}, {"planarconfig": 2}]
)
def test_uncompressed_tiff_of_any_layout(tmp_path, noise, dtype, samples, layout):
    array = noise[:samples, 0].astype(dtype)
    chunky = samples > 1 and "planarconfig" not in layout
    about = {"photometric": "rgb" if samples > 2 else "minisblack", "metadata": None} | ({"planarconfig": 1} if chunky else {}) | layout
    about |= {"extrasamples": [2]} if samples in (2, 4) else {}
    if samples == 1:
        about.pop("planarconfig", None)
    tifffile.imwrite(tmp_path / "a.tif", np.moveaxis(array, 0, -1) if chunky else array if samples > 1 else array[0], **about)
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif")[:, 0], array.astype("f4" if dtype[0] == "f" else dtype))


@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}, {"tile": (16, 16), "byteorder": ">"}, {"planarconfig": 2}])
@pytest.mark.parametrize(("dtype", "samples"), [("u1", 1), ("u1", 2), ("u1", 3), ("u2", 1), ("u2", 3), ("i4", 1), ("f4", 1), ("f4", 3)])
def test_compressed_tiff_is_right_or_refused(tmp_path, noise, dtype, samples, layout):
    array = (noise[:samples, 0].astype(dtype) * (1 if dtype == "u1" else 211)).astype(dtype)
    chunky = samples > 1 and "planarconfig" not in layout
    about = {"photometric": "rgb" if samples > 2 else "minisblack", "metadata": None} | ({"planarconfig": 1} if chunky else {}) | layout
    about |= {"extrasamples": [2]} if samples == 2 else {}
    if samples == 1:
        about.pop("planarconfig", None)
    stored = np.moveaxis(array, 0, -1) if chunky else array if samples > 1 else array[0]
    tifffile.imwrite(tmp_path / "a.tif", stored, compression="zlib", **about)
    is_special = layout and not (samples == 1 and "planarconfig" in layout)
    impossible = (
        is_special
        and (dtype != "u1" or (samples == 2 and "planarconfig" in layout))
        and (samples > 1 or (dtype != "u2" and "byteorder" in layout))
    )
    if impossible:
        assert "TIFF must be of a kind that can be read right, got" in refusal(tmp_path / "a.tif")
    else:
        np.testing.assert_array_equal(pixels(tmp_path / "a.tif")[:, 0], array)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate", "zstd", "lzma"])
@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_pillow_s_compressions(tmp_path, noise, compression, mode):
    plane = np.moveaxis(noise[:3, 0], 0, -1) if mode == "RGB" else noise[0, 0].astype(np.uint16 if mode == "I;16" else np.uint8)
    Image.fromarray(plane).save(tmp_path / "a.tif", compression=compression)
    np.testing.assert_array_equal(np.squeeze(np.moveaxis(pixels(tmp_path / "a.tif")[:, 0], 0, -1)), plane)


@pytest.mark.parametrize(("dtype", "compression"), [("u1", None), ("u2", None), ("u1", "zlib"), ("u2", "zlib")])
def test_white_is_zero_is_shown_as_viewers_show_it_and_refused_as_label(tmp_path, noise, dtype, compression):
    plane = noise[0, 0].astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", plane, photometric="miniswhite", compression=compression, metadata=None)
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif")[0, 0], np.iinfo(dtype).max - plane)
    assert "a label must be stored with 0 as black" in refusal(tmp_path / "a.tif", label=True)


@pytest.mark.parametrize("photometric", ["miniswhite", "minisblack"])
def test_one_bit(tmp_path, photometric):
    mask = np.add.outer(np.arange(20), np.arange(30)) % 7 < 3
    tifffile.imwrite(tmp_path / "a.tif", mask, photometric=photometric, metadata=None)
    Image.fromarray(mask).save(tmp_path / "a.png")
    Image.fromarray(mask).save(tmp_path / "fax.tif", compression="group4")
    for name in ("a.tif", "a.png", "fax.tif"):
        shown = ~mask if photometric == "miniswhite" and name == "a.tif" else mask
        np.testing.assert_array_equal(pixels(tmp_path / name)[0, 0], 255 * shown)
        np.testing.assert_array_equal(labels(tmp_path / name), shown)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "lzw.tif"])
def test_a_palette_gives_colours_to_images_and_indices_to_labels(tmp_path, rng, name):
    indices, palette = rng.integers(0, 4, (20, 30)).astype(np.uint8), rng.integers(0, 255, (256, 3)).astype(np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(palette.ravel().tolist())
    image.save(tmp_path / name, compression="tiff_lzw" if name == "lzw.tif" else None)
    shown = pixels(tmp_path / name)[:, 0]
    shown = shown >> 8 if shown.dtype == np.uint16 else shown  # TIFF has palettes of 16 bits
    np.testing.assert_array_equal(shown, palette[indices].transpose(2, 0, 1))
    np.testing.assert_array_equal(labels(tmp_path / name), indices)


def test_grey_with_alpha_cmyk_and_16_bits(tmp_path, noise):
    both = np.moveaxis(noise[:2, 0], 0, -1)
    for name in ("la.png", "la.tif"):
        Image.fromarray(both).save(tmp_path / name, compression="tiff_lzw")
        np.testing.assert_array_equal(pixels(tmp_path / name)[:, 0], noise[:2, 0])
    cmyk = Image.merge("CMYK", [Image.fromarray(n[0]) for n in noise])
    cmyk.save(tmp_path / "a.tif")
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif")[:, 0], np.asarray(cmyk.convert("RGB")).transpose(2, 0, 1))
    sitk.WriteImage(sitk.GetImageFromArray(both[..., 0].astype(np.uint16) * 201), str(tmp_path / "a.png"))
    np.testing.assert_array_equal(pixels(tmp_path / "a.png")[0, 0], both[..., 0].astype(np.uint16) * 201)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("name", "bits"), [("a.jpg", 0), ("a.png", 0), ("a.tif", 0), ("lzw.tif", 0), ("a.tif", 1), ("lzw.tif", 1)])
def test_a_picture_stands_upright(tmp_path, noise, name, bits, orientation):
    image = Image.fromarray(noise[0, 0] % 5 > 2 if bits else noise[0, 0])
    exif = image.getexif()
    exif[274] = orientation
    more = {".jpg": {"quality": 100}, "lzw.tif": {"compression": "tiff_lzw"}}
    image.save(tmp_path / name, exif=exif, dpi=(100, 50), **more.get(name, more.get(name[1:], {})))
    expected = np.asarray(ImageOps.exif_transpose(image)).astype(int)
    assert expected.shape == ((20, 30) if orientation < 5 else (30, 20))
    shown = pixels(tmp_path / name)[0, 0] // (255 if bits else 1)
    np.testing.assert_allclose(shown.astype(int), expected, atol=2 if name == "a.jpg" else 0)
    if name.endswith(".tif"):
        spacing = open_volume(tmp_path / name).grid.spacing_mm
        assert spacing == pytest.approx((0.254, 0.508, 1) if orientation < 5 else (0.508, 0.254, 1))


@pytest.mark.parametrize("unit", [1, 2, 3])
def test_a_resolution_is_that_of_itk_to_the_last_digit(tmp_path, noise, unit):
    for resolution in ((72, 300), ((123457, 1009), (7, 3)), ((1, 3), 1e5)):
        tifffile.imwrite(tmp_path / "a.tif", noise[0, 0], resolution=resolution, resolutionunit=unit, metadata=None)
        assert open_volume(tmp_path / "a.tif").grid == Grid(
            (30, 20, 1), spacing_mm=(*sitk.ReadImage(str(tmp_path / "a.tif")).GetSpacing(), 1)
        )


# --- labels ------------------------------------------------------------------


def test_a_label_kept_with_loss_is_refused(tmp_path, noise):
    Image.fromarray(noise[0, 0]).save(tmp_path / "a.jpg")
    Image.fromarray(noise[0, 0]).save(tmp_path / "a.tif", compression="jpeg")
    for name in ("a.jpg", "a.tif"):
        assert "a label must be stored without loss, got a JPEG, whose compression makes up values" in refusal(tmp_path / name, label=True)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_label_of_colours_is_read_only_if_they_are_equal(tmp_path, noise, suffix):
    path = tmp_path / f"a{suffix}"
    grey = np.repeat(noise[0, 0][..., None], 3, axis=-1)
    for opaque in (grey, np.dstack([grey, np.full((20, 30), 255, np.uint8)]), np.dstack([grey[..., 0], np.full((20, 30), 255, np.uint8)])):
        Image.fromarray(opaque).save(path)
        np.testing.assert_array_equal(labels(path), grey[..., 0])
    Image.fromarray(np.dstack([grey, noise[1, 0]])).save(path)
    assert "a label must be opaque, got transparent pixels" in refusal(path, label=True)
    Image.fromarray(np.moveaxis(noise[:3, 0], 0, -1)).save(path)
    assert "a label must have one channel, or equal ones, got 3 that differ" in refusal(path, label=True)


def test_a_mask_of_0_and_255_is_object_1_where_there_is_one_class(tmp_path):
    mask = np.zeros((20, 30), np.uint8)
    mask[5:9, 3:20] = 255
    Image.fromarray(mask).save(tmp_path / "a.png")
    for option in ({"overlap": True}, {"binary": True}):
        np.testing.assert_array_equal(labels(tmp_path / "a.png", **option), mask // 255)
    np.testing.assert_array_equal(labels(tmp_path / "a.png"), mask)  # of many classes it may be one
    mask[0, 0] = 7
    Image.fromarray(mask).save(tmp_path / "a.png")
    np.testing.assert_array_equal(labels(tmp_path / "a.png", binary=True), mask)


@pytest.mark.parametrize("bits", [2, 4])
def test_a_label_of_few_bits_keeps_its_values(tmp_path, bits):
    ids = (np.arange(600) % (1 << bits)).reshape(20, 30).astype(np.uint8)
    Image.fromarray(ids).save(tmp_path / "a.png", bits=bits)
    tifffile.imwrite(tmp_path / "a.tif", np.packbits(_bits_of(ids, bits), axis=1), metadata=None)
    _set_tags(tmp_path / "a.tif", {256: 30, 258: bits})
    for name in ("a.png", "a.tif"):
        np.testing.assert_array_equal(pixels(tmp_path / name)[0, 0], ids * (255 // ((1 << bits) - 1)))
        np.testing.assert_array_equal(labels(tmp_path / name), ids)


def _bits_of(ids: Array, bits: int) -> Array:
    return np.unpackbits(ids[..., None], axis=-1)[..., -bits:].reshape(len(ids), -1)


def _set_tags(path: Path, values: dict[int, int]) -> None:
    """Set numbers in the first directory of a little-endian TIFF."""
    content = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from("<HH", content, at)
        if tag in values:
            struct.pack_into("<I" if kind == 4 else "<H", content, at + 8, values[tag])
    path.write_bytes(content)


# --- hostile files -----------------------------------------------------------


def _page(following: int, width: int = 8, height: int = 8) -> bytes:
    tags = [
        (256, width),
        (257, height),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, height),
        (279, width * height & 0xFFFFFFFF),
    ]
    return struct.pack("<H", 9) + b"".join(struct.pack("<HHII", tag, 4, 1, n) for tag, n in tags) + struct.pack("<I", following)


def _tiff(path: Path, *pages: bytes) -> Path:
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 72) + bytes(64) + b"".join(pages))
    return path


def test_directories_in_a_loop_are_refused(tmp_path):
    size = len(_page(0))
    for n in (1, 2, 150):
        pages = [_page(72 + size * k) for k in range(1, n)]
        for back in {0, n // 2}:
            path = _tiff(tmp_path / "a.tif", *pages, _page(72 + size * back))
            assert "pages, one after the other, got directories in a loop" in refusal(path)


def test_a_picture_of_2_to_the_31_squared_is_refused(tmp_path):
    assert f"must hold the {2**62} bytes" in refusal(_tiff(tmp_path / "a.tif", _page(0, 2**31, 2**31)))


def test_60000_pages_are_refused(tmp_path):
    size = len(_page(0))
    path = _tiff(tmp_path / "a.tif", *(_page(72 + size * (k + 1) if k < 59_999 else 0) for k in range(60_000)))
    assert refusal(path).endswith("file must have at most 32767 pages, one after the other, got more")


def test_a_value_larger_than_the_file_is_refused(tmp_path):
    page = bytearray(_page(0))
    struct.pack_into("<HHII", page, 2 + 12 * 5, 273, 4, 2**31, 8)
    assert "with 2147483648 values of tag 273" in refusal(_tiff(tmp_path / "a.tif", bytes(page)))
