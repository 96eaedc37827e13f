"""The page as a document: all sections, every name escaped, nothing fetched from elsewhere."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from zarrloc_cli.report import command

from tests import stores
from tests.report.conftest import CONFIG, EVIL, flat
from tests.report.test_gather import bare
from tests.written import put
from zarrloc.errors import ConfigError
from zarrloc.report.write import write_report
from zarrloc.store.columns import read_column
from zarrloc.store.location import Location


class Tags(HTMLParser):
    """Tags and attributes, as a browser would find them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def page(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("page") / "report.html"
    summary = write_report(trained, out, CONFIG, project=flat)
    assert summary.points == 100
    assert summary.bytes == out.stat().st_size
    assert "100 points" in summary.lines()[0]
    return out.read_text()


def test_all_sections_are_there_and_filled(page: str) -> None:
    for title in (
        "Map of the embedding", "Scores", "F1 of each label", "ROC", "What is mistaken for what",
        "What occurs together", "Nearest neighbours", "True positives", "False positives",
        "False negatives", "Splits and leakage", "Fields that stand out", "What failed, and why",
        "Provenance",
    ):  # fmt: skip
        assert f">{title}</h" in page
    assert 'class="absent"' not in page


def test_names_from_the_store_are_text_everywhere(page: str) -> None:
    assert EVIL not in page
    assert "window.hacked = 1" in page  # shown as text, not left out
    tags = Tags(page).tags
    assert not [attrs for tag, attrs in tags if "onerror" in attrs or attrs.get("src") == "x"]
    _, _, scripts = page.partition("<footer>")
    drawn = re.sub(r'(?s)<script type="application/json" id="map-data">.*?</script>', "", scripts)
    assert "$$x$$" not in drawn  # bokeh would fetch MathJax for it


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    sources = [
        attrs.get("src") or attrs.get("href") or ""
        for tag, attrs in Tags(page).tags
        if tag in {"script", "link", "img", "iframe", "source"}
    ]
    assert [source for source in sources if source and not source.startswith("data:")] == []


def test_fields_that_stand_out_are_shown_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stores.make_store(tmp_path / "oc.zarr", cells=(6,) * 8, side=128)
    location = Location.of(path)
    image = read_column(location.group("fovs"), "image")
    image[2, 1] = np.random.default_rng(0).poisson(700, image[2, 1].shape)
    image[5, 0] = np.minimum(image[5, 0].astype(int) * 60, 65535)
    put(location, "fovs", "image", slice(None), image)
    write_report(path, tmp_path / "r.html", CONFIG)
    page = (tmp_path / "r.html").read_text()
    section = re.search(r'(?s)<section id="outliers">(.*?)</section>', page)
    assert section is not None
    assert "2 of 8 fields should be looked at" in section[1]
    shown = [attrs for tag, attrs in Tags(section[1]).tags if tag == "img"]
    assert [attrs["alt"] for attrs in shown] == [
        "P1, FID00000002: protein empty", shown[1]["alt"],
    ]  # fmt: skip
    assert "P2, FID00000005: nucleus saturated (" in str(shown[1]["alt"])
    sizes = [
        Image.open(io.BytesIO(base64.b64decode(str(attrs["src"]).split(",")[1]))).size
        for attrs in shown
    ]
    assert sizes == [(256, 256)] * 2
    monkeypatch.setattr("zarrloc.report.cards.SHOWN_ODD", 1)
    monkeypatch.setattr("zarrloc.report.words.SHOWN_ODD", 1)
    write_report(path, tmp_path / "r.html", CONFIG)
    page = (tmp_path / "r.html").read_text()
    assert "1 are shown; <code>zarrloc outliers oc.zarr</code> names all" in page
    assert page.count("FID00000005") == 0


def test_provenance_holds_settings_and_fingerprints(page: str) -> None:
    assert "0.206 µm a pixel" in page
    assert "<dt>height</dt>" in page
    assert len(re.findall(r"<summary>[a-z]+(/[a-z]+)?<code>[0-9a-f]{16,}", page)) == 5


def test_an_empty_section_is_one_line_and_no_plot(tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    summary = write_report(bare(tmp_path).uri, out, CONFIG, project=flat)
    page = out.read_text()
    assert page.count('class="absent"') == 5  # scores, confusion, neighbours, examples, splits
    assert "make one with <code>zarrloc split</code> and <code>zarrloc train</code>." in page
    assert "zarrloc split" in page
    assert any("zarrloc train" in line for line in summary.lines())


def test_a_training_that_went_wrong_is_said_at_the_top(tmp_path: Path) -> None:
    at_start, at_end = ({"knn_macro_f1": f1, "effective_rank": 9.0} for f1 in (0.3, 0.1))
    pretraining = {
        "from": "dino-vits16", "fields": 40, "steps": 9, "held_out": "nothing",
        "warnings": [f"WORSE THAN ITS START {EVIL}"],
        "guard_at_start": at_start, "guard_at_end": at_end,
    }  # fmt: skip
    out = tmp_path / "report.html"
    write_report(bare(tmp_path, pretraining=pretraining).uri, out, CONFIG, project=flat)
    top, _, _ = out.read_text().partition("<nav")
    assert 'role="alert">WORSE THAN ITS START' in top
    assert EVIL not in top
    assert "on 40 fields; held out: nothing." in top
    assert "kNN macro-F1 0.300 → 0.100" in top


def test_an_out_that_cannot_be_written_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a folder"):
        write_report(trained, tmp_path / "none" / "report.html", CONFIG, project=flat)


def test_the_command_passes_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def fake(store: str, out: Path, config: object) -> object:
        asked.extend([store, out, config])
        raise ConfigError("enough")

    monkeypatch.setattr("zarrloc.report.write.write_report", fake)
    found = CliRunner().invoke(
        command, ["s.zarr", "--out", "o.html", "--knn", "1,5", "--head", "h"]
    )
    assert isinstance(found.exception, ConfigError)
    assert asked[:2] == ["s.zarr", Path("o.html")]
    assert asked[2].model_dump(exclude_defaults=True) == {"knn": (1, 5), "head": "h"}  # type: ignore[attr-defined]
