"""A labelled store with cells, embeddings, a split and a head."""

from pathlib import Path

import pytest

from tests.labelled_store import add_cells, make_store
from zarrloc.config.split import SplitConfig
from zarrloc.config.train import TrainConfig
from zarrloc.stages.split import split
from zarrloc.stages.train import train


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 proteins of 5 fields; `cells/cp`, `embeddings/planted`, `embeddings/cells`, a head."""
    store = make_store(tmp_path_factory.mktemp("labelled") / "oc.zarr")
    add_cells(store)
    split(store, SplitConfig(folds=2), "honest")
    train(store, TrainConfig(embedding="planted", split="honest", epochs=5), "head")
    return store
