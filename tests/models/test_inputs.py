"""What a backbone is to be shown, read from text."""

import pytest

from zarrloc.errors import ConfigError
from zarrloc.models.inputs import Detail, Plan, Size, refuse_norm
from zarrloc.models.specs import HPA, RGB


@pytest.mark.parametrize(
    ("size", "height", "width", "um", "plan"),
    [
        ("native", 600, 600, 0.2, Plan(600, 600, 0.2, 1.6)),
        ("native", 600, 512, None, Plan(600, 512, None, None)),
        ("224", 600, 600, 0.2, Plan(224, 224, 0.2 * 600 / 224, 8 * 0.2 * 600 / 224)),
        ("224", 300, 600, 0.2, Plan(112, 224, 0.2 * 600 / 224, 8 * 0.2 * 600 / 224)),
        ("um:0.32", 600, 600, 0.2, Plan(375, 375, 0.32, 2.56)),
        ("um:0.1", 600, 30, 0.2, Plan(1200, 60, 0.1, 0.8)),
        ("8", 600, 1, None, Plan(8, 1, None, None)),
    ],
)
def test_a_plan_keeps_the_aspect_and_says_the_um(
    size: str, height: int, width: int, um: float | None, plan: Plan
) -> None:
    got = Size.parse(size).plan(height, width, 8, um)
    assert got[:2] == plan[:2]
    assert got[2:] == pytest.approx(plan[2:])


def test_what_has_no_patches_has_no_tokens() -> None:
    assert Size.parse("native").plan(600, 500, 1, 0.2) == Plan(600, 500, 0.2, None)


@pytest.mark.parametrize(
    ("learned", "pixel_um", "size"),
    [
        (Detail.of(2, 0.2), 0.2, "um:0.4"),
        (Detail.of(2, 0.2), 0.1, "um:0.4"),
        (Detail.of(2, 0.2), 0.35, "native"),  # another microscope, as coarse as what was learned
        (Detail.of(2, 0.2), None, "300"),
        (Detail.of(2, None), 0.2, "300"),
        (Detail.of(0.5, None), None, "1200"),
        (Detail.of(1.2, 0.2), 0.2, "native"),
    ],
)
def test_a_size_shows_the_detail_that_was_learned(
    learned: Detail, pixel_um: float | None, size: str
) -> None:
    assert learned.size(600, pixel_um) == size
    plan = Size.parse(size).plan(600, 600, 8, pixel_um)
    shown = Detail.of(600 / plan.height, pixel_um)
    assert shown.coarser(learned) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("text", ["native", "224", "um:0.32"])
def test_sizes_are_written_as_they_are_read(text: str) -> None:
    assert str(Size.parse(text)) == text


@pytest.mark.parametrize("text", ["", "0", "-5", "22.4", "um:", "um:0", "um:nan", "um:inf", "big"])
def test_senseless_sizes_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected native, the longer side in pixels"):
        Size.parse(text)


def test_a_physical_size_needs_the_stores_pixel_size() -> None:
    with pytest.raises(ConfigError, match=r"size um:0.32 needs the pixel size"):
        Size.parse("um:0.32").plan(600, 600, 8, None)


def test_a_norm_without_statistics_is_refused() -> None:
    refuse_norm("imagenet", RGB, None)
    refuse_norm("trained", HPA, ((0.0,), (1.0,)))
    with pytest.raises(ConfigError, match="norm imagenet has statistics for R, G, B"):
        refuse_norm("imagenet", HPA, None)
    with pytest.raises(ConfigError, match="norm trained is for a backbone made by"):
        refuse_norm("trained", RGB, None)
