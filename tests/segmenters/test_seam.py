"""The seam: callables, growth, and what asking for the wrong model says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pooch
import pytest

from zarrloc.config.segment import SegmentConfig
from zarrloc.errors import ChannelError, ConfigError, WeightsError
from zarrloc.segmenters import from_callable, grow, load, segment_block

ROLES = ("nucleus", "protein")
Labels = npt.NDArray[np.integer[Any]]


def bright(image: Labels, roles: tuple[str, ...]) -> Labels:
    """5 where the protein is above 10."""
    return np.where(image[roles.index("protein")] > 10, 5, 0)


def field() -> npt.NDArray[np.uint16]:
    image = np.zeros((2, 20, 30), np.uint16)
    image[1, 4:9, 4:9] = 20
    return image


def test_a_function_is_a_segmenter_and_its_ids_become_1_to_n() -> None:
    (mask,) = segment_block(from_callable(bright), [field()], ROLES)
    assert mask.dtype == np.uint32
    np.testing.assert_array_equal(mask, field()[1] > 10)


@pytest.mark.parametrize(
    "wrong", [np.zeros((3, 3), int), np.zeros((20, 30)), -np.eye(20, 30, dtype=int)]
)
def test_a_function_that_returns_no_mask_is_an_error(wrong: npt.NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="expected non-negative integers"):
        segment_block(from_callable(lambda image, roles: wrong), [field()], ROLES)


def test_a_functions_fingerprint_is_its_source_and_version() -> None:
    def other(image: Labels, roles: tuple[str, ...]) -> Labels:
        return np.where(image[0] > 11, 1, 0)

    prints = [dict(from_callable(f, v).fingerprint) for f, v in ((bright, ""), (bright, ""))]
    assert prints[0] == prints[1]
    assert from_callable(bright, "2").fingerprint != prints[0]
    assert from_callable(other).fingerprint["source"] != prints[0]["source"]
    shown: dict[str, Any] = {}
    exec("def typed(image, roles): return image[0]", shown)
    with pytest.raises(ConfigError, match="pass version"):
        from_callable(shown["typed"])
    assert from_callable(shown["typed"], "1").fingerprint["version"] == "1"


def test_grown_masks_grow_and_need_the_role_they_grow_into() -> None:
    seeds = from_callable(bright)
    plain, by_px = (
        segment_block(one, [field()], ROLES)[0] for one in (seeds, grow.Grown(seeds, None, 3.0))
    )
    assert by_px.sum() > plain.sum()
    grown = grow.Grown(seeds, "protein", None)
    assert grown.roles == ("protein",)
    assert grown.fingerprint["grow"] == "protein"
    assert grown.fingerprint != seeds.fingerprint
    with pytest.raises(ChannelError, match="er not found; the store has nucleus, protein"):
        segment_block(grow.Grown(seeds, "er", None), [field()], ROLES)


def test_watershed_needs_no_weights_and_grows_by_default() -> None:
    grown = load(SegmentConfig(model="watershed"))
    assert grown.roles == ("nucleus", "protein")
    assert load(SegmentConfig(model="watershed", grow="none")).roles == ("nucleus",)
    assert load(SegmentConfig(model="watershed", grow="7")).fingerprint["grow"] == 7


def test_unknown_models_and_missing_size_models_say_what_to_do(
    shared: Callable[..., Path],
) -> None:
    with pytest.raises(WeightsError, match="cyto3, cyto2, nuclei, cpsam, cpsam_v2, watershed"):
        load(SegmentConfig(model="cyto33"))
    weights = str(shared("weights", "cellpose_cpnet_v1_scellseg.pt"))
    with pytest.raises(ConfigError, match="size model"):
        load(SegmentConfig(model=weights))


@pytest.mark.parametrize(
    ("model", "file"), [("cyto2", "cyto2torch_0"), ("nuclei", "nucleitorch_0"), ("cpsam", "cpsam")]
)
def test_published_weights_that_cannot_be_fetched_say_where_to_put_them(
    model: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setenv("CELLPOSE_LOCAL_MODELS_PATH", str(tmp_path))
    monkeypatch.setattr(pooch, "retrieve", offline)
    with pytest.raises(WeightsError, match=f"fetch https://.*/{file} .*CELLPOSE_LOCAL_MODELS_PATH"):
        load(SegmentConfig(model=model))


@pytest.mark.parametrize("grow", ["-3", "0", "inf", "nan"])
def test_growth_by_no_distance_is_refused(grow: str) -> None:
    with pytest.raises(ConfigError, match="grow"):
        SegmentConfig.of({"grow": grow})


def test_defaults_follow_the_model() -> None:
    assert SegmentConfig().segmented == ("protein", "nucleus")
    assert SegmentConfig(model="nuclei").segmented == ("nucleus",)
    assert SegmentConfig(model="nuclei", channels=("er",)).segmented == ("er",)
    assert SegmentConfig.of({"diameter": "60"}) == SegmentConfig(diameter=60)
    assert SegmentConfig().diameter == "auto"
