"""Checkpoints: whole, few, and the older one where the newest is damaged."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from zarrloc.errors import WeightsError
from zarrloc.pretraining import checkpoint

CPU = torch.device("cpu")


class Payload:
    """Unpickling it makes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Steps 5, 10 and 15, of which the last two are kept."""
    for step in (5, 10, 15):
        checkpoint.save(tmp_path, step, {"step": step, "w": torch.full((300,), step)}, keep=2)
    (tmp_path / "step-00000020.partial").write_bytes(b"half")
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_checkpoints_are_whole_and_few(saved: Path) -> None:
    """The last two are kept and read back; a half-written one is not seen."""
    assert [path.stem for path in checkpoint.every(saved)] == ["step-00000010", "step-00000015"]
    found = checkpoint.newest(saved, CPU, print)
    assert found is not None
    assert found["step"] == 15
    assert found["w"].tolist() == [15] * 300
    assert checkpoint.newest(saved / "none", CPU, print) is None


def test_a_checkpoint_has_its_folder_made(tmp_path: Path) -> None:
    """Wherever the run lies; steps of any length come in their order."""
    folder = tmp_path / "runs" / "ft" / "checkpoints"
    for step in (9, 10, 12_345_678):
        path = checkpoint.save(folder, step, {"step": step}, keep=3)
        assert path == checkpoint.path_of(folder, step)
    assert [checkpoint.load(one, CPU)["step"] for one in checkpoint.every(folder)] == [
        *(9, 10, 12_345_678)
    ]


@pytest.mark.parametrize("content", [["step"], {"weights": 1}], ids=["a list", "no step"])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: Any) -> None:
    """Though torch can read it."""
    torch.save(content, tmp_path / "step-00000001.pt")
    with pytest.raises(WeightsError, match="is no checkpoint of `zarrloc pretrain`"):
        checkpoint.load(tmp_path / "step-00000001.pt", CPU)


def damage(path: Path, how: str) -> None:
    whole = path.read_bytes()
    if how == "flipped":  # one bit of a weight, which torch.load would take as it is
        middle = whole.index(torch.full((300,), 15).numpy().tobytes()) + 1200
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 64]) + whole[middle + 1 :])
    elif how == "another file":
        torch.save({"w": torch.zeros(3)}, path)
    else:
        path.write_bytes(whole[: {"empty": 0, "cut off": 2 * len(whole) // 3}[how]])


@pytest.mark.parametrize("how", ["empty", "cut off", "flipped", "another file"])
def test_a_damaged_newest_gives_way_to_the_older(saved: Path, how: str) -> None:
    """It is named, set aside and not counted among those that are kept."""
    damage(saved / "step-00000015.pt", how)
    said: list[str] = []
    found = checkpoint.newest(saved, CPU, said.append)
    assert found is not None
    assert found["step"] == 10
    assert "step-00000015.pt is" in said[0]
    assert "continuing from step-00000010.pt" in said[0]
    checkpoint.save(saved, 12, {"step": 12}, keep=1)
    assert names(saved) == ["step-00000012.pt", "step-00000015.broken", "step-00000020.partial"]


def test_where_none_can_be_read_nothing_is_deleted(saved: Path) -> None:
    """An error that names the newest."""
    before = names(saved)
    for path in checkpoint.every(saved):
        damage(path, "cut off")
    with pytest.raises(WeightsError, match=r"none of the 2 .*step-00000015\.pt is empty, cut off"):
        checkpoint.newest(saved, CPU, print)
    assert names(saved) == before


@pytest.mark.parametrize("how", ["torch.save", "pickle", "inside the archive"])
def test_pickled_code_is_refused_and_not_executed(saved: Path, tmp_path: Path, how: str) -> None:
    """In a checkpoint's own form and as a plain pickle; the older one is taken."""
    trace, path = tmp_path / "executed", saved / "step-00000015.pt"
    if how == "torch.save":
        torch.save({"step": 15, "w": Payload(trace)}, path)
    elif how == "pickle":
        path.write_bytes(pickle.dumps(Payload(trace)))
    else:
        archive = io.BytesIO()
        with zipfile.ZipFile(path) as whole, zipfile.ZipFile(archive, "w") as changed:
            for name in whole.namelist():
                hostile = name.endswith("data.pkl")
                content = pickle.dumps(Payload(trace), 2) if hostile else whole.read(name)
                changed.writestr(name, content)
        path.write_bytes(archive.getvalue())
    said: list[str] = []
    found = checkpoint.newest(saved, CPU, said.append)
    assert found is not None
    assert found["step"] == 10
    assert len(said) == 1
    assert not trace.exists()
