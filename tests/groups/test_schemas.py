import copy
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from tests.image_files import write_label_tables, write_opencell
from zarrloc.config.embed import EmbedConfig
from zarrloc.config.ingest import IngestConfig
from zarrloc.config.run import RunConfig
from zarrloc.config.split import SplitConfig
from zarrloc.groups import schemas
from zarrloc.stages.embed import embed
from zarrloc.stages.ingest import ingest
from zarrloc.stages.split import split
from zarrloc.store.document import groups
from zarrloc.store.location import Location

SERIAL = RunConfig(cluster="serial")


def _committed(name: str) -> dict[str, Any]:
    schema = json.loads((schemas.FOLDER / f"{name}.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    return dict(schema)


def _validate(values: Any, name: str) -> None:
    Draft202012Validator(_committed(name)).validate(values)


def test_committed_schemas_are_what_the_models_say(tmp_path: Path) -> None:
    if tuple(map(int, version("pydantic").split(".")[:2])) < (2, 14):
        # It leaves out what a dataclass within a model says of itself.
        assert set(schemas.stale()) <= {"splits-attrs.schema.json"}
    else:
        assert schemas.stale() == []
    assert schemas.stale(tmp_path) == sorted(schemas.texts())
    schemas.write(tmp_path)
    (tmp_path / "old.schema.json").write_text("{}")
    (tmp_path / "embed-config.schema.json").write_text("{}")
    assert schemas.stale(tmp_path) == ["embed-config.schema.json", "old.schema.json"]


def test_every_config_has_one() -> None:
    stages = {
        "embed",
        "evaluate",
        "ingest",
        "pretrain",
        "run",
        "segment",
        "simulate",
        "split",
        "train",
    }
    assert stages <= {name.removesuffix("-config.schema.json") for name in schemas.schemas()}


@pytest.mark.parametrize("model", list(schemas.configs()), ids=lambda model: model.__name__)
def test_a_config_at_its_defaults_is_valid_and_a_typo_is_not(model: Any) -> None:
    (name,) = [n for n, s in schemas.schemas().items() if s["title"] == model.__name__]
    name = name.removesuffix(".schema.json")
    required = {key: "x" for key, field in model.model_fields.items() if field.is_required()}
    if "to" in required:
        required["to"] = "csv"
    if "rows" in required:
        required["rows"] = [{"name": "x", "backbone": "x"}]
    if model.__name__ == "PretrainConfig":
        required = {"arch": "vit_small_patch8"}
    values = json.loads(model(**required).model_dump_json(by_alias=True))
    _validate(values, name)
    with pytest.raises(ValidationError, match="typo"):
        _validate({**values, "typo": 1}, name)


def test_what_a_model_refuses_its_schema_refuses() -> None:
    _validate({"channels": ["nucleus", "protein"], "shard_fovs": 4}, "ingest-config")
    for wrong in ({"shard_fovs": 0}, {"project": "top"}, {"channels": "nucleus"}, {"axis": "CYX"}):
        with pytest.raises(ValidationError):
            _validate(wrong, "ingest-config")


def test_real_stores_hold_what_the_schemas_say(tmp_path: Path) -> None:
    store = tmp_path / "s"
    write_opencell(tmp_path / "raw", 8)
    annotations, cell_lines = write_label_tables(tmp_path)
    ingest(
        tmp_path / "raw", store, IngestConfig(shard_fovs=4), run=SERIAL,
        labels=annotations, cell_lines=cell_lines,
    )  # fmt: skip
    config = EmbedConfig(backbone="timm:test_vit", weights="random:0", size="32")
    embed(store, config, "e", run=SERIAL)
    split(store, SplitConfig(folds=2, group="image"), "images")
    paths = groups(Location.of(store))
    assert paths == ["fovs", "embeddings/e", "splits/images"]
    for path in ["", *paths]:
        attributes = json.loads((store / path / "zarr.json").read_text())["attributes"]
        kind = path.split("/")[0] or "root"
        _validate(attributes, f"{kind}-attrs")
        wrong = copy.deepcopy(attributes)
        (wrong.get("zarrloc", wrong))["unheard_of"] = 1
        with pytest.raises(ValidationError, match="unheard_of"):
            _validate(wrong, f"{kind}-attrs")
