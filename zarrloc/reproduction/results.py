"""What was measured, beside what the paper says: compared, and written as text, CSV and HTML."""

import base64
import csv
import html
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

LIMIT = 2.0
"""Standard deviations of the difference beyond which a figure is marked."""
HEADINGS = ("row", "figure", "paper", "measured", "difference", "")
MARK = "differs"
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse}td,th{padding:.25rem .75rem;border-bottom:1px solid #ddd;
text-align:left;font-variant-numeric:tabular-nums}tr.differs{background:#fdecea}img{max-width:100%}"""


@dataclass(frozen=True)
class Figure:
    """A mean with its sd over folds, and each fold's value; kNN has neither of the latter."""

    mean: float
    sd: float | None = None
    each: tuple[float, ...] = ()


@dataclass(frozen=True)
class Result:
    """One row: figures by name, or why there are none."""

    name: str
    paper: dict[str, tuple[float, ...]]
    measured: dict[str, Figure] = field(default_factory=dict)
    missing: str = ""
    note: str = ""
    embedding: str = ""
    head: str = ""
    fraction: float | None = None


@dataclass(frozen=True)
class Line:
    """One figure of one row."""

    row: str
    figure: str
    paper: tuple[float, ...]
    measured: Figure | None
    remark: str

    @property
    def difference(self) -> float | None:
        """Measured less the paper's."""
        return self.measured.mean - self.paper[0] if self.measured and self.paper else None

    @property
    def differs(self) -> bool:
        """Whether that is more than `LIMIT` sd of a difference: the paper's and ours together."""
        if self.difference is None or self.measured is None or len(self.paper) < 2:
            return False
        sd = math.hypot(self.paper[1], self.measured.sd or 0.0)
        return abs(self.difference) > LIMIT * sd

    def cells(self) -> tuple[str, ...]:
        """The cells of a row, under `HEADINGS`."""
        paper = " ± ".join(f"{value:.3f}" for value in self.paper) or "–"
        measured, difference = "–", "–"
        if self.measured is not None:
            sd = "" if self.measured.sd is None else f" ± {self.measured.sd:.3f}"
            measured = f"{self.measured.mean:.3f}{sd}"
        if self.difference is not None:
            difference = f"{self.difference:+.3f}"
        remark = "; ".join([MARK] * self.differs + [self.remark] * bool(self.remark))
        return self.row, self.figure, paper, measured, difference, remark


def lines_of(results: Sequence[Result]) -> list[Line]:
    """A line a figure, also of rows that could not run."""
    lines = []
    for result in results:
        names = list(dict.fromkeys([*result.paper, *result.measured])) or ["macro_f1"]
        for name in names:
            found = result.measured.get(name)
            remark = f"could not run: {result.missing}" if result.missing else result.note
            lines.append(Line(result.name, name, result.paper.get(name, ()), found, remark))
    return lines


def as_markdown(title: str, results: Sequence[Result], notes: Sequence[str]) -> str:
    """A table, and what must be known of it."""
    rows = [HEADINGS, ("---",) * len(HEADINGS), *(line.cells() for line in lines_of(results))]
    table = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([f"# {title}", "", *table, "", *(f"- {text}" for text in notes), ""])


def as_csv(results: Sequence[Result]) -> str:
    """Plain numbers, a line a figure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["row", "figure", "paper", "paper_sd", "measured", "measured_sd", "difference", "differs",
         "remark"]
    )  # fmt: skip
    for line in lines_of(results):
        found = line.measured
        writer.writerow(
            [
                line.row,
                line.figure,
                *(line.paper[i] if len(line.paper) > i else "" for i in range(2)),
                found.mean if found else "",
                found.sd if found and found.sd is not None else "",
                "" if line.difference is None else line.difference,
                int(line.differs),
                line.remark,
            ]
        )
    return text.getvalue()


def as_html(
    title: str, results: Sequence[Result], notes: Sequence[str], figure: Path | None
) -> str:
    """One page that opens from disk."""
    head = "".join(f"<th>{html.escape(text)}</th>" for text in HEADINGS)
    body = "".join(
        f"<tr{' class=differs' if line.differs else ''}>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in line.cells())
        + "</tr>\n"
        for line in lines_of(results)
    )
    items = "".join(f"<li>{html.escape(text)}</li>" for text in notes)
    picture = ""
    if figure is not None:
        data = base64.b64encode(figure.read_bytes()).decode()
        picture = f'<p><img alt="{html.escape(title)}" src="data:image/png;base64,{data}"></p>'
    return (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title>"
        f"<style>{STYLE}</style><h1>{html.escape(title)}</h1>\n"
        f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>\n{picture}"
        f"<ul>{items}</ul>\n"
    )


def write(
    folder: Path,
    stem: str,
    title: str,
    results: Sequence[Result],
    notes: Sequence[str],
    figure: Path | None,
) -> list[Path]:
    """`<stem>.md`, `.csv`, `.html` and `.json` in `folder`, each whole or as before."""
    record: dict[str, Any] = {"title": title, "notes": list(notes)}
    record["rows"] = [asdict(result) for result in results]
    texts = {
        "md": as_markdown(title, results, notes),
        "csv": as_csv(results),
        "html": as_html(title, results, notes, figure),
        "json": json.dumps(record, indent=1) + "\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for kind, text in texts.items():
        path = folder / f"{stem}.{kind}"
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
        written.append(path)
    return written
