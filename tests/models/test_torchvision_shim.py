import importlib
from collections.abc import Callable

import pytest
import torch

from zarrloc.models import torchvision_shim

MISSING = RuntimeError("operator torchvision::nms does not exist")


def importer(*outcomes: Exception | None) -> Callable[[str], None]:
    """An `import_module` that fails or succeeds as `outcomes` say, call by call."""
    script = iter(outcomes)

    def import_module(name: str) -> None:
        outcome = next(script)
        if outcome:
            raise outcome

    return import_module


def test_torchvision_imports_here() -> None:
    assert importlib.import_module("torchvision").__version__


def test_a_torchvision_that_loads_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", importer(None))
    assert torchvision_shim._import_torchvision() is None


def test_missing_operators_are_declared_and_the_import_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    declared: list[str] = []

    class Library:
        def __init__(self, name: str, kind: str) -> None:
            assert (name, kind) == ("torchvision", "FRAGMENT")

        define = staticmethod(declared.append)

    monkeypatch.setattr(torch.library, "Library", Library)
    monkeypatch.setattr(importlib, "import_module", importer(MISSING, None))
    assert isinstance(torchvision_shim._import_torchvision(), Library)
    assert [schema.split("(")[0] for schema in declared] == ["nms", "qnms"]


def test_another_failure_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib, "import_module", importer(RuntimeError("no driver")))
    with pytest.raises(RuntimeError, match="no driver"):
        torchvision_shim._import_torchvision()
