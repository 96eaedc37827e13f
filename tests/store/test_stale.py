import numpy as np
import pytest

from zarrloc.store.columns import column_digest
from zarrloc.store.digest import combine
from zarrloc.store.next_steps import next_steps
from zarrloc.store.stale import Held, stale


def held(stage="embed", rows=4, dim="fov", *, inputs=None, config=None, columns=None, **attrs):
    """A group as `info` holds it; its fingerprint is its stage's name."""
    made = {"stage": stage, "fingerprint": stage, "inputs": inputs or {}, "config": config or {}}
    return Held({"zarrloc": made, **attrs}, {"x": ((dim, rows),)}, columns or {})


COLUMNS = ("grade", "drug", "protein", "channel", "well")


def fovs(rows=4, size=0.2, **attrs):
    output = {
        "block_output": np.array([11, 12], np.uint64),
        "channel": np.array(["nucleus", "protein"], np.dtypes.StringDType()),
    }
    return held("ingest", rows, columns=output, pixel_size_um=size, **attrs)


def blocks(stage, *outputs):
    """Receipts of blocks that were made from these digests of fields."""
    made = np.array([combine([stage, output]) for output in outputs], np.uint64)
    return {"block_input": made, "block_output": np.ones(len(made), np.uint64)}


def test_what_fits_is_not_stale() -> None:
    groups = {
        "fovs": fovs(column_digests={"grade": "g"}),
        "segmentations/s": held(
            "segment", inputs={"fovs": "ingest"}, columns=blocks("segment", 11, 12)
        ),
        "embeddings/e": held(inputs={"fovs": "ingest"}, config={"pixel_size_um": 0.2}),
        "heads/h": held(
            "train", inputs={"embeddings/e": "embed", "features, labels and folds": "x"},
            labels_digest="g",
        ),
    }  # fmt: skip
    assert stale(groups) == {}


@pytest.mark.parametrize(
    ("group", "reason"),
    [
        (held(rows=3), "it knows 3 of 4 fields; the same command"),
        (held("split", rows=3), "it knows 3 of 4 fields; make it again"),
        (held(inputs={"fovs": "other"}), "fovs, which it was made from, was made again"),
        (held(inputs={"cells/c": "cells"}), "cells/c, which it was made from, is gone"),
        (held(columns=blocks("embed", 11, 99)), "the images of 1 of its 2 blocks changed"),
        (held(config={"pixel_size_um": 0.3}), "made at 0.3 um a pixel, now they are 0.2 um"),
        (held("train", labels_digest="old"), "the labels of the fields changed since"),
        (held(config={"window_px": 256, "window_um": 53.0}), "256 px are 51.2 um"),
        (held(config={"channel_of": {"nucleus": 1}}), "channel 2 as nucleus, which is channel 1"),
        (held(column_digests={"protein": "old"}), "coordinate 'protein' changed, and it holds"),
        (held(column_digests={"channel": "old"}), "the channels were renamed since; the same"),
        (held("split", made_by={"well": "old"}), "coordinate 'well' changed since the folds"),
        (
            held("train", labels_digest="old", config={"target": "drug"}),
            "the coordinate 'drug' of the fields changed since",
        ),
    ],
)
def test_each_reason_is_given_and_passed_on(group: Held, reason: str) -> None:
    groups = {
        "fovs": fovs(column_digests=dict.fromkeys(COLUMNS, "new")),
        "embeddings/e": group,
        "heads/h": held("train", inputs={"embeddings/e": str(group.stage["fingerprint"])}),
    }
    found = stale(groups)
    assert [reason in text for text in found["embeddings/e"]] == [True]
    assert found["heads/h"] == ["it stands on embeddings/e, which is stale"]


@pytest.mark.parametrize("size", [0.2063, 0.2075, None])
def test_windows_that_are_still_as_wide_are_not_stale(size: float | None) -> None:
    cells = held("cells", dim="cell", config={"window_px": 256, "window_um": 53.0})
    assert stale({"fovs": fovs(size=size), "cells/c": cells}) == {}


def test_a_role_that_only_got_another_name_made_nothing_stale() -> None:
    masks = held("segment", config={"channel_of": {"ch1": 0}})
    assert stale({"fovs": fovs(), "segmentations/s": masks}) == {}


def test_rows_of_cells_hold_what_their_fields_said() -> None:
    names = np.array(["a", "b", "b", "c"], np.dtypes.StringDType())
    of = np.array([0, 0, 2, 3])
    fields = fovs(column_digests={"protein": "any"})
    fields.columns["protein"] = names
    for copied, reasons in ((names[of], 0), (names[[1, 1, 2, 3]], 1)):
        digests = {"protein": column_digest(copied)}
        cells = held(rows=4, dim="cell", columns={"fov_index": of}, column_digests=digests)
        found = stale({"fovs": fields, "embeddings/cells": cells})
        assert len(found.get("embeddings/cells", [])) == reasons


def test_a_head_knows_that_its_embedding_reads_other_channels_now() -> None:
    now = held(config={"channel_of": {"nucleus": 0}})
    head = held("train", inputs={"embeddings/e": "embed"}, embedding={"channel_of": {"nucleus": 1}})
    found = stale({"fovs": fovs(), "embeddings/e": now, "heads/h": head})
    assert "other channels since" in found["heads/h"][0]


def test_a_replaced_split_makes_its_heads_stale() -> None:
    fold = np.array([0, 1, 0, 1], np.int8)
    split = held("split", columns={"fold": fold})
    cells = np.array([0, 0, 3])
    for columns in ({"row_fold": fold}, {"row_fold": fold[cells], "fov_index": cells}):
        head = held("train", len(columns["row_fold"]), config={"split": "s"}, columns=columns,
                    dim="cell" if "fov_index" in columns else "fov")  # fmt: skip
        groups = {"fovs": fovs(), "splits/s": split, "heads/h": head}
        assert stale(groups) == {}
        groups["splits/s"] = held("split", columns={"fold": 1 - fold})
        assert "split 's' was made again" in stale(groups)["heads/h"][0]


def test_the_next_steps_follow_the_work() -> None:
    known = {"rows": {"failed": 0}, "pixel_size_um": 0.2}
    assert next_steps("s", {}) == ["read images: zarrloc ingest SOURCE s"]
    bare = next_steps("s", {"fovs": {"rows": {"failed": 2}, "blocks": {"total": 2, "done": 1}}})
    text = "\n".join(bare)
    for words in ("finish fovs", "info s --errors", "--pixel-size-um", "--conditions TABLE",
                  "zarrloc segment s", "zarrloc embed s"):  # fmt: skip
        assert words in text
    drug = {"coords": {"well": {"values": 4, "fields": 8}, "drug": {"values": 2, "fields": 8}}}
    groups = {"fovs": {**known, **drug}, "embeddings/e": {}}
    assert "make folds: zarrloc split s --name honest --target drug" in next_steps("s", groups)
    groups["splits/honest"] = {}
    train = "zarrloc train s --embedding e --split honest --name head --target drug"
    assert any(train in step for step in next_steps("s", groups))
    groups = {"fovs": {**known, "labels": ["er"]}, "embeddings/e": {}, "heads/h": {}}
    assert "score a head: zarrloc evaluate s --head h" in next_steps("s", groups)
    assert "see it all: zarrloc report s --out report.html" in next_steps("s", groups)
