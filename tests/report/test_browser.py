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

MAP = "Bokeh.documents[0].roots().find(root => root.name === 'map')"
DRAWN = "window.Bokeh !== undefined && Bokeh.documents.length === 1 && Bokeh.documents[0].is_idle"
POINT = f"""(() => {{
  const view = Bokeh.index.find_one({MAP});
  const renderer = {MAP}.renderers.at(-1);
  const data = renderer.data_source.data;
  const box = view.el.getBoundingClientRect();
  return {{
    x: box.x + view.frame.x_scale.compute(data.x[0]),
    y: box.y + view.frame.y_scale.compute(data.y[0]),
    row: data.row[0],
  }};
}})()"""


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


def test_every_point_is_drawn(page: Page) -> None:
    drawn = f"{MAP}.renderers.map(each => each.data_source.data.x.length)"
    assert sum(page.value(drawn)) == 100
    assert page.value(f"{MAP}.renderers.every(each => each.visible)")


def test_hover_shows_the_picture_and_the_names(page: Page) -> None:
    page.value("document.getElementById('map').scrollIntoView({behavior: 'instant'})")
    point = page.value(POINT)
    page.move(point["x"] - 3, point["y"] - 3)
    page.move(point["x"], point["y"])
    page.wait("!document.getElementById('tip').hidden", seconds=5)
    assert page.value("document.getElementById('tip-name').textContent") == f"FID{point['row']:05d}"
    assert page.value("document.getElementById('tip-reference').textContent")
    shown = page.value("getComputedStyle(document.getElementById('tip-picture')).backgroundImage")
    assert shown.startswith('url("data:image/jpeg;base64,')
    page.move(5, 5)
    page.wait("document.getElementById('tip').hidden", seconds=5)


def test_markup_in_names_stays_text(page: Page) -> None:
    assert page.value("window.hacked === undefined")
    assert EVIL in page.value("document.getElementById('failures').textContent")


@pytest.mark.parametrize("width", [1280, 800])
def test_the_page_fits_the_window(page: Page, width: int) -> None:
    page.resize(width, 900)
    page.wait(f"document.documentElement.clientWidth === {width}")
    page.wait(f"document.documentElement.scrollWidth <= {width}", seconds=10)  # plots follow
