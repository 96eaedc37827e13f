"""Every stage against a real S3 server: as on a disk, and what happens when it misbehaves."""

import asyncio
import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import xarray as xr
from zarrloc_cli.main import main

from tests import s3
from tests.s3 import Proxy
from tests.stages.conftest import FOVS, SERIAL, SHARD, bright_spots
from zarrloc.config.embed import EmbedConfig
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.run import RunConfig
from zarrloc.config.segment import SegmentConfig
from zarrloc.engine import cluster
from zarrloc.engine.cluster import Load
from zarrloc.engine.verify import Finding, verify
from zarrloc.errors import RemoteError
from zarrloc.images.files import walk
from zarrloc.stages.embed import embed
from zarrloc.stages.ingest import ingest
from zarrloc.stages.segment import segment
from zarrloc.store import remote, retry
from zarrloc.store.info import info
from zarrloc.store.location import Location
from zarrloc.store.remote import object_store

EMBED = EmbedConfig(backbone="dino-vits16", weights="random:0", size="32")
SEGMENT = SegmentConfig(model="watershed", grow="none")
GROUPS = ("fovs", "segmentations/own", "cells/own", "embeddings/e")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("moto.server")
    with s3.server(tmp_path_factory.mktemp("s3") / "log") as address:
        yield address


@pytest.fixture
def proxy(server: str) -> Iterator[Proxy]:
    with s3.proxy(server) as own, s3.environment(own.address):
        yield own


BUCKETS = itertools.count()


def _fill(server: str, raw: Path) -> str:
    """A new bucket laid out like OpenCell's, of simulated TIFFs."""
    name = f"bucket-{next(BUCKETS)}"
    s3.make_bucket(server, name)
    store = object_store(f"s3://{name}")
    for file in sorted(raw.rglob("*.tif")):
        store.put(f"microscopy/raw/{file.relative_to(raw).as_posix()}", file.read_bytes())
    return f"s3://{name}"


@pytest.fixture
def bucket(server: str, proxy: Proxy, raw: Path) -> str:
    """A bucket of one's own."""
    name = _fill(server, raw)
    proxy.count()
    return name


@pytest.fixture(scope="module")
def made(server: str, raw: Path) -> tuple[str, list[s3.Request]]:
    """A bucket with a store that every stage has been at, and what that was asked for."""
    with s3.proxy(server) as own, s3.environment(own.address):
        bucket = _fill(server, raw)
        own.count()
        _make_all(f"{bucket}/microscopy/raw", f"{bucket}/oc.zarr")
        return bucket, own.count()


def _make_all(source: str | Path, store: str | Path) -> None:
    ingest(source, store, IngestConfig(shard_fovs=SHARD), run=SERIAL)
    segment(store, SEGMENT, "own", function=bright_spots, run=SERIAL)
    embed(store, EMBED, "e", run=SERIAL)


def _ingest(bucket: str, store: str) -> int:
    source = f"{bucket}/microscopy/raw"
    return ingest(source, store, IngestConfig(shard_fovs=SHARD), run=SERIAL).exit_code


@pytest.mark.usefixtures("proxy")
def test_every_stage_is_as_on_a_disk(
    made: tuple[str, list[s3.Request]], raw: Path, tmp_path: Path
) -> None:
    there, here = f"{made[0]}/oc.zarr", tmp_path / "oc.zarr"
    _make_all(raw, here)
    assert not any(found.faults or found.undone for found in verify(there, deep=True))
    for group in GROUPS:
        remote_one = xr.open_zarr(Location.of(there).store(read_only=True), group=group).load()
        local_one = xr.open_zarr(here, group=group).load()
        # Sources lie elsewhere, have other stamps, and are hashed on a disk alone.
        for name in ("source", "source_digest", "source_hash", "block_input"):
            remote_one = remote_one.drop_vars(name, errors="ignore")
            local_one = local_one.drop_vars(name, errors="ignore")
        xr.testing.assert_equal(remote_one, local_one)
    logs = object_store(f"{there}.runs").list().collect()
    assert sum(str(one["path"]).endswith(".jsonl") for one in logs) == 4
    assert not [one for one in logs if str(one["path"]).endswith(".lock")]


def test_what_is_done_costs_few_requests_and_no_write(
    made: tuple[str, list[s3.Request]], proxy: Proxy
) -> None:
    bucket, asked = made
    store = f"{bucket}/oc.zarr"
    assert not [one for one in asked if one.path.endswith((".zgroup", ".zattrs", ".zarray"))]
    for again in (
        lambda: _ingest(bucket, store),
        lambda: embed(store, EMBED, "e", run=SERIAL),
        lambda: segment(store, SEGMENT, "own", function=bright_spots, run=SERIAL),
        lambda: info(store),
    ):
        again()
        seen = proxy.count()
        beside = [one for one in seen if one.lists and "microscopy" in one.path]
        gets = [one.path for one in seen if not one.lists]
        assert not [one for one in seen if one.writes]
        assert len(set(gets)) == len(gets), "an object was fetched twice"
        assert len(seen) - len(beside) <= 22, "\n".join(f"{r.method} {r.path}" for r in seen)


@pytest.mark.usefixtures("proxy")
def test_a_network_s_time_is_not_known(
    made: tuple[str, list[s3.Request]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So workers start, which wait for several blocks at once."""
    loads: list[Load] = []

    def seen(run: RunConfig, load: Load) -> str:
        loads.append(load)
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster, "choose", seen)
    with pytest.raises(KeyboardInterrupt):
        embed(f"{made[0]}/oc.zarr", EMBED, "other", run=RunConfig())
    assert loads[0].blocks == 3
    assert not loads[0].is_small


def test_a_notebook_s_running_loop_is_no_hindrance(bucket: str) -> None:
    local = RunConfig(cluster="local", workers=1, dashboard=":0")

    async def cell() -> list[Finding]:
        config = IngestConfig(shard_fovs=SHARD)
        source = f"{bucket}/microscopy/raw"
        assert ingest(source, f"{bucket}/oc.zarr", config, run=local).exit_code == 0
        return verify(f"{bucket}/oc.zarr", deep=True, run=local)

    (found,) = asyncio.run(cell())
    assert (found.blocks, found.undone, found.faults) == (3, 0, 0)


# --- when it misbehaves -------------------------------------------------------------------------


def _one_line(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and last line of a command."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return int(end.value.code or 0), lines[0]


def test_bursts_and_broken_answers_leave_no_hole(bucket: str, proxy: Proxy, tmp_path: Path) -> None:
    """Every fifth request is refused, cut off, dropped or slow: the same store all the same."""
    store, proxy.slow_s = f"{bucket}/oc.zarr", 0.1
    turn = itertools.cycle([503, None, None, "slow", None, 500, None, "cut", None, "drop", None])
    proxy.spoil = lambda method, path: next(turn)
    assert _ingest(bucket, store) == 0
    proxy.spoil = lambda method, path: None
    spoilt = {one.status for one in proxy.count()}
    assert {0, 500, 503} <= spoilt
    assert not any(found.faults or found.undone for found in verify(store, deep=True))
    assert not [
        e for group in info(store, errors=True)["groups"].values() for e in group["rows"]["errors"]
    ]


def test_a_listing_that_breaks_off_goes_on(bucket: str, proxy: Proxy) -> None:
    whole = [file.uri for file in walk(f"{bucket}/microscopy/raw")]
    turn = itertools.count()
    proxy.spoil = lambda method, path: (
        "cut" if "list-type=2" in path and next(turn) % 2 == 0 else None
    )
    assert [file.uri for file in walk(f"{bucket}/microscopy/raw")] == whole
    assert next(turn) > 1


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two retries instead of minutes."""
    monkeypatch.setitem(remote.RETRY, "max_retries", 1)
    monkeypatch.setattr(retry, "PATIENCE_S", 0.5)
    monkeypatch.setattr(retry, "HASTE_S", 0.5)
    s3.forget()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("answer", "words"), [(500, "answers 500"), (503, "answers 503"), ("cut", "broke off")]
)
def test_a_source_that_stays_away_fails_the_run_and_no_field(
    bucket: str, proxy: Proxy, answer: int | str, words: str
) -> None:
    store = f"{bucket}/oc.zarr"
    heads = itertools.count()
    bad = "FID00000003"

    def spoil(method: str, path: str) -> int | str | None:
        # Its header may be read, its pixels not.
        return answer if bad in path and next(heads) > 0 else None  # type: ignore[return-value]

    proxy.spoil = spoil
    summary = ingest(f"{bucket}/microscopy/raw", store, IngestConfig(shard_fovs=SHARD), run=SERIAL)
    assert summary.exit_code == 1
    assert len(summary.failures) == 1
    assert words in summary.failures[0]
    proxy.spoil = lambda method, path: None
    assert _ingest(bucket, store) == 0
    assert info(store)["groups"]["fovs"]["rows"] == {"total": FOVS, "failed": 0, "pending": 0}


@pytest.mark.usefixtures("impatient")
def test_an_answer_that_fails_is_never_taken_for_damage(bucket: str, proxy: Proxy) -> None:
    store = f"{bucket}/oc.zarr"
    _ingest(bucket, store)
    proxy.spoil = lambda method, path: 503 if "/c/" in path or "/c." in path else None
    with pytest.raises(RemoteError, match="answers 503"):
        verify(store, deep=True, repair=True)
    proxy.spoil = lambda method, path: None
    assert not any(found.faults or found.undone for found in verify(store, deep=True))


@pytest.mark.usefixtures("impatient")
def test_what_is_wrong_is_one_line(
    bucket: str, proxy: Proxy, server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, store = f"{bucket}/microscopy/raw", f"{bucket}/oc.zarr"
    code, line = _one_line(capsys, "info", "s3://no-such-bucket/oc.zarr")
    assert (code, "no bucket 'no-such-bucket'" in line) == (2, True), line
    code, line = _one_line(capsys, "ingest", "s3://no-such-bucket/raw", str(tmp_path / "s"))
    assert (code, "no bucket 'no-such-bucket'" in line) == (2, True), line
    code, line = _one_line(capsys, "info", store)
    assert (code, f"`zarrloc ingest SOURCE {store}`" in line) == (2, True), line
    code, line = _one_line(capsys, "info", "s4://bucket/oc.zarr")
    assert (code, "s3://BUCKET/PREFIX" in line) == (2, True), line
    proxy.spoil = lambda method, path: 403
    proxy.count()
    for command in (("info", store), ("ingest", source, str(tmp_path / "s"))):
        code, line = _one_line(capsys, *command)
        assert (code, "access denied" in line, "AWS_ACCESS_KEY_ID" in line) == (2, True, True), line
    assert len(proxy.count()) < 5
    # The listing is open, no object is: a few are asked for, not all.
    proxy.spoil = lambda method, path: 403 if "FID" in path and "list-type" not in path else None
    code, line = _one_line(capsys, "ingest", source, str(tmp_path / "s"))
    assert (code, "none of the 5 images can be read" in line) == (2, True), line
    proxy.spoil = lambda method, path: 500
    code, line = _one_line(capsys, "info", store)
    assert (code, "answers 500" in line) == (1, True), line
    proxy.spoil = lambda method, path: "drop"
    code, line = _one_line(capsys, "info", store)
    assert code == 1, line
    with s3.environment(server, AWS_ALLOW_HTTP="false"):
        code, line = _one_line(capsys, "info", store)
        assert (code, "AWS_ALLOW_HTTP=true" in line) == (2, True), line
    with s3.environment(f"http://127.0.0.1:{s3.free_port()}"):
        begin = time.monotonic()
        code, line = _one_line(capsys, "info", store)
        assert (code, "no object store answers at" in line) == (2, True), line
        assert time.monotonic() - begin < 2
    assert not (tmp_path / "s").exists()


# --- two runs, and killed ones ------------------------------------------------------------------

RUN = """
import sys, time
from zarrloc_cli.main import main
from zarrloc.engine import block
write_rows = block.write_rows
def slowly(*arguments):
    result = write_rows(*arguments)
    print("written", flush=True)
    time.sleep(float(sys.argv[1]))
    return result
block.write_rows = slowly
main(sys.argv[2:])
"""


def _started(pause: float, bucket: str) -> "subprocess.Popen[str]":
    """Ingesting in another process, which says when a block is written and then waits."""
    ingest_it = ["ingest", f"{bucket}/microscopy/raw", f"{bucket}/oc.zarr"]
    settings = ["--shard-fovs", str(SHARD), "--cluster", "serial"]
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(pause), *ingest_it, *settings],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_second_run_is_refused_and_a_killed_one_continues(
    bucket: str, proxy: Proxy, capsys: pytest.CaptureFixture[str]
) -> None:
    store = f"{bucket}/oc.zarr"
    with _started(60, bucket) as other:
        assert other.stdout is not None
        assert any(line == "written\n" for line in other.stdout)
        code, line = _one_line(capsys, "ingest", f"{bucket}/microscopy/raw", store)
        assert (code, f"pid {other.pid}" in line) == (4, True), line
        other.send_signal(signal.SIGKILL)
    assert _ingest(bucket, store) == 0
    assert not any(found.faults or found.undone for found in verify(store, deep=True))


def test_of_two_runs_begun_at_once_one_does_the_work(bucket: str) -> None:
    with _started(0, bucket) as one, _started(0, bucket) as two:
        outputs = [one.communicate()[0], two.communicate()[0]]
    codes = {one.returncode, two.returncode}
    # Both may finish where the second came late enough to find all done.
    assert codes in ({0, 4}, {0}), outputs
    assert not any(found.faults or found.undone for found in verify(f"{bucket}/oc.zarr", deep=True))
