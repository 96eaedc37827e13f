"""Fixtures of the whole suite."""

import os
from collections.abc import Callable
from pathlib import Path

# One compute thread a process: tests share two cores with the workers they start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture
def shared() -> Callable[..., Path]:
    """`shared("opencell")` is a path in the data beside the checkout; absent data skips."""

    def locate(*parts: str) -> Path:
        path = SHARED.joinpath(*parts)
        if not path.exists():
            pytest.skip(f"needs ../shared/{'/'.join(parts)}, which is not beside this checkout")
        return path

    return locate
