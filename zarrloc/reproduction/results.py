"""What was measured, beside what the paper says: compared, and written as text, CSV and HTML."""

import base64
import csv
import html
import io
import json
import math
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

LIMIT = 2.0
"""Standard deviations of the difference beyond which a figure is marked."""
HEADINGS = ("row", "figure", "paper", "measured", "difference", "")
MARK = "differs"
OPEN = "What the paper leaves open, one setting at a time"
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;
color:#222}h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}.wide{overflow-x:auto}
table{border-collapse:collapse}td,th{padding:.25rem .75rem .25rem 0;text-align:left;
vertical-align:top;font-variant-numeric:tabular-nums}th{border-bottom:1px solid #888}
tr.first td{border-top:1px solid #ddd}td:nth-child(n+2):nth-child(-n+5){white-space:nowrap}
td:first-child{min-width:11rem}td:last-child{color:#555;min-width:14rem}
tr.differs td:nth-child(5){color:#b3261e;font-weight:600}
img{max-width:100%;height:auto}ul{padding-left:1.2rem}"""


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
class Alternative:
    """The same rows, with another value of one setting that the paper leaves open."""

    setting: str
    value: str
    results: list[Result]


@dataclass(frozen=True)
class Line:
    """One figure of one row."""

    row: str
    figure: str
    paper: tuple[float, ...]
    measured: Figure | None
    remark: str
    first: bool = True
    """Of its row: the others need not say again whose they are."""

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
        said = [self.remark] if self.first and self.remark else []
        remark = "; ".join([MARK] * self.differs + said)
        row = self.row if self.first else ""
        return row, self.figure.replace("_f1", "-F1"), paper, measured, difference, remark


def lines_of(results: Sequence[Result]) -> list[Line]:
    """A line a figure, also of rows that could not run."""
    lines = []
    for result in results:
        names = list(dict.fromkeys([*result.paper, *result.measured])) or ["macro_f1"]
        for name in names:
            found = result.measured.get(name)
            remark = f"could not run: {result.missing}" if result.missing else result.note
            paper = result.paper.get(name, ())
            lines.append(Line(result.name, name, paper, found, remark, name == names[0]))
    return lines


def sensitivity(
    results: Sequence[Result], alternatives: Sequence[Alternative]
) -> list[tuple[str, ...]]:
    """A heading, then each figure that was measured: as it is above, and by each alternative."""
    table = [("row", "figure", "as above", *(f"{a.setting} {a.value}" for a in alternatives))]
    for at, result in enumerate(results):
        for name, own in result.measured.items():
            cells = []
            for alternative in alternatives:
                found = alternative.results[at].measured.get(name)
                cells.append(
                    "could not run"
                    if found is None
                    else f"{found.mean:.3f} ({found.mean - own.mean:+.3f})"
                )
            first = name == next(iter(result.measured))
            row = result.name if first else ""
            table.append((row, name.replace("_f1", "-F1"), f"{own.mean:.3f}", *cells))
    return table


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    told = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in told]


def as_markdown(
    title: str,
    results: Sequence[Result],
    notes: Sequence[str],
    alternatives: Sequence[Alternative] = (),
) -> str:
    """A table, what must be known of it, and what other choices would give."""
    table = _markdown([HEADINGS, *(line.cells() for line in lines_of(results))])
    lines = [f"# {title}", "", *table, "", *(f"- {text}" for text in notes), ""]
    if alternatives:
        lines += [f"## {OPEN}", "", *_markdown(sensitivity(results, alternatives)), ""]
    return "\n".join(lines)


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


def _row(cells: Sequence[str], tag: str = "td") -> str:
    return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)


def as_html(
    title: str,
    results: Sequence[Result],
    notes: Sequence[str],
    figure: Path | None,
    alternatives: Sequence[Alternative] = (),
) -> str:
    """One page that opens from disk."""
    head = _row(HEADINGS, "th")
    body = "".join(
        f'<tr class="{_classes(line)}">{_row(line.cells())}</tr>\n' for line in lines_of(results)
    )
    others = ""
    if alternatives:
        first, *rest = sensitivity(results, alternatives)
        inner = "".join(f"<tr>{_row(cells)}</tr>\n" for cells in rest)
        others = (
            f'<h2>{html.escape(OPEN)}</h2>\n<div class="wide"><table><thead><tr>'
            f"{_row(first, 'th')}</tr></thead><tbody>\n{inner}</tbody></table></div>\n"
        )
    items = "".join(f"<li>{html.escape(text)}</li>" for text in notes)
    picture = ""
    if figure is not None:
        data = base64.b64encode(figure.read_bytes()).decode()
        width, height = size_of(figure)
        picture = (
            f'<p><img alt="{html.escape(title)}" width="{width}" height="{height}" '
            f'src="data:image/png;base64,{data}"></p>\n'
        )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style><h1>{html.escape(title)}</h1>\n"
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>'
        f"</div>\n{picture}{others}<h2>Notes</h2>\n<ul>{items}</ul>\n"
    )


def size_of(figure: Path) -> tuple[int, int]:
    """Width and height at which a PNG is shown: half its pixels, so that it is sharp anywhere."""
    width, height = struct.unpack(">II", figure.read_bytes()[16:24])
    return width // 2, height // 2


def _classes(line: Line) -> str:
    return " ".join(["first"] * line.first + [MARK] * line.differs)


def write(
    folder: Path,
    stem: str,
    title: str,
    results: Sequence[Result],
    notes: Sequence[str],
    figure: Path | None,
    stages: Sequence[dict[str, Any]] = (),
    alternatives: Sequence[Alternative] = (),
) -> list[Path]:
    """`<stem>.md`, `.csv`, `.html` and `.json` in `folder`, each whole or as before.

    `stages` are those that were run for it, with their time: they stand in the JSON alone. The CSV
    has no `alternatives`.
    """
    record: dict[str, Any] = {"title": title, "notes": list(notes), "stages": list(stages)}
    record["rows"] = [asdict(result) for result in results]
    if alternatives:
        record["alternatives"] = [asdict(alternative) for alternative in alternatives]
    texts = {
        "md": as_markdown(title, results, notes, alternatives),
        "csv": as_csv(results),
        "html": as_html(title, results, notes, figure, alternatives),
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
