"""The paper's tables as files: complete, with the paper's own numbers."""

import re
from pathlib import Path

import pytest

from zarrloc.models import backbones
from zarrloc.reproduction.jobs import read_table

FOLDER = Path(__file__).parents[2] / "examples" / "paper"
TABLES = {
    "table1": 8, "table2": 6, "table3": 3, "table4": 5, "tableD3": 6, "tableD4": 7,
    "figure3": 6, "figure4": 5, "figure5": 1, "figure6": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_a_valid_file(name: str) -> None:
    table = read_table(FOLDER / f"{name}.yaml")
    assert len(table.rows) == TABLES[name]
    assert table.choices.keys() <= table.reasons.keys() | {"weak"}
    assert all(row.paper for row in table.rows) or name == "figure3"
    if table.level == "fov":  # section 2.6.1, though an epoch may have fewer steps than ten
        assert table.head == {"epochs": 300}
    else:  # Appendix B: 256 px, shown twice as large
        assert table.size == "512"


@pytest.mark.parametrize("name", ["table1", "table2", "table3", "tableD3", "tableD4"])
def test_means_and_sds_are_the_papers(name: str, shared) -> None:
    text = shared("paper.txt").read_text()
    start = text.index(f"Table {name[5:]}: Experimental")
    lines = text[start:].split("\n\n")[1].splitlines()[1:]
    wanted = [tuple(map(float, re.findall(r"\d\.\d{3}", line))) for line in lines]
    table = read_table(FOLDER / f"{name}.yaml")
    assert [row.paper["macro_f1"] for row in table.rows] == wanted


def test_neighbours_are_the_papers(shared) -> None:
    text = shared("paper.txt").read_text()
    lines = text[text.index("Table 4: Experimental") :].split("\n\n")[1].splitlines()[1:]
    wanted = [[float(x) for x in re.findall(r"\d\.\d{3}", line)] for line in lines]
    for name in ("table4", "figure4"):
        table = read_table(FOLDER / f"{name}.yaml")
        got = [[row.paper[f"k={k}"][0] for k in table.knn] for row in table.rows]
        assert got == wanted


def test_maps_are_the_papers(shared) -> None:
    """`[1, 2] -> [a, b]` puts the protein on input a and the nucleus on input b."""
    for name in ("tableD3", "tableD4"):
        for row in read_table(FOLDER / f"{name}.yaml").rows:
            found = re.match(r"\[1, 2\] -> \[(\w), (\w)\]", row.name)
            assert found is not None
            protein, nucleus = ("RGB".find(x) if x in "RGB" else int(x) for x in found.groups())
            spelt = f"protein={protein},nucleus={nucleus}"
            # Spelt as table 1 spells it, so that both stand on the same stages.
            assert row.channels == ("natural" if row.name.endswith("natural") else spelt)
            if row.channels == "natural":
                roles = backbones.spec(row.backbone).roles
                assert (roles[int(protein)], roles[int(nucleus)]) == ("protein", "nucleus")
