from pathlib import Path

import pytest
from zarrloc_cli.main import main

from zarrloc.models import backbones
from zarrloc.models.specs import SPECS
from zarrloc.segmenters import cellpose
from zarrloc.stages import weights


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZARRLOC_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.delenv("CELLPOSE_LOCAL_MODELS_PATH", raising=False)
    return tmp_path / "weights"


def _call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["weights", *arguments])
    return int(end.value.code or 0)


def test_every_backbone_and_cellpose_model_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    listed = {one.name: one for one in weights.listed()}
    assert listed.keys() >= {*SPECS, *cellpose.PUBLISHED, "cpsam"}
    for one in listed.values():
        assert one.licence
        assert one.citation
        assert one.files or "on request" in one.note
    for name, published in cellpose.PUBLISHED.items():
        assert [file.name for file in listed[name].files] == [published.weights, published.size]
    names = [path for one in listed.values() for path in one.paths]
    assert len(set(names)) == len(names), "two files would lie at one path"
    assert _call("list") == 0
    assert "subcell-mae" in capsys.readouterr().out


def test_weights_come_from_a_folder_and_are_found_by_the_backbone(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    usb = tmp_path / "usb"
    usb.mkdir()
    state = backbones.load("dino-vits16", "random:3").vit.state_dict()
    torch.save(state, usb / "dino_deitsmall16_pretrain.pth")
    assert _call("fetch", "dino-vits16", "--from", str(usb)) == 0
    there = folder / "dino_deitsmall16_pretrain.pth"
    assert capsys.readouterr().out.strip() == str(there)
    assert _call("path", "dino-vits16") == 0
    assert capsys.readouterr().out.strip() == str(there)
    loaded = backbones.load("dino-vits16")
    assert loaded.weights_hash == backbones.load("dino-vits16", "random:3").weights_hash
    assert _call("verify") == 0
    assert "is whole" in capsys.readouterr().out
    there.write_bytes(there.read_bytes()[:-1])
    assert _call("verify") == 3
    assert "has the checksum" in capsys.readouterr().out


def test_what_cannot_be_had_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _call("fetch", "dino-vits99") == 2
    assert "unknown weights dino-vits99; expected some of dino-vits16" in capsys.readouterr().err
    assert _call("fetch", "cell-dino-hpa") == 2
    assert "given out on request, at https://ai.meta.com" in capsys.readouterr().err
    (tmp_path / "usb").mkdir()
    assert _call("fetch", "cyto3", "--from", str(tmp_path / "usb")) == 2
    assert "there is no" in capsys.readouterr().err
    assert _call("verify") == 0
