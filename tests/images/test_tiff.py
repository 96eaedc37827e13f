import io
import logging
import struct
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from zarrloc.errors import SourceError
from zarrloc.images import tiff
from zarrloc.images.dtypes import STORED
from zarrloc.images.roles import Channels

ROLES = ("nucleus", "protein")
PIXELS = np.random.default_rng(0).integers(0, 60_000, (2, 40, 50), np.uint16)
STACK = np.random.default_rng(1).integers(0, 60_000, (5, 2, 40, 50), np.uint16)


def _field(image: tiff.Image, roles: Sequence[str], project: str | None = None) -> Any:
    """`(channel, y, x)` of an image whose channels come in the order of `roles`."""
    stack = tiff.project(tiff.to_stack(image), project)
    return stack[Channels(tuple(roles), by_order=True).order(None, len(stack))]


def _tiff(pixels: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def _opencell(pixels: Any = PIXELS, axes: str = "CYX") -> bytes:
    metadata = {"axes": axes, "unit": "um"}
    return _tiff(pixels, imagej=True, resolution=(5, 5), metadata=metadata)


def test_the_real_files_read_as_tifffile_reads_them(shared: Callable[..., Path]) -> None:
    paths = sorted(shared("opencell").glob("*.tif"))
    assert len(paths) == 6
    for path in paths:
        about = tiff.header(path)
        assert (about.axes, about.shape, about.dtype) == ("CYX", (2, 600, 600), "uint16")
        assert about.pixel_size_um == pytest.approx(0.2)
        field = _field(tiff.read(path), ROLES)
        np.testing.assert_array_equal(field, tifffile.imread(path))


def test_a_projection_reads_from_a_path_and_from_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(_opencell())
    for file in (path, str(path), path.read_bytes()):
        image = tiff.read(file)
        assert (image.axes, image.pixel_size_um) == ("CYX", pytest.approx(0.2))
        np.testing.assert_array_equal(_field(image, ROLES), PIXELS)


def test_a_stack_needs_a_projection_and_gets_its_maximum() -> None:
    image = tiff.read(_opencell(STACK, "ZCYX"))
    with pytest.raises(SourceError, match="stack of 5 z planes; pass --project max"):
        _field(image, ROLES)
    np.testing.assert_array_equal(_field(image, ROLES, "max"), STACK.max(0))


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "zlib"},
        {"compression": "lzw"},
        {"compression": "zstd"},
        {"compression": "zlib", "predictor": True, "tile": (16, 16)},
        {"bigtiff": True},
        {"byteorder": ">"},
        {"rowsperstrip": 7},
        {"tile": (16, 32)},
    ],
    ids=str,
)
def test_every_way_to_store_pixels_reads_the_same(options: dict[str, Any]) -> None:
    image = tiff.read(_tiff(PIXELS, metadata={"axes": "CYX"}, **options))
    assert image.pixels.dtype == np.dtype("uint16")
    assert image.pixels.dtype.isnative
    np.testing.assert_array_equal(image.pixels, PIXELS)


@pytest.mark.parametrize("dtype", list(STORED))
def test_the_dtype_is_kept(dtype: str) -> None:
    pixels = (PIXELS % 127).astype(dtype)
    field = _field(tiff.read(_tiff(pixels, metadata={"axes": "CYX"})), ROLES)
    assert field.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(field, pixels)


@pytest.mark.parametrize("dtype", ["bool", "complex64", "uint64"])
def test_another_dtype_is_refused(dtype: str) -> None:
    file = _tiff(PIXELS.astype(dtype), metadata={"axes": "CYX"})
    with pytest.raises(SourceError, match=f"has dtype {dtype}, expected one of uint8"):
        tiff.header(file)
    with pytest.raises(SourceError, match=f"has dtype {dtype}"):
        _field(tiff.Image(PIXELS.astype(dtype), "CYX"), ROLES)


@pytest.mark.parametrize(
    ("unit", "size", "expected"),
    [("µm", 0.108, 0.108), ("nm", 108.0, 0.108), ("mm", 1e-4, 0.1), ("pixel", 1.0, None)],
)
def test_ome_names_its_channels_and_its_pixel_size(unit: str, size: float, expected: Any) -> None:
    metadata = {
        "axes": "CYX",
        "Channel": {"Name": ["DAPI", "GFP"]},
        "PhysicalSizeX": size,
        "PhysicalSizeXUnit": unit,
    }
    file = _tiff(PIXELS, ome=True, metadata=metadata)
    for about in (tiff.header(file), tiff.read(file)):
        assert about.channel_names == ("DAPI", "GFP")
        assert about.pixel_size_um == (expected and pytest.approx(expected))


def test_ome_in_any_order_becomes_channel_y_x() -> None:
    file = _tiff(STACK.transpose(1, 0, 2, 3), ome=True, metadata={"axes": "CZYX"})
    assert tiff.header(file).channel_names is None
    np.testing.assert_array_equal(_field(tiff.read(file), ROLES, "max"), STACK.max(0))


def test_imagej_labels_name_channels() -> None:
    file = _tiff(PIXELS, imagej=True, metadata={"axes": "CYX", "Labels": ["DAPI", "GFP"]})
    assert tiff.header(file).channel_names == ("DAPI", "GFP")


def test_a_pyramid_gives_its_full_resolution() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file, ome=True) as writer:
        writer.write(PIXELS, subifds=1, metadata={"axes": "CYX"})
        writer.write(PIXELS[:, ::2, ::2], subfiletype=1)
    np.testing.assert_array_equal(tiff.read(file.getvalue()).pixels, PIXELS)


def test_several_images_in_one_file_are_refused() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(PIXELS[0], contiguous=False)
        writer.write(PIXELS[1, :20, :20], contiguous=False)
    with pytest.raises(SourceError, match=r"2 images of shapes \(40, 50\), \(20, 20\)"):
        tiff.header(file.getvalue())


@pytest.mark.parametrize(
    ("axes", "pixels"),
    [
        ("CYX", PIXELS),
        ("YXC", PIXELS.transpose(1, 2, 0)),
        ("ZCYX", STACK),
        ("CZYX", STACK.transpose(1, 0, 2, 3)),
    ],
)
def test_plain_pages_need_their_axes_named(axes: str, pixels: Any) -> None:
    file = _tiff(pixels, photometric="minisblack", metadata=None)
    if len(axes) == 3:
        with pytest.raises(SourceError, match=r"does not say what its axes mean.*pass --axes"):
            tiff.read(file)
    image = tiff.read(file, axes=axes.lower(), channels=2)
    expected = PIXELS if len(axes) == 3 else STACK.max(0)
    np.testing.assert_array_equal(_field(image, ROLES, "max"), expected)


def test_an_rgb_picture_is_taken_only_where_its_axes_are_given() -> None:
    rgb = (PIXELS[:1].repeat(3, 0).transpose(1, 2, 0) % 256).astype(np.uint8)
    file = _tiff(rgb, photometric="rgb")
    with pytest.raises(SourceError, match=r"pass --axes, as in --axes YXC"):
        tiff.read(file)
    field = _field(tiff.read(file, axes="YXC"), ("r", "g", "b"))
    np.testing.assert_array_equal(field, rgb.transpose(2, 0, 1))


@pytest.mark.parametrize("axes", ["CY", "CCYX", "QYX", "ZCYX", "C"])
def test_axes_that_do_not_fit_are_refused(axes: str) -> None:
    with pytest.raises(SourceError, match="axes"):
        tiff.read(_opencell(), axes=axes)


def test_a_single_plane_is_one_channel() -> None:
    image = tiff.read(_tiff(PIXELS[0]))
    np.testing.assert_array_equal(_field(image, ("nucleus",)), PIXELS[:1])
    with pytest.raises(SourceError, match=r"has 1 channel, expected 2 \(nucleus, protein\)"):
        _field(image, ROLES)


def test_a_wrong_channel_count_is_refused() -> None:
    image = tiff.Image(np.concatenate([PIXELS, PIXELS[:1]]), "CYX")
    with pytest.raises(SourceError, match=r"has 3 channels, expected 2 \(nucleus, protein\)"):
        _field(image, ROLES)


def test_time_is_refused_unless_it_is_one_point() -> None:
    with pytest.raises(SourceError, match="has 5 time points"):
        _field(tiff.Image(STACK, "TCYX"), ROLES)
    np.testing.assert_array_equal(_field(tiff.Image(STACK[:1], "TCYX"), ROLES), STACK[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_refused(bad: float) -> None:
    pixels = PIXELS.astype(np.float32)
    pixels[1, 3, 4:6] = bad
    with pytest.raises(SourceError, match="holds 2 pixels that are NaN or infinite"):
        _field(tiff.Image(pixels, "CYX"), ROLES)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"hello, world", "is not a TIFF"),
        (b"\x89PNG\r\n\x1a\n", "is not a TIFF"),
        (b"II*\0", "truncated or damaged"),
        (b"II*\0" + bytes(100), "damaged"),
    ],
)
def test_what_is_no_tiff_is_refused(tmp_path: Path, file: bytes, message: str) -> None:
    path = tmp_path / "bad.tif"
    path.write_bytes(file)
    for target in (file, path):
        with pytest.raises(SourceError, match=message):
            tiff.read(target)


def test_a_file_that_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be opened: No such file"):
        tiff.read(tmp_path / "absent.tif")
    with pytest.raises(SourceError, match="cannot be opened: Is a directory"):
        tiff.read(tmp_path)


def _imagej_as_opencell() -> bytes:
    # OpenCell's layout to the byte: both planes in one run behind the first directory.
    description = "ImageJ=1.11a\nimages=2\nchannels=2\nhyperstack=true\nmode=grayscale\naxes=CYX"
    return _tiff(PIXELS, description=description, metadata=None, photometric="minisblack")


@pytest.mark.parametrize(
    "file",
    [
        _imagej_as_opencell(),
        _opencell(STACK, "ZCYX"),
        _tiff(PIXELS, ome=True),
        _tiff(PIXELS, metadata={"axes": "CYX"}, compression="zlib"),
        _tiff(PIXELS, metadata={"axes": "CYX"}, tile=(16, 16)),
        _tiff(PIXELS, metadata=None, photometric="minisblack"),
    ],
    ids=["imagej", "stack", "ome", "compressed", "tiled", "plain"],
)
def test_every_truncation_is_noticed(file: bytes) -> None:
    whole = tiff.read(file, axes="ZCYX" if b"slices=5" in file else "CYX")
    for length in sorted({*range(0, len(file), 97), *range(len(file) - 300, len(file))}):
        try:
            image = tiff.read(file[:length], axes=whole.axes)
        except SourceError:
            continue
        # What a writer leaves behind the last tag may be cut off: nothing of the image is lost.
        assert length > len(file) - 100
        np.testing.assert_array_equal(image.pixels, whole.pixels)


def test_a_hole_in_the_planes_is_noticed() -> None:
    file = _tiff(PIXELS, metadata={"axes": "CYX"}, compression="zlib")
    with tifffile.TiffFile(io.BytesIO(file)) as tif:
        tag = tif.pages[1].tags["StripByteCounts"]
    broken = bytearray(file)
    broken[tag.valueoffset : tag.valueoffset + 2] = b"\0\0"
    with pytest.raises(SourceError, match=r"truncated or damaged: some planes"):
        tiff.header(bytes(broken))


def _claiming(width: int, height: int, compression: int) -> bytes:
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 16),
        (259, 3, compression),
        (262, 3, 1),
        (273, 4, 200),
        (277, 3, 1),
        (278, 4, height),
        (279, 4, 100),
    ]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + directory + bytes(4)
    return head.ljust(200, b"\0") + bytes(100)


@pytest.mark.parametrize("compression", [1, 5, 8, 50000], ids=["raw", "lzw", "deflate", "zstd"])
def test_a_file_that_claims_too_much_is_refused_before_memory_is_taken(compression: int) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match="truncated"):
            tiff.read(_claiming(200_000, 200_000, compression))
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


def test_any_damage_gives_a_source_error_or_an_image() -> None:
    rng = np.random.default_rng(0)
    for file in (_imagej_as_opencell(), _tiff(PIXELS, ome=True, compression="zlib")):
        refused = 0
        for _ in range(300):
            broken = bytearray(file)
            for place in rng.integers(0, 400, 3):
                broken[place] = rng.integers(256)
            try:
                tiff.read(bytes(broken), axes="CYX")
            except SourceError:
                refused += 1
        assert refused > 100


def test_the_log_of_tifffile_reaches_nobody(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    cut = _imagej_as_opencell()[:5000]
    with pytest.raises(SourceError):
        tiff.read(cut)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    # Only our own reads are quiet.
    with tifffile.TiffFile(io.BytesIO(cut)) as tif:
        assert tif.series
    assert any(record.levelno >= logging.WARNING for record in caplog.records)
