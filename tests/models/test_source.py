"""Weights that are not there are refused by a look at the disk."""

from pathlib import Path

import pytest

from zarrloc.errors import WeightsError
from zarrloc.models.source import FILE, file_of, refuse_absent, seed_of


def test_seeds_files_and_directories(tmp_path: Path) -> None:
    (tmp_path / FILE).touch()
    assert seed_of("random:7") == 7
    assert file_of(tmp_path) == file_of(tmp_path / FILE) == tmp_path / FILE
    for fine in (None, "random:0", str(tmp_path)):
        refuse_absent(fine)


@pytest.mark.parametrize("weights", ["random:", "random:-1", "random:x", "nowhere.pth", ""])
def test_what_is_not_there_is_refused(weights: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="--weights"):
        refuse_absent(weights if ":" in weights else str(tmp_path / weights))
