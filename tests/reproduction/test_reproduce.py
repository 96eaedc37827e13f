"""`reproduce` and `plan` on a small store: shared stages, what is missing, what goes on."""

import contextlib
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import xarray as xr
from click.testing import CliRunner
from zarrloc_cli.main import zarrloc as cli

from tests.image_files import write_opencell
from tests.stores import make_field
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.reproduce import StandInsConfig
from zarrloc.config.run import RunConfig
from zarrloc.config.segment import SegmentConfig
from zarrloc.errors import ConfigError, StoreError, WeightsError
from zarrloc.groups.fovs import Fovs
from zarrloc.groups.judgements import read_cells
from zarrloc.reproduction import reproduce as module
from zarrloc.reproduction.jobs import task_of
from zarrloc.reproduction.reproduce import plan, reproduce
from zarrloc.stages.ingest import ingest
from zarrloc.stages.label import label
from zarrloc.stages.segment import segment
from zarrloc.store.location import Location
from zarrloc.store.lock import hold

SERIAL = RunConfig(cluster="serial")
TINY = {
    "arch_options": ["patch_size=8", "depth=1", "embed_dim=24", "num_heads=3"],
    "size": 16, "local_size": 8, "local_views": 1, "batch": 4, "prototypes": 16,
    "head_hidden": 12, "bottleneck": 6, "guard_epochs": 0, "device": "cpu",
}  # fmt: skip
ROW = {"name": "random", "backbone": "timm:test_vit", "weights": "random:0"}
SCRATCH = {
    "name": "scratch", "backbone": "scratch", "arch": "vit_tiny_patch16",
    "finetune": {"epochs": 1}, "paper": {"macro_f1": [0.8, 0.01]},
}  # fmt: skip
TABLE: dict[str, Any] = {
    "title": "A table",
    "size": "32",
    "folds": 2,
    "test": 0.25,
    "head": {"epochs": 2, "hidden": [8], "batch": 16},
    "pretrain": TINY,
}


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reproduce")
    write_opencell(folder / "raw", 24, shape=(2, 32, 32))
    names = sorted(path.name for path in (folder / "raw").iterdir())
    rows = [f"{name},{('golgi', 'er')[i % 2]}" for i, name in enumerate(names)]
    (folder / "labels.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    config = IngestConfig(shard_fovs=8, pixel_size_um=0.2063)
    ingest(
        folder / "raw", folder / "s", config, labels=folder / "labels.csv", run=SERIAL,
    )  # fmt: skip
    return folder / "s"


@pytest.fixture
def store(ingested: Path, tmp_path: Path) -> Path:
    return shutil.copytree(ingested, tmp_path / "s")


def written(folder: Path, *rows: dict[str, Any], name: str = "t.yaml", **changes: Any) -> Path:
    file = folder / name
    file.write_text(json.dumps({**TABLE, "rows": list(rows), **changes}))
    return file


def run(file: Path, store: Path, **options: Any) -> tuple[int, dict[str, Any], list[str]]:
    said: list[str] = []
    code = reproduce(file, store, run=SERIAL, say=said.append, **options)
    out = Path(f"{store}.reproduce/tables/{file.stem}.json")
    return code, json.loads(out.read_text()), said


def done(said: list[str]) -> list[str]:
    """The stages that were gone through."""
    return [line.split()[0] for line in said if line.startswith("    ")]


def test_a_row_that_cannot_run_says_why_and_the_others_do(store: Path, tmp_path: Path) -> None:
    file = written(
        tmp_path,
        {**ROW, "name": "no file", "weights": "nowhere.pth", "paper": {"macro_f1": [0.9, 0.01]}},
        {**ROW, "name": "no role", "channels": "actin=1"},
        {**ROW, "paper": {"macro_f1": [0.1, 0.001]}},
        SCRATCH,
    )
    code, record, said = run(file, store)
    assert code == 3
    missing = {row["name"]: row["missing"] for row in record["rows"]}
    assert "nowhere.pth" in missing["no file"]
    assert "actin" in missing["no role"]
    assert missing["random"] == missing["scratch"] == ""
    for row in record["rows"][2:]:
        figure = row["measured"]["macro_f1"]
        assert len(figure["each"]) == 2
        assert figure["mean"] == pytest.approx(np.mean(figure["each"]))
    text = "\n".join(said)
    assert "could not run" in text
    table = (Path(f"{store}.reproduce") / "tables" / "t.md").read_text()
    assert table in text
    assert "differs" in table


def test_stages_are_shared_and_done_once(store: Path, tmp_path: Path) -> None:
    again = {**SCRATCH, "name": "the same under another name"}
    first = written(tmp_path, SCRATCH, again)
    code, record, said = run(first, store)
    assert code == 0
    assert done(said) == ["split", "pretrain", "embed", "train"]
    stages = record["stages"]
    assert [stage["kind"] for stage in stages] == done(said)
    assert all(0 < stage["planned"] < 3600 and stage["seconds"] > 0 for stage in stages)
    assert any(note.startswith("this run: 1 split in") for note in record["notes"])
    assert record["rows"][0]["measured"] == record["rows"][1]["measured"]
    trained = list(Path(f"{store}.reproduce/backbones").glob("*/backbone.json"))
    assert len(trained) == 1
    before = trained[0].stat().st_mtime_ns
    # Another file that wants the same: all of it is there.
    other = written(tmp_path, SCRATCH, name="other.yaml", part="validation", title="Another")
    assert all(": there" in line for line in plan(other, store) if line.startswith("embed"))
    assert "to do      0 of 4 stages" in "\n".join(plan(other, store))
    code, record, _ = run(other, store)
    assert code == 0
    assert record["stages"] == []
    assert trained[0].stat().st_mtime_ns == before
    assert len(list((store / "embeddings").iterdir())) - 1 <= 1


def test_a_killed_run_continues(store: Path, tmp_path: Path, monkeypatch) -> None:
    file = written(tmp_path, ROW, SCRATCH)

    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, "pretrain", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(file, store)
    text = "\n".join(plan(file, store))
    assert "to do      3 of 6 stages" in text
    assert run(file, store)[0] == 0


def test_a_stage_that_another_run_is_at_is_waited_for(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = contextlib.ExitStack()
    split, calls = module.split, []

    def contended(location: Location, config: Any, name: str) -> Any:
        if not calls:
            other.enter_context(hold(location, f"splits/{name}", "another table's"))
        calls.append(name)
        return split(location, config, name)

    monkeypatch.setattr(module, "split", contended)
    monkeypatch.setattr(module.time, "sleep", lambda seconds: other.close())
    code, found, said = run(written(tmp_path, ROW), store)
    assert code == 0, found
    assert len(calls) == 2
    assert len([line for line in said if "waiting: " in line and calls[0] in line]) == 1


def test_the_plan_is_made_before_anything(store: Path, tmp_path: Path) -> None:
    file = written(tmp_path, ROW, {**SCRATCH, "backbone": "dino-vits8", "arch": None})
    text = "\n".join(plan(file, store))
    assert "GFLOP/s measured" in text
    assert "GPU-hours" in text
    assert "to do      6 of 6 stages for 2 rows" in text
    assert "to fetch   https://dl.fbaipublicfiles.com" in text
    assert {path.name for path in store.iterdir()} >= {"fovs", "zarr.json"}
    assert not (store / "splits").exists()
    assert not Path(f"{store}.reproduce").exists()


def test_what_would_take_too_long_is_left_out(store: Path, tmp_path: Path) -> None:
    file = written(tmp_path, SCRATCH, ROW)
    code, record, _ = run(file, store, max_hours=0)
    assert code == 3
    assert all("more than --max-hours 0" in row["missing"] for row in record["rows"])
    assert "left out" in "\n".join(plan(file, store, max_hours=0))


def test_weights_that_cannot_be_had_are_asked_for_once(
    store: Path, tmp_path: Path, monkeypatch
) -> None:
    asked: list[str] = []

    def embed(store: Any, config: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(config.backbone)
        raise WeightsError("no network")

    monkeypatch.setattr(module, "embed", embed)
    monkeypatch.setenv("ZARRLOC_WEIGHTS", str(tmp_path / "empty"))
    rows = [
        {"name": channels, "backbone": "dino-vits16", "channels": channels}
        for channels in ("natural", "protein=0", "protein=1", "replicate")
    ]
    rows[0]["backbone"] = "hpa-fov-vitb8"
    code, record, _ = run(written(tmp_path, *rows), store)
    assert code == 3
    assert [row["missing"] for row in record["rows"]] == ["no network"] * 4
    assert asked == ["hpa-fov-vitb8", "dino-vits16"]


def test_the_papers_own_tables_can_be_planned(store: Path) -> None:
    for file in sorted((Path(__file__).parents[2] / "examples" / "paper").glob("*.yaml")):
        text = "\n".join(plan(file, store))
        assert "cannot be planned" not in text
        assert "cannot run" not in text


def test_stand_ins_take_a_backbones_place(store: Path, tmp_path: Path) -> None:
    run(written(tmp_path, SCRATCH), store)
    (trained,) = Path(f"{store}.reproduce/backbones").glob("*/backbone.json")
    small = tmp_path / "small"
    shutil.copytree(trained.parent, small)
    given = tmp_path / "stand_ins.yaml"
    given.write_text(
        json.dumps(
            {
                "backbones": {"hpa-fov-vitb8": {"backbone": "small"}},
                "epochs_share": 0.01,
                "table": {"size": "16"},
                "pretrain": {"jitter": 0.1},
            }
        )
    )
    rows = [
        {"name": "as it is", "backbone": "hpa-fov-vitb8", "channels": "natural"},
        {
            "name": "tuned", "backbone": "hpa-fov-vitb8", "channels": "natural",
            "finetune": {"epochs": 100, "fraction": 0.5},
        },
    ]  # fmt: skip
    code, record, _ = run(written(tmp_path, *rows, name="u.yaml"), store, stand_ins=given)
    assert code == 0
    assert all("stood in for by small" in row["note"] for row in record["rows"])
    assert any("small stand-ins" in note for note in record["notes"])
    assert record["rows"][1]["fraction"] == 0.5
    # It is known by its weights, wherever it lies.
    small.rename(tmp_path / "moved")
    given.write_text(given.read_text().replace("small", "moved"))
    assert "to do      0 of" in "\n".join(plan(tmp_path / "u.yaml", store, stand_ins=given))


def test_random_maps_are_drawn_by_their_seed_and_never_natural(store: Path) -> None:
    fovs = Fovs.of(Location.of(store))
    found = set()
    for seed in range(20):
        row = {"name": "r", "backbone": "hpa-fov-vitb8", "channels": f"random:{seed}"}
        table = read_table_of(row)
        drawn = [
            task_of(table, table.rows[0], StandInsConfig.of({}), fovs, Path("out"))
            for _ in range(2)
        ]
        assert drawn[0].job.name == drawn[1].job.name
        channels = drawn[0].job.needs[1].settings.channels
        assert "protein=1" not in channels
        assert "nucleus=2" not in channels
        found.add(channels)
    assert len(found) > 3


def read_table_of(row: dict[str, Any]) -> Any:
    from zarrloc.config.reproduce import ReproduceConfig

    return ReproduceConfig.of({**TABLE, "rows": [row]})


def test_sensitivity_runs_the_alternatives(store: Path, tmp_path: Path) -> None:
    choices = {"weak": ["positive", "ignore"], "part": ["test", "validation"]}
    file = written(tmp_path, ROW, choices=choices)
    _, record, lines = run(file, store, sensitivity=True)
    said = "\n".join(lines)
    named = [(other["setting"], other["value"]) for other in record["alternatives"]]
    assert named == [("weak", "ignore"), ("part", "validation")]
    own = record["rows"][0]["measured"]["macro_f1"]["mean"]
    page = Path(f"{store}.reproduce/tables/t.html").read_text()
    for other in record["alternatives"]:
        mean = other["results"][0]["measured"]["macro_f1"]["mean"]
        cell = f"{mean:.3f} ({mean - own:+.3f})"
        assert f" | {cell}" in said
        assert f"<td>{cell}</td>" in page
    # All of it is planned before it begins.
    assert "for 1 rows, 3 times" in said
    plain = "\n".join(plan(file, store))
    assert "for 1 rows\n" in plain


@pytest.mark.parametrize(
    "kind", ["rows", "fractions", "examples", pytest.param("map", marks=pytest.mark.slow)]
)
def test_figures_are_drawn(store: Path, tmp_path: Path, kind: str) -> None:
    run(written(tmp_path, ROW, figure=kind), store)
    folder = Path(f"{store}.reproduce/tables")
    assert (folder / "t.png").stat().st_size > 2000
    assert (folder / "t.svg").exists()
    assert "data:image/png;base64" in (folder / "t.html").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": [{"name": "a", "backbone": "scratch"}]}, "from scratch needs arch"),
        ({"rows": [ROW, ROW]}, "stands there twice"),
        ({"rows": []}, "rows"),
        ({"choices": {"nonsense": [1]}}, "'nonsense' is no setting"),
        ({"sizes": 3}, "sizes"),
    ],
)
def test_what_is_no_table_is_refused(
    store: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    file = tmp_path / "t.yaml"
    file.write_text(json.dumps({**TABLE, "rows": [ROW], **changes}))
    with pytest.raises(ConfigError, match=message):
        plan(file, store)


def test_a_store_without_fields_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        plan(written(tmp_path, ROW), tmp_path / "absent")


def test_the_command_line(store: Path, tmp_path: Path) -> None:
    file = written(tmp_path, ROW)
    planned = CliRunner().invoke(cli, ["plan", str(file), str(store)])
    assert planned.exit_code == 0, planned.output
    assert "to do      3 of 3 stages" in planned.output
    made = CliRunner().invoke(
        cli, ["reproduce", str(file), str(store), "--cluster", "serial"], standalone_mode=False
    )
    assert made.return_value == 0, made.output
    assert "| random | macro-F1 |" in made.output


def test_what_processes_of_their_own_are_given_can_be_sent() -> None:
    """On several GPUs a training starts one each, and sends them its arguments."""
    assert pickle.loads(pickle.dumps(module._silent))("step 1") is None


def test_cells_of_another_cutoff_are_cells_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The expert judged the same objects, so the judgements go along."""
    (tmp_path / "raw").mkdir()
    for number, cells in enumerate((4, 6)):
        image = make_field(cells, seed=number)[0].astype(np.uint16)
        tifffile.imwrite(tmp_path / "raw" / f"{number}.tif", image, photometric="minisblack")
    (tmp_path / "labels.csv").write_text("path,label\n0.tif,golgi\n1.tif,er\n")
    store = tmp_path / "s"
    ingest(
        tmp_path / "raw", store,
        IngestConfig(axes="CYX", channels=("protein", "nucleus"), pixel_size_um=0.2),
        labels=tmp_path / "labels.csv", run=SERIAL,
    )  # fmt: skip
    location = Location.of(store)
    segment(store, SegmentConfig.of({"model": "watershed"}), "ws", crop_um=8.0, run=SERIAL)
    known = read_cells(location, "ws")
    fovs = {row: name for name, row in known.fovs.items()}
    judged = [
        f"{fovs[int(fov)]},{mask},yes,yes"
        for fov, mask in zip(known.fov_index, known.mask_label, strict=True)
    ]
    (tmp_path / "expert.csv").write_text("\n".join(["fov,mask_label,whole,confirmed", *judged]))
    label(store, "ws", tmp_path / "expert.csv")
    file = written(
        tmp_path, {**ROW, "backbone": "classic", "weights": None}, level="cell", cells="ws",
        segment={"model": "watershed"}, crop_um=8.0, knn=[1], size="native",
        choices={"keep_percentile": [None, 50.0], "weak": ["positive", "ignore"]},
    )  # fmt: skip
    code, record, _ = run(file, store, sensitivity=True)
    assert code == 0
    both = ("ws", "ws-keep_percentile-50-0")
    first, other = (read_cells(location, name) for name in both)
    assert np.array_equal(first.mask_label, other.mask_label)
    tables = [xr.open_zarr(store, group=f"cells/{name}", chunks=None) for name in both]
    assert tables[1].expert_confirmed.values.all()
    assert (tables[1].expert_grade.values == tables[0].expert_grade.values).all()
    assert tables[1].keep.values.sum() < tables[0].keep.values.sum()
    figures = [other["results"][0]["measured"]["k=1"]["mean"] for other in record["alternatives"]]
    assert None not in figures
    nothing = {"knn": {1: {"macro_f1": None}}}
    monkeypatch.setattr(module, "evaluate", lambda location, config: nothing)
    code, record, _ = run(file, store)
    assert (code, record["rows"][0]["measured"]) == (3, {})
    assert "no cell with a label by labels: expert" in record["rows"][0]["missing"]
