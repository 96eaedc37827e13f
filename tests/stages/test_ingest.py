import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import xarray as xr
import zarr
from zarrloc_cli.main import main

from tests.image_files import (
    opencell_name,
    pixels,
    write,
    write_label_tables,
    write_ome,
    write_opencell,
)
from tests.objects import assert_nothing_but_zarr, assert_same, chunk_objects, opened
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.run import RunConfig
from zarrloc.engine.telemetry import Summary
from zarrloc.errors import ChannelError, ConfigError
from zarrloc.images import shape, tiff
from zarrloc.images.roles import Channels
from zarrloc.pixels.background import measure
from zarrloc.stages import ingest as ingest_stage
from zarrloc.stages.ingest import failures, ingest

SERIAL = RunConfig(cluster="serial")
CHANNELS = ("nucleus", "protein")


def _ingest(
    source: Path | str | None, store: Path, *, run: RunConfig = SERIAL, **rest: Any
) -> Summary:
    names = IngestConfig.model_fields
    config = IngestConfig.of({name: rest.pop(name) for name in list(rest) if name in names})
    return ingest(source, store, config, run=run, **rest)


def _errors(store: Path) -> dict[str, str]:
    data = opened(store, "fovs")
    names = [source.rsplit("/", 1)[-1] for source in data["source"].values]
    return {name: text for name, text in zip(names, data["error"].values, strict=True) if text}


def _grades(store: Path, fov: str) -> dict[str, int]:
    grade = opened(store, "fovs")["grade"].sel(fov=fov).load()
    graded = zip(grade["label"].values, grade.values, strict=True)
    return {str(label): int(value) for label, value in graded if value}


# --- what is stored -----------------------------------------------------------------------------


def test_opencell_files_become_a_store(tmp_path: Path) -> None:
    paths = write_opencell(tmp_path / "raw", 5)
    annotations, cell_lines = write_label_tables(tmp_path)
    summary = _ingest(
        tmp_path / "raw", tmp_path / "s", shard_fovs=2, labels=annotations,
        cell_lines=cell_lines,
    )  # fmt: skip
    assert (summary.exit_code, summary.blocks_run) == (0, 3)
    assert any("Hoechst" in note or "nucleus" in note for note in summary.notes)
    data = opened(tmp_path / "s", "fovs")
    assert data["image"].dims == ("fov", "channel", "y", "x")
    assert data["image"].dtype == np.uint16
    assert list(data["fov"].values) == [f"FID{fid:08d}" for fid in range(1, 6)]
    assert list(data["channel"].values) == list(CHANNELS)
    assert list(data["protein"].values) == ["P00", "P00", "P01", "P01", "P02"]
    assert data["stain"].values[0].startswith("Hoechst")
    assert list(data["excitation_nm"].values) == [405, 488]
    assert data.attrs["pixel_size_um"] == pytest.approx(0.2063, abs=1e-4)
    assert data.attrs["shard_fovs"] == 2
    for row, path in enumerate(sorted(paths)):
        field = tifffile.imread(path)
        np.testing.assert_array_equal(data["image"][row], field)
        np.testing.assert_array_equal(data["background"][row], measure(field))
    assert _grades(tmp_path / "s", "FID00000001") == {"er": 3, "golgi": 3, "vesicles": 1}
    assert _grades(tmp_path / "s", "FID00000003") == {"membrane": 2}
    assert data["grade"].dtype == np.uint8
    array = zarr.open_array(tmp_path / "s/fovs/image", mode="r")
    assert array.chunks == (1, 2, 24, 32)
    assert array.shards == (2, 2, 24, 32)
    assert_nothing_but_zarr(tmp_path / "s")


@pytest.mark.parametrize(
    ("side", "fields", "cores", "shard"),
    [(600, 6301, 2, 64), (2048, 6301, 2, 8), (600, 64, 2, 16), (600, 64, 16, 8), (600, 3, 2, 8),
     (600, 6301, 128, 25), (9000, 3, 2, 1)],
)  # fmt: skip
def test_the_default_shard_is_128_mib_at_most_and_leaves_work_for_every_core(
    side: int, fields: int, cores: int, shard: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = shape.Shape(Channels(("nucleus", "protein")), "uint16", side, side, None, None)
    monkeypatch.setattr(ingest_stage, "cores", lambda: cores)
    assert ingest_stage._shard_fovs(two, fields) == shard


def test_a_small_store_keeps_its_shard_when_it_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_opencell(tmp_path / "raw", 1)
    _ingest(tmp_path / "raw", tmp_path / "s")
    assert opened(tmp_path / "s", "fovs").attrs["shard_fovs"] == 8
    monkeypatch.setattr(ingest_stage, "LEAST_SHARD_FOVS", 16)
    write_opencell(tmp_path / "raw", 3)
    _ingest(tmp_path / "raw", tmp_path / "s")
    assert opened(tmp_path / "s", "fovs").attrs["shard_fovs"] == 8


def test_fields_of_several_sizes_are_padded_to_the_largest(tmp_path: Path) -> None:
    sizes = {"a": (24, 32), "b": (24, 32), "c": (20, 30), "d": (24, 40)}
    for seed, (name, size) in enumerate(sizes.items()):
        write(tmp_path / f"raw/{name}.tif", pixels(seed, (2, *size)))
    summary = _ingest(tmp_path / "raw", tmp_path / "s", channels=CHANNELS)
    assert summary.exit_code == 0
    assert any("field size 24x40 px: fields have 3 sizes" in note for note in summary.notes)
    data = opened(tmp_path / "s", "fovs").load()
    assert data["image"].shape[2:] == (24, 40)
    assert (int(data["height"][2]), int(data["width"][2])) == (20, 30)
    np.testing.assert_array_equal(data["image"][2, :, :20, :30], pixels(2, (2, 20, 30)))
    assert not data["image"][2, :, 20:].any()
    assert not data["image"][2, :, :, 30:].any()


def test_a_few_large_fields_do_not_double_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shape, "FEW_BYTES", 0)
    sizes = {"a": (24, 32), "b": (24, 32), "c": (24, 30), "d": (99, 99), "e": (24, 90)}
    for seed, (name, size) in enumerate(sizes.items()):
        write(tmp_path / f"raw/{name}.tif", pixels(seed, (2, *size)))
    summary = _ingest(tmp_path / "raw", tmp_path / "s", channels=CHANNELS)
    assert summary.exit_code == 3
    (said,) = [note for note in summary.notes if "field size" in note]
    assert "field size 24x90 px; 1 of 5 fields are larger" in said
    assert "--field-size 99x99" in said
    assert "--field-size 99x99" in _errors(tmp_path / "s")["d.tif"]
    all_in = {"channels": CHANNELS, "field_size": "99x99"}
    assert _ingest(tmp_path / "raw", tmp_path / "t", **all_in).exit_code == 0


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_the_dtype_is_the_files(tmp_path: Path, dtype: str) -> None:
    write(tmp_path / "raw/a.tif", pixels(0, dtype=dtype))
    _ingest(tmp_path / "raw", tmp_path / "s", channels=CHANNELS)
    image = opened(tmp_path / "s", "fovs")["image"]
    assert image.dtype == dtype
    np.testing.assert_array_equal(image[0], pixels(0, dtype=dtype))


def test_named_channels_come_in_any_order(tmp_path: Path) -> None:
    write_ome(tmp_path / "raw/a.ome.tif", pixels(0), ("DAPI", "GFP"))
    write_ome(tmp_path / "raw/b.ome.tif", pixels(1), ("DAPI", "GFP"))
    write_ome(tmp_path / "raw/c.ome.tif", pixels(2)[::-1], ("mNeonGreen", "Hoechst"))
    summary = _ingest(tmp_path / "raw", tmp_path / "s")
    assert summary.exit_code == 0
    assert any("'DAPI' is nucleus" in note for note in summary.notes)
    data = opened(tmp_path / "s", "fovs")
    assert list(data["channel"].values) == list(CHANNELS)
    np.testing.assert_array_equal(data["image"][2], pixels(2))


def test_a_store_of_given_channels_takes_files_in_that_order(tmp_path: Path) -> None:
    write(tmp_path / "raw/a.tif", pixels(0))
    with pytest.raises(ChannelError, match="--channels"):
        _ingest(tmp_path / "raw", tmp_path / "s")
    _ingest(tmp_path / "raw", tmp_path / "s", channels=("GFP", "DAPI"))
    assert list(opened(tmp_path / "s", "fovs")["channel"].values) == ["protein", "nucleus"]
    with pytest.raises(ConfigError, match=r"channels: \['protein', 'nucleus'\] -> "):
        _ingest(tmp_path / "raw", tmp_path / "s", channels=CHANNELS)


def test_one_file_a_channel(tmp_path: Path) -> None:
    for seed, field in enumerate("pq"):
        for channel, plane in zip(("DAPI", "GFP"), pixels(seed), strict=True):
            write(tmp_path / f"raw/{field}_{channel}.tif", plane)
    write(tmp_path / "raw/r_DAPI.tif", pixels(9)[0])
    assert _ingest(f"{tmp_path}/raw/*_{{channel}}.tif", tmp_path / "s").exit_code == 3
    data = opened(tmp_path / "s", "fovs")
    assert list(data["channel"].values) == list(CHANNELS)
    np.testing.assert_array_equal(data["image"][1], pixels(1))
    assert "no file for channel protein" in str(data["error"].values[2])


def test_stacks_are_projected(tmp_path: Path) -> None:
    stack = pixels(0, (5, 2, 24, 32))
    write(tmp_path / "raw" / opencell_name(1, kind="stack"), stack, axes="ZCYX")
    _ingest(tmp_path / "raw", tmp_path / "s", project="max")
    np.testing.assert_array_equal(opened(tmp_path / "s", "fovs")["image"][0], stack.max(0))


def test_a_manifest_says_where_files_lie_and_what_is_known(tmp_path: Path) -> None:
    write(tmp_path / "raw/a.tif", pixels(0))
    write(tmp_path / "raw/b.tif", pixels(1))
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("path,fov,donor,plate\nraw/b.tif,B,d1,p1\nraw/a.tif,A,d2,\n")
    labels = tmp_path / "labels.csv"
    labels.write_text("fov,label,batch\nA,er;golgi,x\nZ,er,y\n")
    summary = _ingest(None, tmp_path / "s", manifest=manifest, labels=labels, channels=CHANNELS)
    data = opened(tmp_path / "s", "fovs").load()
    assert {"donor", "plate", "batch"} <= set(data.coords)
    assert list(data["donor"].sel(fov=["A", "B"]).values) == ["d2", "d1"]
    assert str(data["batch"].sel(fov="A").values) == "x"
    assert _grades(tmp_path / "s", "A") == {"er": 3, "golgi": 3}
    assert "labels: 1 of 2 FOVs matched; without: B" in summary.notes
    assert data.groupby("donor").count()["image"].sizes["donor"] == 2


def test_a_label_table_that_matches_nothing_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("001", "002"):
        write_ome(tmp_path / f"img/{name}.ome.tif", pixels(0), CHANNELS)
    labels = tmp_path / "labels.csv"
    labels.write_text("fov,label\n1.0,er\n2.0,golgi\n")
    store = tmp_path / "s"
    arguments = ["ingest", str(tmp_path / "img"), str(store), "--labels", str(labels)]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--cluster", "serial"])
    assert ended.value.code == 2
    assert "fov '1.0', the fields have '001'" in capsys.readouterr().err
    assert not store.exists()
    labels.write_text("fov;Label\n001;er\n2.0;golgi\n")
    summary = _ingest(tmp_path / "img", store, labels=labels)
    assert _grades(store, "001") == {"er": 3}
    assert "labels: 1 of 2 FOVs matched; without: 002" in summary.notes
    assert "labels.csv: 1 of 2 rows match no field: fov '2.0'" in summary.notes


def test_the_real_files_and_their_labels(tmp_path: Path, shared: Callable[..., Path]) -> None:
    tables = shared("opencell", "labels")
    summary = _ingest(
        shared("opencell"), tmp_path / "s",
        labels=tables / "opencell-localization-annotations.csv",
        cell_lines=tables / "all-public-targets.csv",
    )  # fmt: skip
    assert summary.exit_code == 0
    assert "labels: all 6 FOVs matched" in summary.notes
    assert _grades(tmp_path / "s", "FID00024574") == {"cytoplasmic": 3, "vesicles": 2}
    data = opened(tmp_path / "s", "fovs")
    assert data["image"].shape == (6, 2, 600, 600)
    assert data["label"].size == 17


def test_own_readers_have_the_same_rights(tmp_path: Path) -> None:
    write(tmp_path / "raw/a.tif", pixels(0))
    write(tmp_path / "raw/b.tif", pixels(1))

    def read(uri: str) -> tiff.Image:
        return tiff.Image(pixels(7), "CYX", ("nucleus", "protein"), 0.5)

    _ingest(tmp_path / "raw", tmp_path / "s", reader=read)
    assert opened(tmp_path / "s", "fovs").attrs["pixel_size_um"] == 0.5
    np.testing.assert_array_equal(opened(tmp_path / "s", "fovs")["image"][1], pixels(7))


# --- what is wrong with files -------------------------------------------------------------------


def _bad_folder(folder: Path) -> None:
    for name in ("good1", "good2", "good3"):
        write(folder / f"{name}.tif", pixels(len(name), dtype="float32"))
    whole = (folder / "good1.tif").read_bytes()
    (folder / "truncated.tif").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.tif").write_bytes(b"")
    (folder / "text.tif").write_text("not an image")
    write(folder / "shape.tif", pixels(1, (3, 24, 32), "float32"))
    write(folder / "type.tif", pixels(1, dtype="uint16"))
    nan = pixels(1, dtype="float32")
    nan[0, 3, 4] = np.nan
    write(folder / "nan.tif", nan)
    write(folder / "deeper/good1.tif", pixels(5, dtype="float32"))


BAD = {
    "truncated.tif": "truncated|ends|short|incomplete",
    "empty.tif": "empty",
    "text.tif": "not a TIFF",
    "shape.tif": "3",
    "type.tif": "dtype uint16, the store holds float32",
    "nan.tif": "NaN|not finite",
}


def test_bad_files_cost_themselves_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _bad_folder(tmp_path / "raw")
    arguments = ["ingest", str(tmp_path / "raw"), str(tmp_path / "s")]
    arguments += ["--channels", "nucleus,protein", "--cluster", "serial", "--shard-fovs", "4"]
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 3
    said = capsys.readouterr()
    errors = _errors(tmp_path / "s")
    assert errors.keys() == BAD.keys()
    names = set(opened(tmp_path / "s", "fovs")["fov"].values)
    assert {"raw/good1", "deeper/good1", "good2"} <= names
    for name, words in BAD.items():
        assert re.search(words, errors[name], re.IGNORECASE), errors[name]
        assert any(line.startswith(name) and errors[name] in line for line in said.out.splitlines())
    assert "6 of 10 rows have an error" in said.out
    assert "Traceback" not in said.out + said.err
    data = opened(tmp_path / "s", "fovs").load()
    assert int((data["error"] == "").sum()) == 4
    assert not data["image"][data["error"] != ""].any()
    good = data["image"][data["error"] == ""]
    np.testing.assert_array_equal(good[0], pixels(5, dtype="float32"))
    with pytest.raises(SystemExit) as end:  # nothing to do, and still not all is well
        main(arguments)
    assert end.value.code == 3


def test_a_mended_file_is_read_again_and_a_transient_fault_when_asked(tmp_path: Path) -> None:
    paths = write_opencell(tmp_path / "raw", 4)
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[:900])
    _ingest(tmp_path / "raw", tmp_path / "s", shard_fovs=2)
    assert list(_errors(tmp_path / "s")) == [paths[1].name]
    paths[1].write_bytes(whole)
    assert _ingest(tmp_path / "raw", tmp_path / "s").blocks_run == 1
    write_opencell(tmp_path / "again", 4)
    _ingest(tmp_path / "again", tmp_path / "whole", shard_fovs=2)
    np.testing.assert_array_equal(
        opened(tmp_path / "s", "fovs")["image"], opened(tmp_path / "whole", "fovs")["image"]
    )


def test_retry_failed_reads_again_what_failed_for_a_while(tmp_path: Path) -> None:
    write_opencell(tmp_path / "raw", 3)
    away, calls = [True], iter(range(100))

    def read(uri: str) -> tiff.Image:
        looking_at_headers = next(calls) < 3
        if "FID00000002" in uri and away[0] and not looking_at_headers:
            raise OSError("the share is away")
        return tiff.read(Path(uri))

    assert _ingest(tmp_path / "raw", tmp_path / "s", reader=read).exit_code == 3
    assert "the share is away" in failures(tmp_path / "s")
    assert _ingest(tmp_path / "raw", tmp_path / "s", reader=read).blocks_run == 0
    away[0] = False
    retry = SERIAL.model_copy(update={"retry_failed": True})
    assert _ingest(tmp_path / "raw", tmp_path / "s", reader=read, run=retry).exit_code == 0
    assert _errors(tmp_path / "s") == {}


# --- what is refused ----------------------------------------------------------------------------


def _tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none", "s"], "none"),
        (["empty", "s"], "no image"),
        (["raw/*.png", "s"], "no image"),
        (["raw", "s", "--labels", "none.csv"], "none.csv"),
        (["raw", "s", "--labels", "nolabel.csv"], "'label' is missing"),
        (["raw", "s", "--labels", "annotations.csv"], "--cell-lines"),
        (["raw", "s", "--labels", "annotations.csv", "--cell-lines", "bad.csv"], "'cell_line_id'"),
        (["s", "--manifest", "bad.csv"], "'path' is missing"),
        (["raw", "a-file"], "is a file"),
        (["raw", "raw"], "not a Zarr store"),
        (["raw", "a-file/s"], "cannot write|Not a directory"),
        (["raw", "/proc/s.zarr"], "cannot write"),
        (["raw", "s", "--channels", "nucleus"], "--channels"),
        (["raw", "s", "--channels", "protein,nucleus"], "in this order"),
        (["raw", "s", "--field-size", "600"], "HEIGHTxWIDTH"),
        (["raw", "s", "--cluster", "mars"], "serial, local, cuda"),
        (["raw", "newer"], "format 999.*upgrade"),
        (["raw", "foreign"], "not a zarrloc store"),
        (["raw"], "STORE|SOURCE"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], words: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write_opencell(tmp_path / "raw", 2)
    write_label_tables(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a-file").write_text("")
    (tmp_path / "bad.csv").write_text("file,other\nx,y\n")
    (tmp_path / "nolabel.csv").write_text("fov,donor\nx,y\n")
    zarr.create_group(tmp_path / "newer", attributes={"format": 999})
    zarr.create_group(tmp_path / "foreign")
    before = _tree(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["ingest", *arguments])
    said = capsys.readouterr()
    assert end.value.code == 2, said.err
    assert re.search(words, said.err), said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    if said.err.startswith("zarrloc: "):
        assert len(said.err.splitlines()) == 1
    assert _tree(tmp_path) == before


# --- again --------------------------------------------------------------------------------------


def test_the_same_folder_again_has_nothing_to_do(tmp_path: Path) -> None:
    write_opencell(tmp_path / "raw", 5)
    _ingest(tmp_path / "raw", tmp_path / "s", shard_fovs=2)
    before = chunk_objects(tmp_path / "s")
    again = _ingest(tmp_path / "raw", tmp_path / "s")
    assert (again.blocks_run, again.exit_code) == (0, 0)
    assert chunk_objects(tmp_path / "s") == before
    with pytest.raises(ConfigError, match="shard_fovs: 2 -> 4"):
        _ingest(tmp_path / "raw", tmp_path / "s", shard_fovs=4)
    assert _ingest(tmp_path / "raw", tmp_path / "s", shard_fovs=4, overwrite=True).blocks_run == 2


def test_a_run_killed_in_its_last_step_is_completed_by_the_same_command(tmp_path: Path) -> None:
    write_opencell(tmp_path / "raw", 4)
    store = tmp_path / "s"
    _ingest(tmp_path / "raw", store)
    before = opened(store, "fovs").load()
    (store / "fovs").rename(store / "fovs~next")  # the old group is gone, the new one not there yet
    (tmp_path / "s.runs" / "removed-0a1b").mkdir()
    assert _ingest(tmp_path / "raw", store).blocks_run == 0
    xr.testing.assert_identical(opened(store, "fovs").load(), before)
    assert _ingest(tmp_path / "raw", store, overwrite=True).blocks_run
    assert not list((tmp_path / "s.runs").glob("removed-*"))


def test_a_grown_folder_is_appended(tmp_path: Path) -> None:
    write_opencell(tmp_path / "raw", 3)
    tables = write_label_tables(tmp_path)
    labels = dict(zip(("labels", "cell_lines"), tables, strict=True))
    _ingest(tmp_path / "raw", tmp_path / "s", shard_fovs=2, **labels)
    write_opencell(tmp_path / "raw", 3, first=4)
    assert _ingest(tmp_path / "raw", tmp_path / "s", **labels).blocks_run == 2
    _ingest(tmp_path / "raw", tmp_path / "whole", shard_fovs=2, **labels)
    assert_same(tmp_path / "s", tmp_path / "whole", "fovs")


def test_a_changed_file_is_read_again_and_a_gone_one_stays(tmp_path: Path) -> None:
    paths = write_opencell(tmp_path / "raw", 5)
    _ingest(tmp_path / "raw", tmp_path / "s", shard_fovs=2)
    write(paths[3], pixels(99))
    os.utime(paths[3], ns=(1, 1))
    paths[2].unlink()
    paths[4].unlink()
    assert _ingest(tmp_path / "raw", tmp_path / "s").blocks_run == 1
    data = opened(tmp_path / "s", "fovs")
    np.testing.assert_array_equal(data["image"][3], pixels(99))
    np.testing.assert_array_equal(data["image"][2], pixels(3))
    np.testing.assert_array_equal(data["image"][4], pixels(5))
    assert _errors(tmp_path / "s") == {}


def test_rehash_looks_into_files(tmp_path: Path) -> None:
    paths = write_opencell(tmp_path / "raw", 3)
    _ingest(tmp_path / "raw", tmp_path / "s", shard_fovs=2)
    os.utime(paths[0], ns=(5, 5))  # touched, but the same
    stamp = paths[2].stat()
    write(paths[2], pixels(77))  # changed, but of the same size and time
    os.utime(paths[2], ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert paths[2].stat().st_size == stamp.st_size
    summary = _ingest(tmp_path / "raw", tmp_path / "s", rehash=True)
    assert summary.blocks_run == 1
    np.testing.assert_array_equal(opened(tmp_path / "s", "fovs")["image"][2], pixels(77))


def test_new_labels_rewrite_grades_alone(tmp_path: Path) -> None:
    write_opencell(tmp_path / "raw", 4)
    annotations, cell_lines = write_label_tables(tmp_path)
    _ingest(
        tmp_path / "raw", tmp_path / "s", labels=annotations, cell_lines=cell_lines,
        shard_fovs=2,
    )  # fmt: skip
    before = chunk_objects(tmp_path / "s")
    write_label_tables(tmp_path, even="cytoplasmic")
    summary = _ingest(tmp_path / "raw", tmp_path / "s", labels=annotations, cell_lines=cell_lines)
    assert summary.blocks_run == 0
    assert _grades(tmp_path / "s", "FID00000001") == {"cytoplasmic": 3, "vesicles": 1}
    after = chunk_objects(tmp_path / "s")
    changed = {key.split("/")[1] for key in after if after[key] != before.get(key)}
    assert changed == {"grade", "label"}


def test_a_moved_folder_is_the_same_folder(tmp_path: Path) -> None:
    write_opencell(tmp_path / "raw", 3)
    _ingest(tmp_path / "raw", tmp_path / "s")
    (tmp_path / "raw").rename(tmp_path / "moved")
    assert _ingest(tmp_path / "moved", tmp_path / "s").blocks_run == 0
    assert "moved" in str(opened(tmp_path / "s", "fovs")["source"].values[0])


KILLED = """
import sys, time
from functools import partial
from pathlib import Path
from zarrloc.images import shape, tiff
from zarrloc.images.roles import Channels
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.run import RunConfig
from zarrloc.engine import ledger
from zarrloc.stages.ingest import ingest

def slowly(uri):
    time.sleep(0.1)
    return tiff.read(Path(uri))

ledger.FLUSH_S = 0
config, run = IngestConfig(shard_fovs=2), RunConfig(cluster="serial")
ingest(sys.argv[1], sys.argv[2], config, run=run, reader=slowly)
"""


def test_killed_and_run_again(tmp_path: Path) -> None:
    write_opencell(tmp_path / "raw", 20)
    store = tmp_path / "s"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "raw"), str(store)])

    def done() -> int:
        try:
            return int(np.count_nonzero(zarr.open_array(store / "fovs/block_output", mode="r")[:]))
        except FileNotFoundError:
            return 0

    end = time.monotonic() + 100
    while done() < 2 and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert 2 <= done() < 10
    assert _ingest(tmp_path / "raw", store).blocks_run == 10 - done() or done() == 10
    _ingest(tmp_path / "raw", tmp_path / "whole", shard_fovs=2)
    assert_same(store, tmp_path / "whole", "fovs")


def test_plain_xarray_works_on_whole_shards(ingested: Path, tmp_path: Path) -> None:
    fovs = xr.open_zarr(ingested, group="fovs", chunks=None)
    fovs["image"] = fovs.image.chunk(fov=fovs.shard_fovs)
    assert fovs.chunks["fov"] == (2, 2, 1)
    mean = xr.map_blocks(lambda part: part.mean(("y", "x")), fovs[["image"]]).compute()
    np.testing.assert_allclose(mean.image, fovs.image.mean(("y", "x")))
    fovs.to_zarr(tmp_path / "copy.zarr", consolidated=False)
    copy = xr.open_zarr(tmp_path / "copy.zarr", chunks=None, consolidated=False)
    np.testing.assert_array_equal(copy.image, fovs.image)
    assert copy.protein.values.tolist() == fovs.protein.values.tolist()
