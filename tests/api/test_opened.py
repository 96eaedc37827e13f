from pathlib import Path

import numpy as np
import pytest

import zarrloc
from tests.labelled_store import add_cells, make_store
from tests.stores import make_store as make_images
from zarrloc.api import opened
from zarrloc.errors import ConfigError, StoreError


@pytest.fixture
def store(tmp_path: Path) -> zarrloc.Store:
    path = make_store(tmp_path / "oc.zarr", proteins=8, fields=5)
    add_cells(path)
    zarrloc.split(path, name="halves", folds=2)
    return zarrloc.open(path)


def test_it_knows_its_groups(store: zarrloc.Store) -> None:
    assert store.groups == [
        "fovs", "cells/cp", "embeddings/cells", "embeddings/noise", "embeddings/planted",
        "splits/halves",
    ]  # fmt: skip
    assert store.embeddings == ["cells", "noise", "planted"]
    assert (store.segmentations, store.splits, store.heads) == ([], ["halves"], [])
    assert "embeddings/noise" in store
    assert list(store) == store.groups


def test_chunks_suit_and_agree(store: zarrloc.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.fovs.image.chunks is not None
    assert store.fovs.chunks["fov"] == (40,)
    monkeypatch.setattr(opened, "CHUNK_BYTES", 1)
    assert store.embedding("planted").chunks["fov"] == (2,) * 20  # its shards
    assert store["fovs"].protein.chunks is None
    mean = store.embedding("planted").embedding.mean("feature").compute()
    assert mean.shape == (40,)
    assert store.cells("cp").sizes["cell"] == 120
    assert set(np.unique(store.split("halves").fold)) == {0, 1}


def test_it_says_what_it_holds(store: zarrloc.Store) -> None:
    said = repr(store)
    assert "fovs" in said
    assert "40 fov x 2 channel x 12 y x 12 x; channels nucleus, protein; labels chromatin" in said
    assert "40 fov x 4 feature; of planted" in said
    shown = store._repr_html_()
    assert shown.count("<img src='data:image/png;base64,") == opened.THUMBNAILS
    assert "embeddings/planted" in shown


def test_crops_come_from_it(tmp_path: Path) -> None:
    store = zarrloc.open(make_images(tmp_path / "oc.zarr"))
    crops = store.crops("cp", size=32)
    assert tuple(crops[0].shape) == (2, 32, 32)
    assert len(crops) == 10
    assert store.masks("cp")["mask"].sizes["fov"] == 3


def test_absent_groups_are_named(store: zarrloc.Store) -> None:
    with pytest.raises(StoreError, match=r"no 'embeddings/x' .* the store has embeddings/cells"):
        store.embedding("x")
    with pytest.raises(ConfigError, match="no group 'odd/x'; the store has fovs"):
        store.group("odd/x")
