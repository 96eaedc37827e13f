import re
import subprocess
import sys
from importlib.metadata import version

import pytest

import zarrloc


def test_the_public_names_are_there_and_no_other() -> None:
    assert set(zarrloc.__all__) >= {"embed", "ingest", "info", "open_store", "verify"}
    assert dir(zarrloc) == zarrloc.__all__
    for name in set(zarrloc.__all__) - {"__version__"}:
        assert getattr(zarrloc, name).__name__ == name
        assert getattr(zarrloc, name).__doc__
    with pytest.raises(AttributeError, match="No zarrloc attribute nonsense"):
        _ = zarrloc.nonsense


def test_the_version_is_that_of_the_package() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", zarrloc.__version__)
    assert zarrloc.__version__ == version("zarrloc")


def test_importing_a_stage_does_not_hide_its_function() -> None:
    code = (
        "import zarrloc, zarrloc.stages.embed, zarrloc.stages.ingest, zarrloc.engine.verify\n"
        "assert all(callable(getattr(zarrloc, name)) for name in zarrloc.HOMES)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_zarrloc_costs_nothing() -> None:
    code = (
        "import sys, zarrloc\n"
        "heavy = {'torch', 'numpy', 'xarray', 'zarr', 'pydantic', 'distributed'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
