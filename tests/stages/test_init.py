import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from zarrloc_cli.main import zarrloc

from tests import plate_files
from tests.image_files import pixels, write
from tests.objects import opened
from tests.plate_files import VENDORS
from zarrloc.config.ingest import IngestConfig
from zarrloc.errors import ChannelError, ConfigError, SourceError
from zarrloc.simulate import simulate_fov
from zarrloc.stages.init import init


def _verbs(commands: tuple[str, ...]) -> list[str]:
    return [shlex.split(one)[1] for one in commands if not one.startswith("#")]


def test_a_plate_becomes_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    VENDORS["MetaXpress"](tmp_path / "my plate", 3)
    monkeypatch.chdir(tmp_path)
    made = init("my plate", store="p.zarr")
    assert made.commands[0] == "zarrloc ingest 'my plate' p.zarr --project max"
    assert _verbs(made.commands) == ["ingest", "embed", "segment", "preview", "embed", "report"]
    assert any("z stacks: --project max is written" in line for line in made.lines())
    text = Path("zarrloc.sh").read_text()
    assert text.startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", "zarrloc.sh"], check=True)
    assert [line for line in text.splitlines() if line.startswith("run ingest")]
    with pytest.raises(ConfigError, match=r"zarrloc\.sh is there; pass --overwrite"):
        init("my plate")
    init("my plate", overwrite=True)


def test_the_script_goes_on_where_some_items_failed(tmp_path: Path) -> None:
    VENDORS["stains"](tmp_path / "plate", 1)
    init(tmp_path / "plate", script=tmp_path / "zarrloc.sh")
    fake = tmp_path / "bin" / "zarrloc"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\necho "$1" >> "$LOG"\nexit $CODE\n')
    fake.chmod(0o755)
    for code, ran in (("0", 6), ("3", 6), ("2", 1), ("1", 1)):
        log = tmp_path / f"log{code}"
        env = {"PATH": f"{fake.parent}:/usr/bin:/bin", "LOG": str(log), "CODE": code}
        done = subprocess.run(["sh", tmp_path / "zarrloc.sh"], env=env, capture_output=True)
        assert (done.returncode == 0) == (ran == 6)
        assert len(log.read_text().splitlines()) == ran


def test_roles_that_are_unknown_get_no_cells(tmp_path: Path) -> None:
    VENDORS["CellVoyager"](tmp_path / "plate", 1)
    script = tmp_path / "run.sh"
    made = init(tmp_path / "plate", script=script)
    assert _verbs(made.commands) == ["ingest", "embed", "report"]
    assert "--channels replicate" in made.commands[1]
    assert any("called nucleus" in one for one in made.commands)
    given = IngestConfig(channels=("C01=nucleus", "C02=actin"))
    made = init(tmp_path / "plate", given, script=script, overwrite=True)
    assert "--channels C01=nucleus,C02=actin" in made.commands[0]
    assert any("segment" in one and "--grow none" in one for one in made.commands)


def test_a_table_beside_the_images_is_found_and_others_are_not(tmp_path: Path) -> None:
    VENDORS["Opera Phenix"](tmp_path / "plate", 1)
    (tmp_path / "plate/other.csv").write_text("a,b\n1,2\n")
    wells = tmp_path / "plate/wells.csv"
    wells.write_text("well,label\nB02,er\nC11,golgi\n")
    made = init(tmp_path / "plate", script=tmp_path / "b.sh")
    assert [table.path for table in made.said] == [wells]
    assert made.commands[0].endswith(f"--labels {wells}")
    assert _verbs(made.commands)[-4:] == ["split", "train", "evaluate", "report"]
    wells.write_text("well,dose,condition\nB02,1,drug\nC11,2,none\n")
    made = init(tmp_path / "plate", script=tmp_path / "a.sh")
    assert made.commands[0].endswith(f"--conditions {wells}")
    assert any("wells.csv: dose, condition of fields by well" in line for line in made.lines())
    assert "train" not in _verbs(made.commands)  # four fields are too few
    (tmp_path / "wrong.csv").write_text("well,label\nH12,er\n")
    with pytest.raises(SourceError, match="matches any of 4 fields"):
        init(tmp_path / "plate", script=tmp_path / "c.sh", labels=tmp_path / "wrong.csv")
    assert not (tmp_path / "c.sh").exists()


def test_what_an_experiment_is_about_is_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wells = [f"{row}{column:02}" for row in "BC" for column in range(2, 8)]
    monkeypatch.setattr(plate_files, "WELLS", wells)
    VENDORS["stains"](tmp_path / "plate", 1)
    rows = [f"{well},{column % 2},{well[0]}" for column, well in enumerate(wells)]
    (tmp_path / "plate/wells.csv").write_text("\n".join(["well,batch,treatment", *rows]))
    made = init(tmp_path / "plate", script=tmp_path / "a.sh")
    assert [one for one in made.commands if "train" in one] == [
        "zarrloc train my.zarr --embedding fields --split folds --target treatment --name head"
    ]
    assert made.commands[-1] == "zarrloc report my.zarr --target treatment --out report.html"


def test_small_fields_are_not_blown_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for side, size in ((32, "native"), (448, "native"), (449, "448")):
        image = np.zeros((1, 2, 16, side), np.uint16)
        monkeypatch.setattr(plate_files, "pixels_of", lambda *a, image=image: image)
        VENDORS["stains"](tmp_path / str(side), 1)
        made = init(tmp_path / str(side), script=tmp_path / f"{side}.sh")
        assert f"--size {size} " in made.commands[1]


def test_a_table_of_numbers_is_named(tmp_path: Path) -> None:
    VENDORS["Human Protein Atlas"](tmp_path / "hpa", 1)
    (tmp_path / "hpa/train.csv").write_text("Id,Target\n17_B02_1,16 0\n17_B02_2,0\n")
    made = init(tmp_path / "hpa", script=tmp_path / "a.sh")
    assert any("--label-names says what they stand for" in line for line in made.lines())
    made = init(tmp_path / "hpa", script=tmp_path / "b.sh", label_names="hpa-2018")
    assert made.commands[0].endswith("train.csv --label-names hpa-2018")
    (tmp_path / "hpa/train.csv").unlink()
    with pytest.raises(ConfigError, match="give --labels, too"):
        init(tmp_path / "hpa", script=tmp_path / "c.sh", label_names="hpa-2018")


def test_what_cannot_be_understood_writes_nothing(tmp_path: Path) -> None:
    write(tmp_path / "raw/a.tif", pixels(0))
    script = tmp_path / "run.sh"
    with pytest.raises(ChannelError, match=r"do not name their channels \(2 channels a file\)"):
        init(tmp_path / "raw", script=script)
    assert not script.exists()


def _simulated(well: str, site: int, planes: int = 1, seed: int = 0) -> plate_files.Plane:
    fov = simulate_fov({"er": 3}, shape=(160, 160), seed=100 * ord(well[0]) + site)
    return np.stack([fov.image // (1 + z) for z in range(planes)])


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "vendor",
    [
        "MetaXpress",
        *(pytest.param(v, marks=pytest.mark.slow) for v in VENDORS if v != "MetaXpress"),
    ],
)
def test_a_plate_goes_from_folder_to_report_by_the_commands_of_init(
    vendor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zarrloc.models import weights

    obtain = weights.obtain
    monkeypatch.setattr(weights, "obtain", lambda name, given: obtain(name, given or "random:0"))
    monkeypatch.setattr(plate_files, "pixels_of", _simulated)
    wells = [f"{row}{column:02}" for row in "BC" for column in range(2, 7)]
    monkeypatch.setattr(plate_files, "WELLS", wells)
    monkeypatch.setattr(plate_files, "SITES", 1)
    monkeypatch.chdir(tmp_path)
    VENDORS[vendor](tmp_path / "plate", 1 if "Atlas" in vendor else 2)
    rows = [f"{well},{'drug' if well[0] == 'B' else 'none'}" for well in wells]
    Path("plate/wells.csv").write_text("\n".join(["well,condition", *rows]))
    given = {"CellVoyager": "C01=nucleus,C02=protein"}.get(vendor)
    channels = ["--channels", given] if given else []
    assert zarrloc.main(["init", "plate", *channels], standalone_mode=False) == 0
    lines = [one for one in Path("zarrloc.sh").read_text().splitlines() if one.startswith("run ")]
    for line in lines:
        words = shlex.split(line)[1:]
        if words[0] in ("ingest", "embed", "segment"):
            words += ["--cluster", "serial"]
        quick = {"embed": "--size 64", "train": "--epochs 5", "report": "--bootstrap 20"}
        words += quick.get(words[0], "").split()
        assert zarrloc.main(words, standalone_mode=False) in (None, 0), line
    fovs = opened(tmp_path / "my.zarr", "fovs").load()
    conditions = dict(zip(fovs["well"].values, fovs["condition"].values, strict=True))
    assert conditions == {well: "drug" if well[0] == "B" else "none" for well in wells}
    cells = opened(tmp_path / "my.zarr", "embeddings/cells").load()
    assert np.isfinite(cells["embedding"]).any()
    assert "drug" in Path("report.html").read_text()
    assert (tmp_path / "my.zarr/heads/head").is_dir()
