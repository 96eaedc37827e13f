"""Every stage against a real S3 server: as on a disk, and what happens when it misbehaves."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from zarrloc_cli.main import main

from tests import s3
from tests.s3 import Proxy
from tests.stages.conftest import FOVS, SERIAL, SHARD, bright_spots
from zarrloc.config.embed import EmbedConfig
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.segment import SegmentConfig
from zarrloc.engine.verify import verify
from zarrloc.errors import RemoteError, SourceError, StoreError
from zarrloc.stages.embed import embed
from zarrloc.stages.ingest import ingest
from zarrloc.stages.segment import segment
from zarrloc.store import remote
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


@pytest.fixture
def bucket(server: str, proxy: Proxy, raw: Path) -> str:
    """A bucket laid out like OpenCell's, of simulated TIFFs."""
    name = f"bucket-{next(BUCKETS)}"
    s3.make_bucket(server, name)
    store = object_store(f"s3://{name}")
    for file in sorted(raw.rglob("*.tif")):
        store.put(f"microscopy/raw/{file.relative_to(raw).as_posix()}", file.read_bytes())
    proxy.count()
    return f"s3://{name}"


def _make_all(source: str | Path, store: str | Path) -> None:
    ingest(source, store, IngestConfig(shard_fovs=SHARD), run=SERIAL, quiet=True)
    segment(store, SEGMENT, "own", function=bright_spots, run=SERIAL, quiet=True)
    embed(store, EMBED, "e", run=SERIAL, quiet=True)


def _ingest(bucket: str, store: str) -> int:
    source = f"{bucket}/microscopy/raw"
    return ingest(source, store, IngestConfig(shard_fovs=SHARD), run=SERIAL, quiet=True).exit_code


def test_every_stage_is_as_on_a_disk(bucket: str, raw: Path, tmp_path: Path) -> None:
    there, here = f"{bucket}/oc.zarr", tmp_path / "oc.zarr"
    _make_all(f"{bucket}/microscopy/raw", there)
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
    logs = [key for key in object_store(f"{there}.runs").list().collect()]
    assert sum(str(one["path"]).endswith(".jsonl") for one in logs) == 4
    assert not [one for one in logs if str(one["path"]).endswith(".lock")]


def test_what_is_done_costs_few_requests_and_no_write(bucket: str, proxy: Proxy) -> None:
    store = f"{bucket}/oc.zarr"
    _make_all(f"{bucket}/microscopy/raw", store)
    made = proxy.count()
    assert not [one for one in made if one.path.endswith((".zgroup", ".zattrs", ".zarray"))]
    for again in (
        lambda: _ingest(bucket, store),
        lambda: embed(store, EMBED, "e", run=SERIAL, quiet=True),
        lambda: info(store),
    ):
        again()
        seen = proxy.count()
        beside = [one for one in seen if one.lists and "microscopy" in one.path]
        gets = [one.path for one in seen if not one.lists]
        assert not [one for one in seen if one.writes]
        assert len(set(gets)) == len(gets), "an object was fetched twice"
        assert len(seen) - len(beside) <= 20, "\n".join(f"{r.method} {r.path}" for r in seen)
    print(len(made))
