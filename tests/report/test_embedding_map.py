"""What the map's script is handed: it unpacks to what went in."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.report.conftest import CONFIG, flat
from tests.report.test_gather import bare
from tests.written import revise
from zarrloc.report.embedding_map import coded, embedding_map, joined, packed, placed
from zarrloc.report.gather import gather
from zarrloc.store.location import Location


def unpacked(given: dict[str, str]) -> npt.NDArray[Any]:
    return np.frombuffer(base64.b64decode(given["bytes"]), np.dtype(given["type"]))


@pytest.mark.parametrize("kind", ["uint8", "uint16", "uint32", "int32"])
def test_integers_are_packed_in_the_order_of_browsers(kind: str) -> None:
    values = np.array([0, 1, 200], np.dtype(kind).newbyteorder(">"))
    given = packed(values)
    assert given["type"] == kind
    assert unpacked(given).tolist() == [0, 1, 200]


def test_points_keep_their_proportions_and_point_down() -> None:
    points = np.array([[-1, 5], [3, 5], [1, 7]], np.float32)
    np.testing.assert_array_equal(
        placed(points), [[0, 32768], [65535, 32768], [32768, 0]]
    )  # two high, four wide: one step for both
    np.testing.assert_array_equal(placed(np.ones((2, 2), np.float32)), np.zeros((2, 2)))


def test_texts_become_a_table_and_codes() -> None:
    given = coded(np.array(["b", "a", "b"]))
    assert given["table"] == ["a", "b"]
    assert unpacked(given["code"]).tolist() == [1, 0, 1]


def test_labels_are_joined() -> None:
    marked = np.array([[1, 1], [0, 1], [0, 0]], bool)
    assert joined(marked, ("x", "y")).tolist() == ["x, y", "y", "none"]


def test_a_plate_is_a_colouring_and_a_text_of_many_values_is_only_shown(tmp_path: Path) -> None:
    location = bare(tmp_path)
    plates = np.repeat(["P1", "P2"], 20)
    wells = np.array([f"well {index}" for index in range(40)])
    revise(
        location, "fovs", plate=(("fov",), plates), well=(("fov",), wells),
        empty=(("fov",), np.full(40, "")),
    )  # fmt: skip
    contents = gather(location, CONFIG, flat)
    assert contents.coords["plate"].tolist() == plates.tolist()
    made = embedding_map(location, contents, CONFIG)
    assert json.loads(json.dumps(made.data)) == made.data
    assert made.data["count"] == 40
    assert unpacked(made.data["row"]).tolist() == list(range(40))
    by_name = {each["name"]: each for each in made.data["colourings"]}
    assert set(by_name) == {"reference label", "plate"}
    groups = [group["name"] for group in by_name["plate"]["groups"]]
    code = unpacked(by_name["plate"]["code"])
    assert [groups[each] for each in code] == plates.tolist()
    assert [group["count"] for group in by_name["plate"]["groups"]] == [20, 20]
    columns = made.data["columns"]
    assert {"protein", "field", "reference", "plate", "well"} <= set(columns)
    assert "predicted" not in columns  # there is no head
    assert "empty" not in columns


def test_the_trained_store_has_predictions(trained: Path) -> None:
    location = Location.of(trained)
    made = embedding_map(location, gather(location, CONFIG, flat), CONFIG)
    column = made.data["columns"]["predicted"]
    assert unpacked(column["code"]).max() < len(column["table"])
