"""SpatialData needs an environment of its own, without dask-cuda: `make test-ecosystem`."""

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import zarrloc
from tests.stores import make_store
from tests.written import put, revise
from zarrloc.errors import ConfigError, DamageError, StoreError
from zarrloc.exports import spatial_data
from zarrloc.exports.images import Images
from zarrloc.exports.spatial_data import Parts
from zarrloc.store.location import Location

CELLS = (4, 0, 6, 2, 0)
FIELDS = [f"FID{row:08d}" for row in range(4)]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Five fields with masks, the third smaller than the rest, the last unreadable."""
    made = make_store(tmp_path / "oc.zarr", cells=CELLS)
    height = np.array([96, 96, 94, 96, 96])
    errors = np.array(["", "", "", "", "cut off"])
    revise(
        Location.of(made), "fovs", height=(("fov",), height), error=(("fov",), errors)
    )  # fmt: skip
    return made


@pytest.fixture
def sd() -> Any:
    return pytest.importorskip(
        "spatialdata", reason="spatialdata is not installed (make test-ecosystem)"
    )


def opened(store: Path, group: str) -> xr.Dataset:
    return xr.open_zarr(store, group=group, chunks=None)


# --- what belongs together ----------------------------------------------------------------------


@pytest.mark.parametrize("what", ["fovs", "segmentations/cp", "cells/cp"])
def test_images_bring_tables_and_tables_bring_images(store: Path, what: str) -> None:
    parts = Parts.of(Location.of(store), what)
    assert list(parts.images.masks) == ["cp"]
    assert {name: len(rows) for name, rows in parts.tables.items()} == {"cp": sum(CELLS)}


def test_an_embedding_of_fields_brings_images_without_masks(labelled: Path) -> None:
    parts = Parts.of(Location.of(labelled), "embeddings/planted")
    assert not parts.images.masks
    assert len(parts.tables["planted"]) == len(parts.images.names) == 200


def test_one_field_is_read_as_the_whole_shard_is(store: Path) -> None:
    images = Images.of(Location.of(store), "fovs")
    for field in images:
        for mask, values in ((None, field.image), ("cp", field.masks["cp"])):
            alone = images.read(field.row, mask)
            np.testing.assert_array_equal(alone, values)
            assert images.shape(field.row, mask) == (values.shape, values.dtype)


@pytest.mark.parametrize("what", ["splits/honest", "odd", "fovs/x"])
def test_what_has_no_images_is_refused(
    labelled: Path, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zarrloc.exports.export.library", lambda name: None)
    with pytest.raises(ConfigError, match=f"'{what}' has no images"):
        zarrloc.export(labelled, what, tmp_path / "o.zarr", "spatialdata")
    assert not list(tmp_path.iterdir())


def test_cells_of_a_field_without_an_image_are_refused(
    store: Path, tmp_path: Path, sd: Any
) -> None:
    errors = np.array(["cut off", "", "", "", "cut off"])
    revise(Location.of(store), "fovs", error=(("fov",), errors))
    with pytest.raises(StoreError, match=r"cells of field FID00000000, which has no image \(cut"):
        zarrloc.export(store, "cells/cp", tmp_path / "o.zarr", "spatialdata")


# --- with the library ---------------------------------------------------------------------------


def test_images_masks_and_a_table_of_regions(store: Path, tmp_path: Path, sd: Any) -> None:
    out = tmp_path / "o.zarr"
    result = zarrloc.export(store, "fovs", out, "spatialdata")
    assert (result.done, result.failures) == (4, {"FID00000004": "cut off"})
    assert result.notes == ["4 images, 4 labels, 1 tables"]
    found = sd.read_zarr(out)
    assert sorted(found.images) == FIELDS
    assert sorted(found.labels) == [f"{name}_cp" for name in FIELDS]
    assert sorted(found.coordinate_systems) == FIELDS
    fovs, masks, cells = (opened(store, g) for g in ("fovs", "segmentations/cp", "cells/cp"))
    for row, name in enumerate(FIELDS):
        sd.models.Image2DModel.validate(found[name])
        sd.models.Labels2DModel.validate(found[f"{name}_cp"])
        real = slice(0, int(fovs.height[row]))
        np.testing.assert_array_equal(found[name].values, fovs.image.values[row][:, real])
        np.testing.assert_array_equal(found[f"{name}_cp"].values, masks["mask"].values[row][real])
        assert found[name].c.values.tolist() == ["nucleus", "protein"]
        move = sd.transformations.get_transformation(found[name], to_coordinate_system=name)
        np.testing.assert_allclose(move.to_affine_matrix(["y", "x"], ["y", "x"])[0], [0.2063, 0, 0])
    table = found["cp"]
    sd.models.TableModel.validate(table)
    at = table.var_names.get_loc("intensity_mean_nucleus")
    np.testing.assert_array_equal(table.X[:, at], cells.intensity_mean.values[:, 0])
    assert table.obs["region"].tolist() == [f"{FIELDS[i]}_cp" for i in cells.fov_index.values]
    assert table.obs["mask_label"].tolist() == cells.mask_label.values.tolist()


def test_rows_are_where_their_objects_are(store: Path, tmp_path: Path, sd: Any) -> None:
    zarrloc.export(store, "cells/cp", tmp_path / "o.zarr", "spatialdata")
    found = sd.read_zarr(tmp_path / "o.zarr")
    _matched, table = sd.join_spatialelement_table(
        sdata=found, spatial_element_names="FID00000002_cp", table_name="cp", how="left"
    )
    assert table.n_obs == 6
    centres = sd.get_centroids(
        found["FID00000002_cp"], coordinate_system="FID00000002", return_background=False
    ).compute()
    by_label = table.obs.set_index("mask_label").index
    ours = table.obsm["spatial"][np.argsort(by_label)] * 0.2063
    np.testing.assert_allclose(ours, centres.sort_index()[["x", "y"]].to_numpy(), atol=1e-4)


def test_an_embedding_of_fields_is_a_table_beside_the_images(
    labelled: Path, tmp_path: Path, sd: Any
) -> None:
    zarrloc.export(labelled, "embeddings/planted", tmp_path / "o.zarr", "spatialdata", umap="no")
    found = sd.read_zarr(tmp_path / "o.zarr")
    plain = opened(labelled, "embeddings/planted")
    np.testing.assert_array_equal(found["planted"].X, plain.embedding.values)
    assert found["planted"].obs["fov"].tolist() == sorted(found.images)
    assert not found.labels


def test_names_that_elements_cannot_have_are_made_ones(
    store: Path, tmp_path: Path, sd: Any
) -> None:
    names = np.array(["a 1", "A_1", "cp", "x", "y"])
    revise(
        Location.of(store), "fovs", fov=(("fov",), names),
        **{"my donor": (("fov",), np.array(["d"] * 5)), "region": (("fov",), np.array(["r"] * 5))},
    )  # fmt: skip
    result = zarrloc.export(store, "fovs", tmp_path / "o.zarr", "spatialdata")
    assert result.notes[1] == "fields renamed: a 1 is a_1, A_1 is A_1-2, cp is cp-2"
    found = sd.read_zarr(tmp_path / "o.zarr")
    assert sorted(found.images) == ["A_1-2", "a_1", "cp-2", "x"]
    table = found["cp"]
    assert {"my_donor", "region", "region-2"} <= set(table.obs.columns)
    assert set(table.obs["region-2"]) == {"a_1_cp", "cp-2_cp", "x_cp"}


def test_a_large_image_gets_a_pyramid(
    store: Path, tmp_path: Path, sd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spatial_data, "CHUNK", 40)
    zarrloc.export(store, "fovs", tmp_path / "o.zarr", "spatialdata")
    found = sd.read_zarr(tmp_path / "o.zarr")
    image, labels = found["FID00000000"], found["FID00000000_cp"]
    assert list(image.children) == list(labels.children) == ["scale0", "scale1", "scale2"]
    values = opened(store, "fovs").image.values[0]
    np.testing.assert_array_equal(image["scale0"]["image"].values, values)
    assert set(np.unique(labels["scale2"]["image"])) <= {0, 1, 2, 3, 4}


def test_no_more_than_a_field_or_two_is_held(
    store: Path, tmp_path: Path, sd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: set[int] = set()
    most = []
    read = Images.read

    class Held(np.ndarray[Any, Any]):
        pass

    def watched(images: Images, row: int, mask: str | None) -> Any:
        values = read(images, row, mask).copy().view(Held)
        number = len(most)
        held.add(number)
        weakref.finalize(values, held.discard, number)
        gc.collect()
        most.append(len(held))
        return values

    monkeypatch.setattr(Images, "read", watched)
    zarrloc.export(store, "fovs", tmp_path / "o.zarr", "spatialdata")
    assert len(most) >= 8, "each image and mask is read"
    assert max(most) <= 2


def test_a_damaged_mask_is_not_exported(store: Path, tmp_path: Path, sd: Any) -> None:
    put(Location.of(store), "segmentations/cp", "row_digest", 1, 7)
    with pytest.raises(DamageError, match="row 1 of 'segmentations/cp' is damaged"):
        zarrloc.export(store, "fovs", tmp_path / "o.zarr", "spatialdata")
    assert {path.name for path in tmp_path.iterdir()} == {"oc.zarr", "oc.zarr.runs"}


def test_spatialdata_plot_draws_it(store: Path, tmp_path: Path, sd: Any) -> None:
    pytest.importorskip("spatialdata_plot", reason="spatialdata-plot is not installed")
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    zarrloc.export(store, "cells/cp", tmp_path / "o.zarr", "spatialdata")
    found = sd.read_zarr(tmp_path / "o.zarr")
    figure, axes = plt.subplots()
    (
        found.pl.render_images("FID00000000", channel="nucleus")
        .pl.render_labels("FID00000000_cp", color="area_px", table_name="cp")
        .pl.show(coordinate_systems="FID00000000", ax=axes)
    )
    figure.canvas.draw()
    assert len(axes.images) == 2, "an image, and labels over it"
    edge = 96 * 0.2063
    assert axes.get_xlim()[1] == pytest.approx(edge, abs=0.5), "micrometres"
    plt.close(figure)


def test_squidpy_finds_neighbours_in_it(store: Path, tmp_path: Path, sd: Any) -> None:
    sq = pytest.importorskip("squidpy", reason="squidpy is not installed")
    zarrloc.export(store, "cells/cp", tmp_path / "o.zarr", "spatialdata")
    table = sd.read_zarr(tmp_path / "o.zarr")["cp"]
    sq.gr.spatial_neighbors_knn(table, library_key="region", n_neighs=1)
    links = table.obsp["spatial_connectivities"].toarray()
    region = table.obs["region"].astype(str).to_numpy()
    assert links.any(axis=1).all(), "every cell has a neighbour"
    assert not links[region[:, None] != region[None, :]].any(), "of its own field"
