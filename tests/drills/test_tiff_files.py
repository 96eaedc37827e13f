"""Malformed TIFFs through the reader, in a process whose memory and time are bounded."""

import io
import json
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from zarrloc.errors import SourceError
from zarrloc.images.roles import Channels
from zarrloc.tasks.read_images import ReadImages

MEMORY = 2 << 30  # bytes of address space: numpy and tifffile take under one of them
SECONDS_EACH = 0.25
EVERY_GOOD_ONE = 10

READ = """
import json, resource, sys, time
from pathlib import Path
import numpy as np
from zarrloc.errors import SourceError
from zarrloc.images.roles import Channels
from zarrloc.images.fields import FovSource
from tests.drills.test_tiff_files import stage
resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))
reader = stage(Path("."))
for path in sorted(Path(sys.argv[1]).glob("*.tif")):
    start = time.monotonic()
    try:
        pixels = reader.read_field(FovSource(path.stem, (str(path),), 1, "image"))
        outcome = "ok" if pixels.shape[0] == 2 else "odd shape"
        outcome += "" if np.array_equal(pixels, np.load(sys.argv[2])) else ", changed"
    except SourceError as error:
        outcome = "refused" if str(error) else "refused without a reason"
    except BaseException as error:
        outcome = f"raised {{type(error).__name__}}: {{error}}"[:300]
    print(json.dumps([path.name, outcome, time.monotonic() - start]), flush=True)
"""


def stage(store: Path) -> ReadImages:
    """The product's own reader for a store of two channels of 40 x 50 px, uint16."""
    from zarrloc.store.location import Location

    place = Location.of(store / "x.zarr")
    return ReadImages(
        place, Channels(("nucleus", "protein"), by_order=True), "uint16", 40, 50, None, None
    )


def _good(pixels: Any, kind: int) -> bytes:
    file = io.BytesIO()
    if kind == 0:
        tifffile.imwrite(file, pixels, imagej=True, metadata={"axes": "CYX"})
    elif kind == 1:
        tifffile.imwrite(file, pixels, ome=True, metadata={"axes": "CYX"}, compression="zlib")
    else:
        tifffile.imwrite(
            file, pixels, bigtiff=True, photometric="minisblack", metadata={"axes": "CYX"}
        )
    return file.getvalue()


def _flipped(rng: random.Random, good: bytes) -> bytes:
    content = bytearray(good)
    for _ in range(rng.choice((1, 4, 64))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def _cut(rng: random.Random, good: bytes) -> bytes:
    return good[: rng.randrange(len(good))]


def _tags(rng: random.Random, good: bytes) -> bytes:
    """Absurd values in the directory: types, counts, offsets, sizes of terabytes, a cycle."""
    content = bytearray(good)
    big = content[2] == 43
    form = "<" if content[:2] == b"II" else ">"
    at = struct.unpack_from(form + ("Q" if big else "I"), content, 8 if big else 4)[0]
    count = struct.unpack_from(form + ("Q" if big else "H"), content, at)[0]
    first, size = at + (8 if big else 2), 20 if big else 12
    if rng.random() < 0.1:  # the next directory is this one
        struct.pack_into(form + ("Q" if big else "I"), content, first + count * size, at)
        return bytes(content)
    for _ in range(rng.choice((1, 1, 3))):
        entry = first + rng.randrange(count) * size
        field, code = rng.choice(((0, "H"), (2, "H"), (4, "I"), (size - 4, "I")))
        limit = 65535 if code == "H" else 2**32 - 1
        value = rng.choice((0, 1, limit, limit // 2, at, rng.randint(0, limit)))
        struct.pack_into(form + code, content, entry + field, min(value, limit))
    return bytes(content)


def _huge(rng: random.Random, good: bytes) -> bytes:
    """Width and height of up to four billion pixels each."""
    content = bytearray(good)
    big = content[2] == 43
    form = "<" if content[:2] == b"II" else ">"
    at = struct.unpack_from(form + ("Q" if big else "I"), content, 8 if big else 4)[0]
    first, size = at + (8 if big else 2), 20 if big else 12
    for entry in (first, first + size, first + 2 * size):
        if struct.unpack_from(form + "H", content, entry)[0] in (256, 257):
            struct.pack_into(form + "H", content, entry + 2, 4)  # LONG
            sides = (1 << 20, 1 << 24, 2**32 - 1)
            struct.pack_into(
                form + "I", content, entry + size - (8 if big else 4), rng.choice(sides)
            )
    return bytes(content)


def _axes(rng: random.Random, good: bytes) -> bytes:
    shape, axes = rng.choice(
        (((3, 2, 8, 9), "TCYX"), ((5, 8, 9), "CYX"), ((2, 8, 9), "ZYX"), ((8, 9), "YX"))
    )
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros(shape, "uint16"), ome=True, metadata={"axes": axes})
    return file.getvalue()


WAYS = (_flipped, _cut, _tags, _tags, _huge, _axes)


def _drill(folder: Path, count: int, seed: int) -> None:
    rng = random.Random(seed)
    pixels = np.random.default_rng(seed).integers(0, 60_000, (2, 40, 50), np.uint16)
    good = [_good(pixels, kind) for kind in range(3)]
    np.save(folder / "pixels.npy", pixels)
    files = folder / "files"
    files.mkdir()
    for n in range(count):
        content = rng.choice(WAYS)(rng, rng.choice(good))
        (files / f"{n:05}.tif").write_bytes(content)
        if n % EVERY_GOOD_ONE == 0:
            (files / f"{n:05}-good.tif").write_bytes(rng.choice(good))
    done = subprocess.run(
        [sys.executable, "-c", READ.format(memory=MEMORY), files, folder / "pixels.npy"],
        capture_output=True, text=True, timeout=60 + SECONDS_EACH * count,
    )  # fmt: skip
    seen = {name: outcome for name, outcome, _ in map(json.loads, done.stdout.splitlines())}
    lost = {
        name: seen.get(name, f"process ended: {done.stderr[-300:]}")
        for name in (path.name for path in files.iterdir())
        if not (
            seen.get(name) == "ok"
            if "good" in name
            else seen.get(name, "").startswith(("ok", "refused")) and "without" not in seen[name]
        )
    }
    kinds = {what: sum(v == what for v in seen.values()) for what in sorted(set(seen.values()))}
    print(f"malformed TIFFs: tried {count}, held {count - len(lost)}, lost {len(lost)}; {kinds}")
    assert not lost
    assert sum(outcome == "refused" for outcome in seen.values()) > count / 3


def test_a_draw_of_malformed_tiffs(tmp_path: Path) -> None:
    _drill(tmp_path, 60, seed=1)


@pytest.mark.drill
def test_malformed_tiffs(tmp_path: Path) -> None:
    _drill(tmp_path, 2000, seed=2)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 8192, 8192), "is 8192x8192 px, larger than the store's 40x50"),
        ((64, 1024, 1024), "has 64 channels, expected 2"),
    ],
)
def test_what_is_declared_is_compared_before_it_is_decoded(
    shape: tuple[int, ...], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zarrloc.images.fields import FovSource

    path = tmp_path / "bomb.tif"
    metadata = {"axes": "CYX"}
    tifffile.imwrite(path, np.zeros(shape, "uint16"), metadata=metadata, compression="zlib")
    assert path.stat().st_size < 2 << 20

    def decoded(*_: Any, **__: Any) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", decoded)
    with pytest.raises(SourceError, match=expected):
        stage(tmp_path).read_field(FovSource("bomb", (str(path),), 1, "image"))
