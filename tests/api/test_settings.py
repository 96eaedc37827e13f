import doctest
from pathlib import Path

import pytest

import zarrloc
from tests.labelled_store import make_store
from zarrloc.api import settings
from zarrloc.api.settings import of_arguments
from zarrloc.errors import ConfigError


@pytest.mark.parametrize(
    ("flags", "arguments"),
    [("pass --overwrite to replace it, or another --name",
      "pass overwrite to replace it, or another name"),
     ("--level cell needs --cells NAME", "level cell needs cells NAME"),
     ("give --pixel-size-um 0.2; `zarrloc annotate STORE --pixel-size-um 0.2`",
      "give pixel_size_um 0.2; `zarrloc annotate STORE --pixel-size-um 0.2`"),
     ("--from scratch; --labels CSV", "start scratch; labels CSV"),
     ("a - b -- c", "a - b -- c")],
)  # fmt: skip
def test_flags_become_arguments_outside_commands(flags: str, arguments: str) -> None:
    assert of_arguments(flags) == arguments


def test_python_speaks_of_arguments(tmp_path: Path) -> None:
    store = make_store(tmp_path / "oc.zarr", proteins=8, fields=2)
    zarrloc.split(store, name="a", folds=2)
    with pytest.raises(ConfigError, match="pass overwrite to replace it, or another name"):
        zarrloc.split(store, name="a", folds=3)
    with pytest.raises(ConfigError, match="give either head NAME"):
        zarrloc.evaluate(store)


def test_its_examples_run() -> None:
    assert doctest.testmod(settings).failed == 0
