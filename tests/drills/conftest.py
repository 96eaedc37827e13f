"""What the drills share: made once a process, since it takes seconds."""

import pytest

from tests.drills.works import Works


@pytest.fixture(scope="session")
def works(tmp_path_factory: pytest.TempPathFactory) -> Works:
    """Every way to change a store."""
    return Works(tmp_path_factory.mktemp("works"))
