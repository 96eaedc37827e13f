"""What the drills share, made once a process, since it takes seconds; and their results."""

from pathlib import Path
from typing import Any

import pytest

from tests.drills.pipeline import make_store
from tests.drills.works import Works


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of every stage; copies are to lie beside it, where its images are."""
    return make_store(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="session")
def works(tmp_path_factory: pytest.TempPathFactory) -> Works:
    """Every way to change a store."""
    return Works(tmp_path_factory.mktemp("works"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """A row a drill: tried, held, lost."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    rows = [
        line
        for report in reports
        for line in report.capstdout.splitlines()
        if ": tried " in line and ", lost " in line
    ]
    if rows:
        terminalreporter.section("drills")
        for row in rows:
            terminalreporter.write_line(row)
