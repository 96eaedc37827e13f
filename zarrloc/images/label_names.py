"""Labels that are numbers: how a table writes several of them, and the classes they stand for."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from zarrloc.errors import SourceError
from zarrloc.images import tables
from zarrloc.images.tables import Table

_HPA_2018 = (
    "Nucleoplasm", "Nuclear membrane", "Nucleoli", "Nucleoli fibrillar center",
    "Nuclear speckles", "Nuclear bodies", "Endoplasmic reticulum", "Golgi apparatus",
    "Peroxisomes", "Endosomes", "Lysosomes", "Intermediate filaments", "Actin filaments",
    "Focal adhesion sites", "Microtubules", "Microtubule ends", "Cytokinetic bridge",
    "Mitotic spindle", "Microtubule organizing center", "Centrosome", "Lipid droplets",
    "Plasma membrane", "Cell junctions", "Mitochondria", "Aggresome", "Cytosol",
    "Cytoplasmic bodies", "Rods & rings",
)  # fmt: skip
_HPA_2021 = (
    "Nucleoplasm", "Nuclear membrane", "Nucleoli", "Nucleoli fibrillar center",
    "Nuclear speckles", "Nuclear bodies", "Endoplasmic reticulum", "Golgi apparatus",
    "Intermediate filaments", "Actin filaments", "Microtubules", "Mitotic spindle", "Centrosome",
    "Plasma membrane", "Mitochondria", "Aggresome", "Cytosol",
    "Vesicles and punctate cytosolic patterns", "Negative",
)  # fmt: skip
KNOWN = {
    name: {str(number): label for number, label in enumerate(labels)}
    for name, labels in (("hpa-2018", _HPA_2018), ("hpa-2021", _HPA_2021))
}
"""The classes of the Human Protein Atlas's competitions on Kaggle, by number: image classification
(2018) and single-cell classification (2021)."""

_NUMBERS = re.compile(r"\d+(?:(?:\s*[;|]\s*|\s+)\d+)*")
_SEPARATOR = re.compile(r"\s*[;|]\s*|\s+")


def read(names: str | Path) -> Mapping[str, str]:
    """What each label of a table is called.

    Parameters
    ----------
    names
        `hpa-2018` or `hpa-2021`, or a table with a column `label`, as the labels stand in their
        table, and a column `name`.

    Raises
    ------
    SourceError
        Where it is neither, or names a label twice.

    Examples
    --------
    >>> read("hpa-2018")["16"]
    'Cytokinetic bridge'
    """
    if str(names) in KNOWN:
        return KNOWN[str(names)]
    if not Path(names).exists():
        raise SourceError(
            f"no label names {names}: expected {' or '.join(KNOWN)} (the Human Protein Atlas's "
            "competitions), or a table with the columns label and name"
        )
    table = tables.read(names)
    column = next((one for one in table.columns if one.lower() == "name"), "name")
    table.require("label", column)
    found: dict[str, str] = {}
    for row in table.rows:
        label, name = row.cells["label"], row.cells[column]
        if not label or not name:
            raise SourceError(f"{table.path}: line {row.line} lacks its label or its name")
        if found.setdefault(label, name) != name:
            raise SourceError(
                f"{table.path}: line {row.line} calls label {label!r} {name!r}, an earlier line "
                f"{found[label]!r}; keep one"
            )
    return found


def applied(table: Table, names: Mapping[str, str] | None) -> Table:
    """A table of labels with several numbers in a cell set apart by `;`, and named.

    Raises
    ------
    SourceError
        Where it has a label that `names` does not know.
    """
    columns = [name for name in table.columns if name in tables.LABEL_COLUMNS]
    cells = [row.cells[name] for row in table.rows for name in columns if row.cells[name]]
    numbers = bool(cells) and all(map(_NUMBERS.fullmatch, cells))
    if not numbers and names is None:
        return table

    def named(row: tables.Row, cell: str) -> str:
        parts = _SEPARATOR.split(cell) if numbers else [one.strip() for one in cell.split(";")]
        if names is None:
            return ";".join(parts)
        unknown = [one for one in parts if one and one not in names]
        if unknown:
            raise SourceError(
                f"{table.path}: line {row.line} has the label {unknown[0]!r}, which the label "
                f"names do not have; they have {', '.join(list(names)[:5])}, ... ({len(names)})"
            )
        return ";".join(names[one] for one in parts if one)

    rows = [
        replace(row, cells={**row.cells, **{name: named(row, row.cells[name]) for name in columns
                                            if row.cells[name]}})
        for row in table.rows
    ]  # fmt: skip
    several = numbers and any(_SEPARATOR.search(cell) for cell in cells)
    note = (
        f"{table.path.name}: its labels are numbers; --label-names says what they stand for "
        f"(a table, {' or '.join(KNOWN)})"
    )
    return replace(table, rows=tuple(rows), notes=(*table.notes, *[note] * (several and not names)))
