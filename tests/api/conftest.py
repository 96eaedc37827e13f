"""A working folder with ten simulated fields and the tables that go with them."""

import shutil
from pathlib import Path

import pytest

from zarrloc.config.simulate import SimulateConfig
from zarrloc.simulate import simulate


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`images/` and `labels.csv` of ten fields, each of a protein of its own."""
    folder = tmp_path_factory.mktemp("work")
    simulate(folder / "data", SimulateConfig(proteins=10, fovs_per_protein=1, size=96, workers=1))
    shutil.copytree(folder / "data" / "raw", folder / "images")
    names = sorted(file.name for file in (folder / "images").iterdir())
    rows = [f"{name},{('er', 'golgi')[at % 2]},A" for at, name in enumerate(names)]
    (folder / "labels.csv").write_text("\n".join(["path,label,plate", *rows]))
    return folder
