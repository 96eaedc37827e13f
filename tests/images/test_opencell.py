from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from zarrloc.images import find, labels, opencell
from zarrloc.images.fields import FovSource


@pytest.mark.parametrize(
    ("name", "gene"),
    [
        ("OC-FOV_ABR_ENSG00000278741_CID000605_FID00024574_proj.tif", "ABR"),
        ("OC-FOV_HLA-A_ENSG00000278741_CID000605_FID00024574_stack.tif", "HLA-A"),
        ("OC-FOV_A_B-C_ENSG00000278741_CID000605_FID00024574_proj.tif", "A_B-C"),
    ],
)
def test_a_name_is_taken_apart(name: str, gene: str) -> None:
    parsed = opencell.parse_name(name)
    kind = "stack" if "stack" in name else "proj"
    assert parsed == opencell.OpenCellName(
        gene, "ENSG00000278741", "CID000605", "FID00024574", kind
    )


@pytest.mark.parametrize(
    "name",
    [
        "OC-FOV_ABR_ENSG00000278741_CID000605_FID00024574_proj_cells.tif",
        "OC-FOV_ABR_ENSG00000278741_CID000605_FID00024574.tif",
        "xOC-FOV_ABR_ENSG00000278741_CID000605_FID00024574_proj.tif",
        "A01.tif",
    ],
)
def test_another_name_is_no_opencell_name(name: str) -> None:
    assert opencell.parse_name(name) is None


def test_the_constants_fit_together() -> None:
    assert tuple(opencell.STAINS) == opencell.CHANNELS
    assert len(opencell.LABELS) == 17
    assert list(opencell.LABELS) == sorted(set(opencell.LABELS))
    assert pytest.approx(0.206349, abs=1e-6) == opencell.PIXEL_SIZE_UM


def test_every_published_protein_is_joined_and_the_trap_is_not_sprung(
    shared: Callable[..., Path],
) -> None:
    folder = shared("opencell", "labels")
    annotations = folder / "opencell-localization-annotations.csv"
    cell_lines = folder / "all-public-targets.csv"
    table = labels.read(annotations, cell_lines)
    assert table.labels == opencell.LABELS
    assert len(table.rows) == 1310
    assert all(row.grades.any() for row in table.rows.values())
    # What the tables say, read another way, for every cell line.
    truth = pd.read_csv(cell_lines).merge(pd.read_csv(annotations), on="target_name")
    for row in truth.itertuples():
        coords = {"cell_line": f"CID{row.cell_line_id:06d}"}
        found = table.match(FovSource("F", ("f.tif",), 1, "opencell-proj", coords))
        assert found is not None
        for grade in (3, 2, 1):
            said = getattr(row, f"annotations_grade_{grade}")
            expected = set(said.split(";")) if isinstance(said, str) else set()
            pairs = zip(table.labels, found.grades, strict=True)
            assert {label for label, got in pairs if got == grade} == expected


def test_abr_is_cytoplasmic_and_vesicles_though_its_ensg_differs(
    shared: Callable[..., Path],
) -> None:
    folder = shared("opencell")
    table = labels.read(
        folder / "labels" / "opencell-localization-annotations.csv",
        folder / "labels" / "all-public-targets.csv",
    )
    grades = {}
    for source in find.find(folder):
        row = table.match(source)
        assert row is not None
        found = zip(table.labels, row.grades.tolist(), strict=True)
        grades[source.coords["protein"]] = {label: grade for label, grade in found if grade}
    assert grades == {
        "AAMP": {"cytoplasmic": 3, "nucleoplasm": 1},
        "AATF": {"nucleolus_gc": 3},
        "ABCE1": {"cytoplasmic": 3, "vesicles": 2, "nucleoplasm": 1},
        "ABR": {"cytoplasmic": 3, "vesicles": 2},
        "ACTB": {"membrane": 3, "cytoskeleton": 3, "cytoplasmic": 2},
        "ACTN1": {"membrane": 3, "cytoskeleton": 3},
    }
