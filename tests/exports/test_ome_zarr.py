import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from ome_zarr_models.v05 import HCS, BioFormats2Raw, Image, ImageLabel
from skimage.transform import downscale_local_mean

import zarrloc
from tests.stores import make_store
from tests.written import put, revise
from zarrloc.errors import ConfigError, DamageError
from zarrloc.exports import pyramid
from zarrloc.exports.pyramid import halved, halved_mask, levels
from zarrloc.store.location import Location


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Five fields with masks, the third smaller than the rest, the last unreadable."""
    made = make_store(tmp_path / "oc.zarr", cells=(4, 0, 6, 2, 1))
    height = np.array([96, 96, 80, 96, 96])
    colors = np.array(["#4488ff", "#ffffff"])
    errors = np.array(["", "", "", "", "cut off"])
    location = Location.of(made)
    revise(
        location, "fovs", height=(("fov",), height), error=(("fov",), errors),
        color=(("channel",), colors),
    )  # fmt: skip
    return made


def in_plate(store: Path, wells: list[str], plates: list[str]) -> None:
    columns = {"well": (("fov",), np.array(wells)), "plate": (("fov",), np.array(plates))}
    revise(Location.of(store), "fovs", **columns)


def opened(store: Path, group: str) -> xr.Dataset:
    return xr.open_zarr(store, group=group, chunks=None)


def test_without_wells_each_field_is_an_image_with_its_masks(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyramid, "SMALLEST", 30)
    out = tmp_path / "out.zarr"
    result = zarrloc.export(store, "fovs", out, "ome-zarr")
    assert (result.done, result.failures) == (4, {"FID00000004": "cut off"})
    root = zarr.open_group(out, mode="r")
    BioFormats2Raw.from_zarr(root)
    series = root["OME"].attrs["ome"]["series"]  # type: ignore[index, call-overload]
    assert series == ["FID00000000", "FID00000001", "FID00000002", "FID00000003"]
    fovs, masks = opened(store, "fovs"), opened(store, "segmentations/cp")
    for row, name in enumerate(series):
        group = zarr.open_group(out / name, mode="r")
        image = Image.from_zarr(group)
        real = slice(0, int(fovs.height[row]))
        first = np.asarray(group["0"])
        np.testing.assert_array_equal(first, fovs.image.values[row][:, real])
        second = downscale_local_mean(first, (1, 2, 2))
        np.testing.assert_allclose(np.asarray(group["1"]), second, atol=0.5)
        assert image.ome_attributes.multiscales[0].ndim == 3
        labels = zarr.open_group(out / name / "labels" / "cp", mode="r")
        ImageLabel.from_zarr(labels)
        mask = np.asarray(labels["0"])
        np.testing.assert_array_equal(mask, masks["mask"].values[row][real])
        np.testing.assert_array_equal(np.asarray(labels["1"]), mask[::2, ::2])
    scales = [
        dataset.coordinateTransformations[0].scale  # type: ignore[union-attr]
        for dataset in image.ome_attributes.multiscales[0].datasets
    ]
    np.testing.assert_allclose(scales[:2], [[1, 0.2063, 0.2063], [1, 0.4126, 0.4126]])


def test_channels_have_the_stores_colours_and_limits_of_its_pixels(
    store: Path, tmp_path: Path
) -> None:
    zarrloc.export(store, "segmentations/cp", tmp_path / "o.zarr", "ome-zarr")
    attrs: Any = zarr.open_group(tmp_path / "o.zarr" / "FID00000000", mode="r").attrs["ome"]
    channels = attrs["omero"]["channels"]
    assert [(c["label"], c["color"]) for c in channels] == [
        ("nucleus", "4488FF"), ("protein", "FFFFFF"),
    ]  # fmt: skip
    values = opened(store, "fovs").image.values
    for index, channel in enumerate(channels):
        window = channel["window"]
        assert window["min"] == 0
        assert window["max"] == 65535
        assert values[:, index].min() < window["start"] < np.median(values[:, index])
        assert np.percentile(values[:, index], 95) < window["end"] <= values[:, index].max()


def test_a_plate_where_every_well_is_known(store: Path, tmp_path: Path) -> None:
    in_plate(store, ["B03", "AA10", "B03", "B12", ""], ["P1"] * 5)
    out = tmp_path / "plate.zarr"
    result = zarrloc.export(store, "fovs", out, "ome-zarr")
    assert result.notes == ["plate P1: 3 wells, 4 sites"]
    plate = HCS.from_zarr(zarr.open_group(out, mode="r"))
    described = plate.ome_attributes.plate
    assert described.name == "P1"
    assert [row.name for row in described.rows] == ["B", "AA"]
    assert [column.name for column in described.columns] == ["3", "10", "12"]
    assert [well.path for well in described.wells] == ["B/3", "B/12", "AA/10"]
    fovs = opened(store, "fovs").image.values
    np.testing.assert_array_equal(zarr.open_array(out / "B/3/1/0", mode="r")[...], fovs[2][:, :80])
    np.testing.assert_array_equal(zarr.open_array(out / "AA/10/0/0", mode="r")[...], fovs[1])
    ImageLabel.from_zarr(zarr.open_group(out / "B/12/0/labels/cp", mode="r"))


def test_several_plates_lie_beside_one_another(store: Path, tmp_path: Path) -> None:
    in_plate(store, ["B03"] * 4 + [""], ["P/1", "P 1", "P/1", "p_1", ""])
    result = zarrloc.export(store, "fovs", tmp_path / "o.zarr", "ome-zarr")
    assert len(result.notes) == 3
    names = {
        HCS.from_zarr(zarr.open_group(path, mode="r")).ome_attributes.plate.name
        for path in (tmp_path / "o.zarr").iterdir()
        if path.is_dir()
    }
    assert names == {"P/1", "P 1", "p_1"}


def test_a_field_without_a_well_makes_no_plate(store: Path, tmp_path: Path) -> None:
    in_plate(store, ["B03", "DMSO", "B03", "B04", ""], [""] * 5)
    result = zarrloc.export(store, "fovs", tmp_path / "o.zarr", "ome-zarr")
    assert result.notes == ["1 fields name no well, so each field is an image of its own"]
    BioFormats2Raw.from_zarr(zarr.open_group(tmp_path / "o.zarr", mode="r"))


def test_other_groups_have_no_images(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'cells/cp' has no images; export fovs"):
        zarrloc.export(store, "cells/cp", tmp_path / "o.zarr", "ome-zarr")


def test_a_damaged_image_is_not_exported(store: Path, tmp_path: Path) -> None:
    put(Location.of(store), "fovs", "row_digest", 1, 7)
    with pytest.raises(DamageError, match="row 1 of 'fovs' is damaged"):
        zarrloc.export(store, "fovs", tmp_path / "o.zarr", "ome-zarr")
    assert {path.name for path in tmp_path.iterdir()} == {"oc.zarr", "oc.zarr.runs"}


@pytest.mark.parametrize("shape", [(600, 600), (601, 333), (1, 700), (256, 100)])
def test_levels_are_what_halving_gives(shape: tuple[int, int]) -> None:
    image = np.arange(np.prod(shape), dtype=np.uint16).reshape(1, *shape)
    mask = image[0]
    for size in levels(*shape)[1:]:
        image, mask = halved(image), halved_mask(mask)
        assert image.shape[1:] == mask.shape == size
    assert max(image.shape) <= pyramid.SMALLEST


def test_napari_reads_it(store: Path, tmp_path: Path) -> None:
    napari = pytest.importorskip(
        "napari_ome_zarr", reason="napari-ome-zarr is not installed (make test-ecosystem)"
    )
    zarrloc.export(store, "fovs", tmp_path / "o.zarr", "ome-zarr")
    reader = napari.napari_get_reader(str(tmp_path / "o.zarr" / "FID00000000"))
    layers = reader(str(tmp_path / "o.zarr" / "FID00000000"))
    kinds = [layer[2] for layer in layers]
    assert kinds.count("labels") == 1
    image = next(layer for layer in layers if layer[2] == "image")
    assert [name.split(": ")[-1] for name in image[1]["name"]] == ["nucleus", "protein"]
    values = opened(store, "fovs").image.values[0]
    np.testing.assert_array_equal(np.asarray(image[0][0]), values)
    in_plate(store, ["B03", "B04", "B03", "C03", ""], ["P1"] * 5)
    zarrloc.export(store, "fovs", tmp_path / "p.zarr", "ome-zarr")
    layers = napari.napari_get_reader(str(tmp_path / "p.zarr"))(str(tmp_path / "p.zarr"))
    plate = next(layer for layer in layers if layer[2] == "image")
    assert np.asarray(plate[0][0]).shape[0] == 2, "two channels of all wells in one picture"


NODE = """
import * as zarr from "zarrita";
import { FileSystemStore } from "@zarrita/storage";
const [path] = process.argv.slice(2);
const root = zarr.root(new FileSystemStore(path));
const read = async (at) => {
  const array = await zarr.open.v3(root.resolve(at), { kind: "array" });
  const chunk = await zarr.get(array);
  const data = Array.from(chunk.data, (one) => (typeof one === "bigint" ? Number(one) : one));
  return { shape: chunk.shape, values: data.length > 5000 ? null : data,
           sum: typeof data[0] === "number" ? data.reduce((a, b) => a + b, 0) : null };
};
const found = {};
for (const at of process.argv.slice(3)) found[at] = await read(at);
console.log(JSON.stringify(found));
"""


@pytest.mark.slow
def test_javascript_reads_the_store_and_its_export(store: Path, tmp_path: Path) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs node and npm")
    folder = tmp_path / "js"
    folder.mkdir()
    install = ["npm", "install", "--no-audit", "--no-fund", "zarrita@0.7.5", "@zarrita/storage@0.2"]
    if subprocess.run(install, cwd=folder, capture_output=True, check=False).returncode:
        pytest.skip("zarrita cannot be installed from npm here")
    (folder / "read.mjs").write_text(NODE)

    def read(path: Path, *arrays: str) -> dict[str, Any]:
        run = subprocess.run(
            ["node", "read.mjs", str(path), *arrays], cwd=folder, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        return dict(json.loads(run.stdout))

    fovs, masks = opened(store, "fovs"), opened(store, "segmentations/cp")
    found = read(store, "/fovs/image", "/fovs/fov", "/fovs/height", "/segmentations/cp/mask")
    assert found["/fovs/image"]["shape"] == list(fovs.image.shape)
    assert found["/fovs/image"]["sum"] == int(fovs.image.values.sum())
    assert found["/fovs/fov"]["values"] == fovs.fov.values.tolist()
    assert found["/segmentations/cp/mask"]["sum"] == int(masks["mask"].values.sum())
    zarrloc.export(store, "fovs", tmp_path / "o.zarr", "ome-zarr")
    found = read(tmp_path / "o.zarr", "/FID00000000/0", "/FID00000000/labels/cp/0")
    assert found["/FID00000000/0"]["sum"] == int(fovs.image.values[0].sum())
    assert found["/FID00000000/labels/cp/0"]["sum"] == int(masks["mask"].values[0].sum())
