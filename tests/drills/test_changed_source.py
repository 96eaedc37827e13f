"""A source file that changes between its listing and the end of its reading.

Its row has an `error` and no pixels; no row holds a mixture of two versions; the same command then
takes what is there now.
"""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.drills.pipeline import SERIAL, Tally, draws
from tests.image_files import write
from tests.stores import make_field
from zarrloc.config.ingest import IngestConfig
from zarrloc.engine.verify import verify
from zarrloc.images import find, read
from zarrloc.stages import ingest as ingest_stage

FIELDS, SIDE = 5, 48


def _field(row: int, version: int) -> Any:
    return make_field(2, SIDE, 10 * row + version)[0]


def _rewritten(file: Path, new: Path) -> None:
    """In place: the size stays, the time and the bytes do not."""
    content = new.read_bytes()
    with file.open("r+b") as opened:
        opened.write(content)
        opened.truncate()


def _replaced(file: Path, new: Path) -> None:
    shutil.copy(new, file.with_suffix(".new"))
    file.with_suffix(".new").replace(file)


def _cut(file: Path, new: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _deleted(file: Path, new: Path) -> None:
    file.unlink()


WAYS = {"rewritten": _rewritten, "replaced": _replaced, "cut": _cut, "deleted": _deleted}
MOMENTS = ("listed", "read", "hashed")


def _make(folder: Path, parted: bool) -> None:
    """Fields of two versions; `parted` in one file a channel."""
    for row in range(FIELDS):
        for version, where in enumerate(("raw", "new")):
            image = _field(row, version)
            if parted:
                for channel, name in enumerate(("nucleus", "protein")):
                    write(folder / where / f"f{row}_{name}.tif", image[channel], "YX")
            else:
                write(folder / where / f"f{row}.tif", image)


def _ingest(folder: Path, parted: bool) -> Any:
    pattern = f"{folder}/raw/{{fov}}_{{channel}}.tif" if parted else folder / "raw"
    config = IngestConfig(shard_fovs=2, channels=("nucleus", "protein"))
    return ingest_stage.ingest(pattern, folder / "s.zarr", config, run=SERIAL)


def _disturb(
    patch: pytest.MonkeyPatch, moment: str, nth: int, mischief: Callable[[], None]
) -> None:
    """Call `mischief` once: after the listing, after the nth reading, or after the nth hashing."""
    home: Any = {"listed": find, "read": read, "hashed": find}[moment]
    name = {"listed": "find", "read": "read_uri", "hashed": "content_hash"}[moment]
    whole, left = getattr(home, name), [1 if moment == "listed" else nth]

    def disturbed(*arguments: Any, **named: Any) -> Any:
        found = whole(*arguments, **named)
        left[0] -= 1
        if left[0] == 0:
            mischief()
        return found

    patch.setattr(home, name, disturbed)


def _drill(folder: Path, rng: np.random.Generator, way: str, moment: str, parted: bool) -> str:
    folder.mkdir()
    _make(folder, parted)
    row = int(rng.integers(1, FIELDS))  # the first tells what the store is like
    names = [f"f{row}_{name}.tif" for name in ("nucleus", "protein")] if parted else [f"f{row}.tif"]
    name = str(rng.choice(names))
    # Before, while and after the field's own files are read.
    nth = row * len(names) + int(rng.integers(0, len(names) + 1))
    nth = row + int(rng.integers(0, 2)) if moment == "hashed" else nth
    with pytest.MonkeyPatch.context() as patch:
        mischief = partial(WAYS[way], folder / "raw" / name, folder / "new" / name)
        _disturb(patch, moment, max(1, nth), mischief)
        summary = _ingest(folder, parted)
    ended = _check(folder, row, after=False)
    assert (ended, summary.exit_code) == ("error", 3)
    again = _ingest(folder, parted)
    gone = way in ("deleted", "cut")
    assert _check(folder, row, after=not gone, parted=parted) in ("error", "old", "new", "either")
    assert again.exit_code == (0 if not gone else again.exit_code)
    assert not any(found.faults for found in verify(folder / "s.zarr", deep=True))
    return ended


def _check(folder: Path, row: int, *, after: bool, parted: bool = False) -> str:
    """The disturbed row is an error without pixels, or whole; the others are as they were."""
    found = xr.open_zarr(folder / "s.zarr", group="fovs").load()
    # A field that lost one file of two is a row of its own in the next listing, with an error.
    assert all(map(str, found.error.values[FIELDS:]))
    assert found.sizes["fov"] <= FIELDS + parted
    for other in range(FIELDS):
        if other != row:
            assert str(found.error.values[other]) == ""
            np.testing.assert_array_equal(found.image.values[other], _field(other, 0))
    image, error = found.image.values[row], str(found.error.values[row])
    if error:
        assert not after, f"still an error: {error}"
        assert not image.any(), "an error, and pixels"
        return "error"
    versions = [np.array_equal(image, _field(row, version)) for version in (0, 1)]
    if after and parted:  # one file of two was changed for good: both are what they now are
        own = [[np.array_equal(image[c], _field(row, v)[c]) for v in (0, 1)] for c in (0, 1)]
        assert all(map(any, own))
        return "either"
    assert any(versions), "a mixture of two versions"
    return "old" if versions[0] else "new"


def _run(folder: Path, count: int, seed: int) -> None:
    tally = Tally()
    for n, rng in enumerate(draws(count, seed)):
        way, moment = list(WAYS)[n % 4], MOMENTS[(n + n // 4) % 3]
        parted = bool(n // 4 % 2)
        with tally.of(f"{n}: {way} when {moment}{', a file a channel' if parted else ''}"):
            tally.ended[_drill(folder / str(n), rng, way, moment, parted)] += 1
    tally.tell("source files changed while they are ingested")


def test_a_draw_of_changed_sources(tmp_path: Path) -> None:
    _run(tmp_path, 4, seed=1)


@pytest.mark.drill
def test_changed_sources(tmp_path: Path) -> None:
    _run(tmp_path, 48, seed=2)
