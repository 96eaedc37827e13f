"""The page in headless Chromium: it draws, it answers the mouse, it asks nothing of anyone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report.browser import CHROMIUM, Page, chromium
from tests.report.conftest import CONFIG, EVIL, flat
from zarrloc.report.write import write_report

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed; `apt-get install chromium` brings it"
)

DRAWN = (
    "performance.getEntriesByName('map drawn').length === 1 && window.Bokeh !== undefined && "
    "Bokeh.documents.length === 1 && Bokeh.documents[0].is_idle"
)


@pytest.fixture(scope="module")
def page(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("browser")
    write_report(trained, folder / "report.html", CONFIG, project=flat)
    with chromium(folder / "profile") as opened:
        opened.load(folder / "report.html")
        opened.wait(DRAWN)
        yield opened


def test_no_console_error_and_no_request(page: Page) -> None:
    assert page.errors == []
    assert [url for url in page.requests if not url.startswith("data:")] == [
        page.value("location.href")
    ]
    assert page.value("performance.getEntriesByType('resource').map(each => each.name)") == []


def text(page: Page, name: str) -> str:
    return str(page.value(f"document.getElementById('{name}').textContent"))


def press(page: Page, key: str) -> None:
    page.send("Input.dispatchKeyEvent", type="keyDown", key=key)
    page.send("Input.dispatchKeyEvent", type="keyUp", key=key)


def find(page: Page, words: str) -> str:
    page.value(
        "(() => { const box = document.getElementById('map-search'); box.focus(); "
        f"box.value = {words!r}; box.dispatchEvent(new Event('input')); }})()"
    )
    return text(page, "map-status")


def colours(page: Page) -> int:
    """How many kinds of pixels the canvas has."""
    return int(
        page.value(
            "(() => { const c = document.getElementById('map-canvas');"
            "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "return new Set(new Uint32Array(d.buffer)).size; })()"
        )
    )


def test_every_point_is_drawn(page: Page) -> None:
    assert page.value("zarrlocMap.shown()") == 100
    assert colours(page) > 4


def test_hover_shows_the_picture_and_the_names(page: Page) -> None:
    page.value("document.getElementById('map').scrollIntoView({behavior: 'instant'})")
    point, row = page.value("zarrlocMap.place(99)"), page.value("zarrlocMap.row(99)")
    page.move(point["x"] - 3, point["y"] - 3)
    page.move(point["x"], point["y"])
    page.wait("!document.getElementById('tip').hidden", seconds=5)
    assert text(page, "tip-name").startswith("FID")
    assert row == 99
    assert "reference" in text(page, "tip-more")
    shown = page.value("getComputedStyle(document.getElementById('tip-picture')).backgroundImage")
    assert shown.startswith('url("data:image/jpeg;base64,')
    page.move(5, 5)
    page.wait("document.getElementById('tip').hidden", seconds=5)


def test_a_click_on_a_name_hides_its_points(page: Page) -> None:
    first = "document.querySelector('#map-legend button')"
    count = int(page.value(f"{first}.querySelector('small').textContent"))
    assert page.value(f"{first}.getAttribute('aria-pressed')") == "true"
    page.value(f"{first}.click()")
    assert page.value("zarrlocMap.shown()") == 100 - count
    assert page.value(f"{first}.getAttribute('aria-pressed')") == "false"
    page.value(f"{first}.click()")
    assert page.value("zarrlocMap.shown()") == 100


def test_the_search_finds_proteins_and_shows_them_one_by_one(page: Page) -> None:
    protein = page.value(
        "JSON.parse(document.getElementById('map-data').textContent).columns.protein.table[3]"
    )
    announced = find(page, protein.lower())
    assert announced.startswith("5 points of ")
    assert protein in announced
    press(page, "Enter")
    assert text(page, "tip-protein") == protein
    first = text(page, "tip-name")
    press(page, "Enter")
    assert text(page, "tip-name") != first
    press(page, "Escape")
    assert text(page, "map-status") == ""
    assert find(page, "no such thing") == "No protein and no field has such a name."
    assert find(page, "") == ""


def test_the_map_answers_the_keyboard(page: Page) -> None:
    page.value("document.getElementById('map-canvas').focus()")
    before = page.value("zarrlocMap.place(0).x")
    press(page, "ArrowLeft")
    assert page.value("zarrlocMap.place(0).x") == pytest.approx(before + 60)
    press(page, "0")
    assert page.value("zarrlocMap.place(0).x") == before
    apart = "zarrlocMap.place(0).x - zarrlocMap.place(99).x"
    near = page.value(apart)
    press(page, "+")
    assert page.value(apart) == pytest.approx(1.5 * near)
    press(page, "0")


def test_everything_that_acts_has_a_name(page: Page) -> None:
    nameless = page.value(
        "[...document.querySelectorAll('button, select, input, canvas[tabindex], img, [role=img]')]"
        ".filter(e => !(e.textContent.trim() || e.alt || e.getAttribute('aria-label')"
        " || e.closest('label'))).length"
    )
    assert nameless == 0


def test_markup_in_names_stays_text(page: Page) -> None:
    assert page.value("window.hacked === undefined")
    assert EVIL in page.value("document.getElementById('failures').textContent")


@pytest.mark.parametrize("width", [1400, 800, 390])
def test_the_page_fits_the_window(page: Page, width: int) -> None:
    page.resize(width, 900)
    page.wait(f"document.documentElement.clientWidth === {width}")
    page.wait(f"document.documentElement.scrollWidth <= {width}", seconds=10)  # plots follow
    page.wait("zarrlocMap.place(0).x > 0")
    assert colours(page) > 4
