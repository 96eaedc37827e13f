"""`zarrloc` in a group's attributes: how its values came to be."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from zarrloc.errors import ConfigError
from zarrloc.store.digest import fingerprint


class StageAttrs(BaseModel):
    """Which stage made a group, from what, and with which settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    config: dict[str, Any]
    """Every setting that changes values."""
    inputs: dict[str, str]
    """Group path -> fingerprint of what was read."""
    fingerprint: str
    """Hash of stage, config and inputs; not of paths, FOV lists, labels or workers."""
    block_rows: int = 0
    """Rows of one block, 0 for groups that are written in one piece."""
    array: str | None = None
    """The one array that workers write, in whole shards; its rows have digests."""
    digested: list[str] = []
    """The columns that a block's digest covers."""
    execution: dict[str, Any] = {}
    """Batch size, threads, device kind and precision: settled once, reused on resume."""
    versions: dict[str, str] = {}

    @classmethod
    def of(
        cls, stage: str, config: Mapping[str, Any], inputs: Mapping[str, str], **rest: Any
    ) -> "StageAttrs":
        """Attributes with their fingerprint computed."""
        parts: dict[str, Any] = {"stage": stage, "config": dict(config), "inputs": dict(inputs)}
        hashed = {**parts, "config": {k: v for k, v in config.items() if k not in NOT_HASHED}}
        return cls(**parts, fingerprint=fingerprint(hashed), versions=versions(), **rest)

    def reads_as(self, other: "StageAttrs") -> bool:
        """Whether both read the same channels, as far as each says which it reads."""
        mine, theirs = self.config.get(CHANNEL_OF), other.config.get(CHANNEL_OF)
        return mine is None or theirs is None or mine == theirs

    def difference(self, other: "StageAttrs") -> list[str]:
        """Lines such as `size: 224 -> 448`: what differs between this and `other`."""
        before = {**_flat(self.config), **{f"input {k}": v for k, v in self.inputs.items()}}
        after = {**_flat(other.config), **{f"input {k}": v for k, v in other.inputs.items()}}
        return [
            f"{key}: {before.get(key, '(none)')} -> {after.get(key, '(none)')}"
            for key in sorted(before.keys() | after.keys())
            if before.get(key) != after.get(key)
        ]


CHANNEL_OF, WINDOW_UM = "channel_of", "window_um"
"""Settings that say which facts beside the pixels a group stands on: the channel that was read for
each role, and the micrometres that a window of so many pixels is to be."""

NOT_HASHED = frozenset(
    {"weights", "channel_names", "some_channels", "file_pixel_um", "any_dtype", "lossy"}
    | {CHANNEL_OF, WINDOW_UM}
)
"""Settings that are recorded but make no other values: a weights file's name (its hash counts),
which further image files are taken, and facts that a changed pixel or window tells of."""


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def versions() -> dict[str, str]:
    """Versions of the software that decides values."""
    from importlib.metadata import version

    return {name: version(name) for name in ("zarrloc", "numpy", "zarr", "torch")}


def check_name(name: str) -> str:
    """A name that can be a group: up to 100 letters, digits, `.`, `_` and `-`, not hidden.

    Raises
    ------
    ConfigError
        Where it is not one.
    """
    if name == "zarr.json" or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ConfigError(
            f"name {name[:120]!r} cannot name a group; use up to 100 letters, digits, '.', '_' "
            "and '-'"
        )
    return name


class RootAttrs(BaseModel):
    """Attributes of the store's root."""

    model_config = ConfigDict(extra="forbid")

    format: int = Field(ge=1, description="Version of the layout; a newer one is refused.")
    document_digest: str = Field(description="xxh3 of this document, the digest itself left out.")


class GroupAttrs(BaseModel):
    """Attributes of every group that a stage makes."""

    model_config = ConfigDict(extra="forbid")

    coordinates: str = Field(description="Names of the coordinate arrays, separated by spaces.")
    document_digest: str = Field(description="xxh3 of this document, the digest itself left out.")
    column_digests: dict[str, str] = Field(
        {}, description="Column -> xxh3 of its values; none while a run is writing it."
    )
    zarrloc: StageAttrs
