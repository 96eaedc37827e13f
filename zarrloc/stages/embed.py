"""Embed: fields of view or cells become feature vectors of a backbone, in `embeddings/<name>`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

import numpy as np
import numpy.typing as npt

from zarrloc.config.embed import EmbedConfig
from zarrloc.config.run import RunConfig
from zarrloc.engine.block import D, P, Part, S, Stage
from zarrloc.engine.carry_out import carry_out
from zarrloc.engine.plan import AnyPlan, Before, Plan
from zarrloc.engine.telemetry import Summary
from zarrloc.errors import ConfigError
from zarrloc.groups import embeddings
from zarrloc.groups.cells import CellTable
from zarrloc.groups.fovs import GROUP as FOVS
from zarrloc.groups.fovs import Fovs
from zarrloc.groups.segmentations import Masks
from zarrloc.models import backbones, channels, source, specs
from zarrloc.models.backbones import CLASSIC
from zarrloc.models.inputs import Affine, Detail, Norm, Size, refuse_norm
from zarrloc.models.inputs import Plan as InputPlan
from zarrloc.pixels.window import PAPER_UM, window_px
from zarrloc.store.attrs import CHANNEL_OF, WINDOW_UM, StageAttrs, check_name
from zarrloc.store.digest import combine, digest
from zarrloc.store.location import Location
from zarrloc.store.read import need

if TYPE_CHECKING:
    from zarrloc.groups.crops import CropSpec
    from zarrloc.models.classic import Classic
    from zarrloc.models.forward import Forward

COLUMNS = ("error", "largest_input")
READ_S = 0.02
"""A megapixel of one channel: read and decoded on a core."""
PRETRAINING = ("objective", "from", "views", "fields", "held_out", "steps", "warnings")


@dataclass(frozen=True)
class Rows(Generic[P]):
    """What the rows of an embedding are, and what its blocks are made from."""

    dim: str
    count: int
    block_rows: int
    coords: dict[str, npt.NDArray[Any]]
    inputs: dict[str, str]
    """Group -> fingerprint."""
    parts: list[Part[P]]
    """What each block reads; the stage's settings are not in its digest yet."""


def embed(
    store: str | Path,
    config: EmbedConfig,
    name: str,
    *,
    run: RunConfig | None = None,
    overwrite: bool = False,
) -> Summary:
    """Embed every field, or every cell, into `embeddings/<name>`.

    `embedding (fov or cell, feature)` is float32, row i is row i of `fovs` or of the cell table. A
    row that failed is NaN and has an `error`; a cell not kept is NaN without one. Raises
    `ConfigError`, `ChannelError`, `WeightsError`, `StoreError` or `LockedError` before anything
    is written.
    """
    location, group = Location.of(store), f"embeddings/{check_name(name)}"
    notes: list[str] = []

    def make(_: Before) -> AnyPlan:
        fovs = Fovs.of(location)
        if config.level == "cell" and config.cells:
            need(location, f"cells/{config.cells}", f"segment STORE --name {config.cells}")
        forward, settings, about, row_s = _extractor(config, fovs)
        reading_s = None  # over a network, nobody knows
        if location.path is not None:
            reading_s = READ_S * fovs.rows * fovs.megapixels * len(fovs.roles)
        # Imported late: what can be refused is refused before torch is loaded, which takes seconds.
        from zarrloc.tasks.embed_cells import EmbedCells
        from zarrloc.tasks.embed_fovs import EmbedFovs

        notes[:] = [*settings.get("pretraining", {}).get("warnings", ()), *about]
        if config.level == "cell":
            spec = _crop_spec(config, fovs)
            settings |= {"cells": config.cells, "all_cells": config.all_cells, **vars(spec)}
            settings[WINDOW_UM] = config.crop_um or PAPER_UM
            cells = EmbedCells(
                location, group, str(config.cells), forward, spec, config.norm == "cell",
                config.all_cells, config.precision,
            )  # fmt: skip
            rows = _cell_rows(location, fovs, str(config.cells))
            return _embedding(cells, rows, forward.width, settings, row_s, reading_s)
        fields = EmbedFovs(
            location, group, forward, fovs.height, fovs.width, fovs.dtype, config.precision
        )
        return _embedding(fields, _fov_rows(fovs), forward.width, settings, row_s, reading_s)

    outcome = carry_out(location, group, make, run, overwrite=overwrite)
    notes[-1] += f"; largest value {float(outcome.columns['largest_input'].max(initial=0)):.1f}"
    outcome.summary.notes += notes
    return outcome.summary


def _embedding(
    work: Stage[P, D, S],
    rows: Rows[P],
    width: int,
    settings: Mapping[str, Any],
    row_s: float,
    reading_s: float | None,
) -> Plan[P, D, S]:
    """What to do. A core takes about `row_s` for a row, and `reading_s` to read all fields."""
    attrs = StageAttrs.of(
        "embed", settings, rows.inputs,
        block_rows=rows.block_rows, array="embedding", digested=list(COLUMNS),
    )  # fmt: skip
    return Plan(
        attrs,
        embeddings.template(rows.dim, rows.count, width, rows.block_rows, rows.coords),
        coords=rows.coords,
        coordinates=("error", *rows.coords),
        work=work,
        columns=COLUMNS,
        parts=[
            replace(part, input=combine([attrs.fingerprint, part.input])) for part in rows.parts
        ],
        unit="FOV" if rows.dim == "fov" else "cell",
        block_s=None
        if reading_s is None
        else rows.block_rows * row_s + reading_s / max(1, len(rows.parts)),
    )


def _extractor(
    config: EmbedConfig, fovs: Fovs
) -> tuple[Forward | Classic, dict[str, Any], list[str], float]:
    """What makes the features, the settings that fingerprint it, and notes for the user.

    And about how long a core takes for a row, in seconds.
    """
    if config.level == "cell" and not config.cells:
        raise ConfigError("--level cell needs --cells NAME, a table made by `zarrloc segment`")
    if config.backbone == CLASSIC:
        return _classic(config, fovs)
    return _forward(config, fovs)


def _classic(config: EmbedConfig, fovs: Fovs) -> tuple[Classic, dict[str, Any], list[str], float]:
    for flag, value, only in (
        ("weights", config.weights, None),
        ("channels", config.channels, None),
        ("last-blocks", config.last_blocks, 1),
        ("norm", config.norm, "auto"),
        ("precision", config.precision, "auto"),
    ):
        if value != only:
            raise ConfigError(
                f"--{flag} {value} is for networks; --backbone classic measures every channel as "
                f"it is stored: leave --{flag} out"
            )
    plan = _plan(config, fovs, 1)

    from zarrloc.models.classic import Classic
    from zarrloc.models.cost import CLASSIC_S
    from zarrloc.pixels.classic import RADII, VERSION

    resized = "native" if config.level == "cell" else str(Size.parse(config.size))
    settings = {
        "level": config.level,
        "backbone": CLASSIC,
        "version": VERSION,
        "channels": list(fovs.roles),
        CHANNEL_OF: {role: channel for channel, role in enumerate(fovs.roles)},
        "size": config.size,
        **_physical(config, fovs),
    }
    reach = f"texture over {RADII[0]} to {RADII[-1]} px"
    if plan.um_per_px is not None:
        reach += f", {RADII[0] * plan.um_per_px:.2f} to {RADII[-1] * plan.um_per_px:.2f} um"
    notes = [
        f"channels: {', '.join(fovs.roles)}, each by itself and in pairs",
        f"{_describe(plan)}; {reach}",
    ]
    classic = Classic(len(fovs.roles), resized, fovs.pixel_size_um)
    return classic, settings, notes, CLASSIC_S * plan.height * plan.width


def _stored(config: EmbedConfig, fovs: Fovs) -> tuple[int, int]:
    """Height and width of fields, or of windows of cells, in stored pixels."""
    if config.level == "cell":
        window = window_px(config.crop_um, fovs.pixel_size_um)
        return window, window
    return fovs.height, fovs.width


def _plan(config: EmbedConfig, fovs: Fovs, patch: int) -> InputPlan:
    """The size that fields, or windows of cells, get."""
    return Size.parse(config.size).plan(*_stored(config, fovs), patch, fovs.pixel_size_um)


def _other_detail(
    config: EmbedConfig, fovs: Fovs, plan: InputPlan, learned: Detail
) -> Iterator[str]:
    """A word where the images are shown much finer or coarser than in the backbone's training."""
    longer = max(_stored(config, fovs))
    shown = Detail.of(longer / max(plan.height, plan.width), fovs.pixel_size_um)
    if not shown.near(learned):
        times = shown.coarser(learned)
        how = f"{times:.1f} times as coarse" if times > 1 else f"{1 / times:.1f} times as fine"
        yield (
            f"shown {how} as in the backbone's training, which can cost accuracy; --size "
            f"{learned.size(longer, fovs.pixel_size_um)} shows the same detail"
        )


def _physical(config: EmbedConfig, fovs: Fovs) -> dict[str, Any]:
    return {"pixel_size_um": fovs.pixel_size_um} if config.size.startswith("um:") else {}


def _forward(config: EmbedConfig, fovs: Fovs) -> tuple[Forward, dict[str, Any], list[str], float]:
    if config.level == "fov" and config.norm == "cell":
        raise ConfigError("--norm cell is for --level cell; fields take zscore, imagenet or none")
    source.refuse_absent(config.weights)
    _plan(config, fovs, 1)  # refuses a size before a backbone is looked for
    spec = backbones.spec(config.backbone)
    mapping = channels.resolve(config.channels, spec.roles, fovs.roles, spec.default_channels)
    made_by = _pretraining(config.backbone)
    trained = _affine(made_by)
    chosen = ("trained" if trained else spec.norm) if config.norm == "auto" else config.norm
    norm: Norm = "none" if chosen == "cell" else chosen
    refuse_norm(norm, mapping.input_roles, trained)
    plan = _plan(config, fovs, spec.patch)

    from zarrloc.models.cost import CORE_FLOPS, forward_flops, tokens_of
    from zarrloc.models.forward import Forward, Model

    backbone = backbones.load(config.backbone, config.weights)
    model = Model(config.backbone, _absolute(config.weights), backbone.weights_hash)
    resized = "native" if config.level == "cell" else str(Size.parse(config.size))
    backbone.refuse_blocks(config.last_blocks)
    forward = Forward(
        model, mapping, resized, norm, fovs.pixel_size_um, spec.features, trained,
        config.last_blocks,
    )  # fmt: skip
    settings = {
        "level": config.level,
        "backbone": spec.name,
        "architecture": spec.timm_model,
        "weights": backbone.weights_source,
        "weights_hash": backbone.weights_hash,
        "channels": mapping.as_config(),
        **({CHANNEL_OF: mapping.channel_of} if mapping.channel_of else {}),
        "size": config.size,
        **({"last_blocks": config.last_blocks} if config.last_blocks > 1 else {}),
        "norm": chosen,
        **({"trained": list(map(list, trained))} if trained and norm == "trained" else {}),
        **(
            {"pretraining": _recorded(made_by["lineage"])} if made_by and not config.weights else {}
        ),
        "precision": config.precision,
        **_physical(config, fovs),
    }
    tokens = tokens_of(spec, plan.height, plan.width, len(fovs.roles))
    row_s = mapping.feature_width(1) * forward_flops(spec, tokens) / CORE_FLOPS
    notes = [f"channels: {mapping.describe()}", _describe(plan)]
    learned = made_by["lineage"].get("detail") if made_by and not config.weights else None
    if learned:
        notes += _other_detail(config, fovs, plan, Detail(**learned))
    return forward, settings, notes, row_s


def _pretraining(backbone: str) -> dict[str, Any] | None:
    """What `zarrloc pretrain` recorded beside its backbone; None for any other."""
    if backbone in specs.SPECS or not Path(backbone).is_dir():
        return None
    from zarrloc.models import weights

    return weights.read_metadata(Path(backbone))


def _affine(recorded: Mapping[str, Any] | None) -> Affine | None:
    """What a backbone's inputs were standardised with when it was trained on [0, 1]."""
    if recorded is None or recorded["normalisation"].get("kind") != "unit":
        return None
    return tuple(recorded["normalisation"]["mean"]), tuple(recorded["normalisation"]["sd"])


def _recorded(lineage: Mapping[str, Any]) -> dict[str, Any]:
    """What a reader of the embedding must know of its backbone's training."""
    found = {key: lineage[key] for key in PRETRAINING if key in lineage}
    if guard := lineage.get("guard"):
        found["guard_at_start"], found["guard_at_end"] = guard[0], guard[-1]
    return found


def _describe(plan: InputPlan) -> str:
    text = f"input: {plan.height} x {plan.width} px"
    if plan.um_per_px is not None:
        text += f", {plan.um_per_px:.3f} um a pixel"
    if plan.um_per_token is not None:
        text += f", {plan.um_per_token:.2f} um a token"
    return text


def _crop_spec(config: EmbedConfig, fovs: Fovs) -> CropSpec:
    from zarrloc.groups.crops import CropSpec

    window = window_px(config.crop_um, fovs.pixel_size_um)
    plan = Size.parse(config.size).plan(window, window, 1, fovs.pixel_size_um)
    return CropSpec(window, plan.height, config.outside)


def _fov_rows(fovs: Fovs) -> Rows[None]:
    starts = range(0, fovs.rows, fovs.shard)
    return Rows(
        "fov",
        fovs.rows,
        fovs.shard,
        fovs.coords,
        {FOVS: fovs.fingerprint},
        [
            Part(int(output), None, {FOVS: fovs.expect(start, start + fovs.shard)})
            for start, output in zip(starts, fovs.block_output, strict=True)
        ],
    )


def _cell_rows(location: Location, fovs: Fovs, name: str) -> Rows[dict[str, npt.NDArray[Any]]]:
    table, masks = CellTable.of(location, name), Masks.of(location, name)
    parts = []
    for start in range(0, len(table.fov_index), table.block_rows):
        columns = table.rows(start, start + table.block_rows)
        fov = columns["fov_index"]
        first, stop = int(fov[0]), int(fov[-1]) + 1
        expect = {
            FOVS: fovs.expect(first, stop),
            f"segmentations/{name}": masks.expect(first, stop),
        }
        units = tuple((start + np.flatnonzero(np.diff(fov, prepend=-1))).tolist())
        read = combine([digest(columns), *expect.values()])
        parts.append(Part(read, columns, expect, units))
    coords = {coord: values[table.fov_index] for coord, values in fovs.coords.items()}
    return Rows(
        "cell",
        len(table.fov_index),
        table.block_rows,
        {**coords, "keep": table.keep, "fov_index": table.fov_index},
        {
            FOVS: fovs.fingerprint,
            f"segmentations/{name}": masks.fingerprint,
            f"cells/{name}": table.fingerprint,
        },
        parts,
    )


def _absolute(weights: str | None) -> str | None:
    if weights is None or weights.startswith("random:"):
        return weights
    return str(Path(weights).expanduser().resolve())
