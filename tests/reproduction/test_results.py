"""What is written of a reproduced table: every row, its difference, and what is marked."""

import csv
import json
import math
from pathlib import Path

import matplotlib as mpl
import matplotlib.figure
import pytest

from zarrloc.reproduction.results import (
    Alternative,
    Figure,
    Line,
    Result,
    as_csv,
    as_html,
    as_markdown,
    sensitivity,
    write,
)

RESULTS = [
    Result("near", {"macro_f1": (0.80, 0.01)}, {"macro_f1": Figure(0.815, 0.01, (0.81, 0.82))}),
    Result("far", {"macro_f1": (0.80, 0.01)}, {"macro_f1": Figure(0.75, 0.01)}, note="a stand-in"),
    Result("absent", {"macro_f1": (0.9, 0.02)}, missing="no weights | here"),
    Result("<b>", {"k=1": (0.7,)}, {"k=1": Figure(0.2), "k=3": Figure(0.3)}),
]


def line(paper: tuple[float, ...], mean: float, sd: float | None) -> Line:
    return Line("r", "macro_f1", paper, Figure(mean, sd), "")


def test_a_row_beyond_two_sd_of_the_difference_is_marked() -> None:
    both = math.hypot(0.01, 0.02)
    assert not line((0.8, 0.01), 0.8 + 1.99 * both, 0.02).differs
    assert line((0.8, 0.01), 0.8 + 2.01 * both, 0.02).differs
    assert line((0.8, 0.01), 0.8 - 2.01 * both, 0.02).differs
    assert line((0.8, 0.01), 0.83, None).differs
    assert not line((0.8,), 0.1, 0.01).differs  # the paper gives no sd: nothing to judge by
    assert line((0.8, 0.01), 0.78, 0.0).difference == pytest.approx(-0.02)


def test_markdown_has_every_row_and_why_one_is_missing() -> None:
    text = as_markdown("T", RESULTS, ["a note"])
    rows = [row for row in text.splitlines() if row.startswith("|")][2:]
    assert rows[0] == "| near | macro-F1 | 0.800 ± 0.010 | 0.815 ± 0.010 | +0.015 |  |"
    assert rows[1].endswith("| -0.050 | differs; a stand-in |")
    assert rows[2].endswith("| – | – | could not run: no weights \\| here |")
    assert [row.split(" | ")[1] for row in rows] == ["macro-F1"] * 3 + ["k=1", "k=3"]
    # A row is named once, its other figures stand below.
    assert [row.split("|")[1].strip() for row in rows][3:] == ["<b>", ""]
    assert "- a note" in text


def test_alternatives_stand_beside_what_they_change() -> None:
    """A row that could not run has no figure to compare; one that an alternative lost says so."""
    other = [
        Result("near", {}, {"macro_f1": Figure(0.805)}),
        Result("far", {}, missing="too long"),
        Result("absent", {}, missing="no weights"),
        Result("<b>", {}, {"k=1": Figure(0.25), "k=3": Figure(0.3)}),
    ]
    found = sensitivity(RESULTS, [Alternative("size", "224", other)])
    assert found == [
        ("row", "figure", "as above", "size 224"),
        ("near", "macro-F1", "0.815", "0.805 (-0.010)"),
        ("far", "macro-F1", "0.750", "could not run"),
        ("<b>", "k=1", "0.200", "0.250 (+0.050)"),
        ("", "k=3", "0.300", "0.300 (+0.000)"),
    ]
    text = as_markdown("T", RESULTS, [], [Alternative("size", "224", other)])
    assert "| near | macro-F1 | 0.815 | 0.805 (-0.010) |" in text
    assert "size 224" not in as_markdown("T", RESULTS, [])
    page = as_html("T", RESULTS, [], None, [Alternative("size", "224", other)])
    assert "<td>&lt;b&gt;</td><td>k=1</td><td>0.200</td><td>0.250 (+0.050)</td>" in page


def test_csv_holds_numbers() -> None:
    rows = list(csv.DictReader(as_csv(RESULTS).splitlines()))
    assert [row["differs"] for row in rows] == ["0", "1", "0", "0", "0"]
    assert float(rows[1]["difference"]) == pytest.approx(-0.05)
    assert rows[2]["measured"] == ""
    assert rows[3]["paper_sd"] == rows[3]["measured_sd"] == ""


def test_html_marks_rows_escapes_names_and_holds_its_figure(tmp_path: Path) -> None:
    picture = tmp_path / "f.png"
    mpl.figure.Figure(figsize=(2, 1)).savefig(picture, dpi=100)
    page = as_html("T & U", RESULTS, ["n <1"], picture)
    assert page.count('<tr class="first differs">') == 1
    assert page.count('<tr class="') == 5
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert 'width="100" height="50" src="data:image/png;base64,iVBORw' in page
    assert "T &amp; U" in page
    assert "n &lt;1" in page


def test_all_forms_are_written(tmp_path: Path) -> None:
    written = write(tmp_path / "t", "table", "T", RESULTS, ["n"], None)
    assert sorted(path.name for path in written) == [
        "table.csv", "table.html", "table.json", "table.md",
    ]  # fmt: skip
    record = json.loads((tmp_path / "t" / "table.json").read_text())
    assert record["rows"][0]["measured"]["macro_f1"]["each"] == [0.81, 0.82]
    assert not list((tmp_path / "t").glob("*.partial"))
