"""Faults that a review found in real stages, each as a test of its own.

Those of one module alone are tested beside it; here are the ones that take a store.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.drills.pipeline import FOVS, SERIAL, SHARD, STAGES, assert_whole, make_images, relabel
from zarrloc.engine.verify import verify
from zarrloc.errors import StoreError
from zarrloc.groups.crops import Crops
from zarrloc.images import find
from zarrloc.stages.ingest import ingest
from zarrloc.store.columns import read_column
from zarrloc.store.location import Location
from zarrloc.store.read import stage_attrs

SHARDS = [f"fovs/image/c/{block}/0/0/0" for block in range(FOVS // SHARD)]


@pytest.fixture
def store(undisturbed: Path) -> Path:
    """A copy of a store of every stage, beside the same images."""
    store = undisturbed.with_name("fault.zarr")
    shutil.rmtree(store, ignore_errors=True)
    return Path(shutil.copytree(undisturbed, store))


def images(store: Path) -> xr.Dataset:
    return xr.open_zarr(store, group="fovs").load()


def faults(store: Path) -> list[Any]:
    return [found for found in verify(store, deep=True) if found.faults]


def flip(path: Path, at: int = -9) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, cut, empty, Path.unlink])
def test_01_a_damaged_document_never_costs_the_pixels(
    store: Path, undisturbed: Path, damage: Callable[[Path], None]
) -> None:
    damage(store / "fovs/zarr.json")
    for stage in ("ingest", "segment"):
        with pytest.raises(StoreError, match=r"verify fault\.zarr --repair"):
            STAGES[stage](store)
    for key in SHARDS:
        assert (store / key).read_bytes() == (undisturbed / key).read_bytes()
    verify(store, repair=True)
    assert STAGES["ingest"](store) == 0
    assert_whole(store, undisturbed)


def test_03_an_ingest_that_listed_before_another_appended_keeps_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, listed = tmp_path / "s.zarr", find.find
    make_images(tmp_path, 5)

    def then_another(*arguments: Any, **named: Any) -> Any:
        found = listed(*arguments, **named)
        monkeypatch.setattr(find, "find", listed)
        make_images(tmp_path)
        assert STAGES["ingest"](store) == 0
        return found

    monkeypatch.setattr(find, "find", then_another)
    assert STAGES["ingest"](store) == 0
    assert images(store).sizes["fov"] == FOVS
    assert (images(store).error == "").all()
    assert not faults(store)


def test_04_fields_without_their_names_are_not_appended_again(
    store: Path, undisturbed: Path
) -> None:
    (store / "fovs/fov/c/0").unlink()
    assert faults(store)
    with pytest.raises(StoreError, match="'fovs/fov' is damaged"):
        STAGES["ingest"](store)
    verify(store, repair=True)  # every group of fields has a copy
    assert STAGES["ingest"](store) == 0
    assert_whole(store, undisturbed)


def test_05_a_commit_keeps_an_array_whose_metadata_are_gone(store: Path) -> None:
    (store / "fovs/image/zarr.json").unlink()
    assert faults(store)
    assert relabel(store) == 0
    assert "image" in images(store)
    assert not faults(store)


def test_06_a_shard_that_is_cut_off_is_written_again(store: Path, undisturbed: Path) -> None:
    cut(store / SHARDS[1])
    verify(store, repair=True)
    assert STAGES["ingest"](store) == 0
    assert_whole(store, undisturbed)


@pytest.mark.parametrize("what", [SHARDS[0], "fovs/block_output/c/0"])
def test_07_damage_and_the_next_plate_cost_no_sound_row(
    store: Path, undisturbed: Path, tmp_path: Path, what: str
) -> None:
    path = store / what
    flip(path, 40) if what == SHARDS[0] else path.unlink()
    verify(store, deep=True, repair=True)
    before = images(undisturbed)
    make_images(tmp_path, 2)
    plate = tmp_path / "plate"
    plate.mkdir()
    for n, file in enumerate(sorted((tmp_path / "raw").glob("*.tif"))):
        shutil.copy(file, plate / f"OC-FOV_Z_ENSG00000000009_CID000999_FID0000090{n}_proj.tif")
    summary = ingest(plate, store, run=SERIAL)
    after = images(store)
    assert after.sizes["fov"] == FOVS + 2
    damaged = {int(row) for row in np.flatnonzero(after.error.values != "")}
    assert len(damaged) <= 1
    assert summary.exit_code == (3 if damaged else 0)
    for row in set(range(FOVS)) - damaged:
        np.testing.assert_array_equal(after.image.values[row], before.image.values[row])
    assert STAGES["ingest"](store) == 0  # its own folder brings the damaged one back
    healed = images(store)
    np.testing.assert_array_equal(healed.image.values[:FOVS], before.image.values)
    assert (healed.error == "").all()
    assert not faults(store)


@pytest.mark.parametrize(
    ("column", "stage"),
    [
        ("cells/s/keep", "embed cells"),
        ("heads/h/weights/weight_0", "predict"),
        ("splits/p/fold", "train"),
        ("fovs/grade", "train"),
        ("cells/s/expert_seen", "cells"),
    ],
)
def test_09_a_column_without_its_object_is_not_read_as_its_fill_value(
    store: Path, column: str, stage: str
) -> None:
    for path in [*(store / column).glob("c/**/*"), *(store / column).glob("c.*")]:
        if path.is_file():
            path.unlink()
    assert faults(store)
    with pytest.raises(StoreError, match="is damaged"):
        STAGES[stage](store, overwrite=stage in ("train", "predict"))


def test_09_judgements_outlast_their_tables_document(store: Path, undisturbed: Path) -> None:
    (store / "cells/s/zarr.json").unlink()
    with pytest.raises(StoreError, match=r"verify fault\.zarr --repair"):
        STAGES["cells"](store)
    verify(store, repair=True)
    assert STAGES["cells"](store) == 0
    assert_whole(store, undisturbed)


def test_12_cell_stages_compare_masks_and_images_with_their_receipts(store: Path) -> None:
    flip(store / "segmentations/s/mask/c/1/0/0", 40)
    for stage in ("cells", "embed cells"):
        assert STAGES[stage](store, overwrite=True) == 1, stage  # a block that is not done
    fov_index = xr.open_zarr(store, group="cells/s").fov_index.values
    crops = Crops(store, "s", size=32)
    rows = np.flatnonzero(fov_index // SHARD == 1)
    with pytest.raises(StoreError, match="damaged"):
        crops[int(rows[0]) : int(rows[-1]) + 1]


def test_12_a_segmentation_that_is_being_redone_is_not_taken(store: Path) -> None:
    location = Location.of(store)
    group = location.group("segmentations/s")
    group["block_output"][1:2] = 0  # type: ignore[index]
    _without_digest(store / "segmentations/s/zarr.json", "block_output")
    for stage in ("cells", "embed cells"):
        with pytest.raises(StoreError, match="not done"):
            STAGES[stage](store)


def _without_digest(document: Path, column: str) -> None:
    """As a running stage leaves its document: the column is in motion."""
    from zarrloc.store.document import digest_of

    whole = json.loads(document.read_bytes())
    del whole["attributes"]["column_digests"][column]
    whole["attributes"]["document_digest"] = digest_of(whole)
    document.write_text(json.dumps(whole))


def test_13_an_append_launders_no_damage(tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    make_images(tmp_path, 5)
    assert STAGES["ingest"](store) == 0
    right = images(store).image.values
    shard = store / SHARDS[2]  # half full: an append writes it again
    group = Location.of(store).group("fovs")
    pixels = read_column(group, "image", 5, 4)
    pixels[0, 0, 3, 3] += 1
    group["image"][4:5] = pixels  # type: ignore[index]  # sound bytes, other values
    assert shard.exists()
    make_images(tmp_path)
    STAGES["ingest"](store)
    np.testing.assert_array_equal(images(store).image.values[:5], right)
    assert not faults(store)


def test_18_weights_that_moved_are_the_same_weights(store: Path, tmp_path: Path) -> None:
    import torch

    from zarrloc.config.embed import EmbedConfig
    from zarrloc.models import backbones
    from zarrloc.stages.embed import embed

    backbone = backbones.load("timm:test_vit", "random:0")
    found = []
    for name in ("here.pth", "there.pth"):
        torch.save(backbone.vit.state_dict(), tmp_path / name)
        config = EmbedConfig(backbone="timm:test_vit", weights=str(tmp_path / name), size="64")
        found.append(embed(store, config, "moved", run=SERIAL).blocks_run)
        (tmp_path / name).unlink()
    assert found == [FOVS // SHARD, 0]
    attrs = stage_attrs(Location.of(store).group("embeddings/moved", mode="r"))
    assert attrs.config["weights_hash"] == backbone.weights_hash
