"""Square tables of labels: confusion and co-occurrence."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from bokeh.models import ColumnDataSource, HoverTool, LinearColorMapper

from zarrloc.report.canvas import FONT, canvas, plain
from zarrloc.report.palette import ACCENT, INK


def matrix_figure(
    values: npt.NDArray[Any],
    shade: npt.NDArray[np.float64],
    labels: Sequence[str],
    *,
    name: str,
    rows_are: str,
    columns_are: str,
) -> Any:
    """A square table of labels: `values` written in cells, `shade` 0 to 1 behind them."""
    names = [plain(label) for label in labels]
    row, column = (index.ravel() for index in np.indices(values.shape))
    dark = np.nan_to_num(shade).ravel()
    text = [f"{value:.0f}" if value >= 0.5 else "" for value in values.ravel()]
    source = ColumnDataSource(
        {
            "row": [names[i] for i in row],
            "column": [names[i] for i in column],
            "shade": dark,
            "text": text,
            "ink": np.where(dark > 0.55, "white", INK).tolist(),
            "value": values.ravel(),
        }
    )
    made = canvas(
        height=470,
        x_range=names,
        y_range=names[::-1],
        x_axis_label=columns_are,
        y_axis_label=rows_are,
        name=name,
    )
    made.grid.visible = False
    made.xaxis.major_label_orientation = 0.9
    for axis in made.axis:
        axis.major_label_text_font_size = "11px"
        axis.major_tick_line_color = None
    mapper = LinearColorMapper(palette=_shades(), low=0, high=1)
    cells = made.rect(
        "column", "row", 0.96, 0.96, source=source, line_color=None,
        fill_color={"field": "shade", "transform": mapper},
    )  # fmt: skip
    made.text(
        "column", "row", "text", source=source, text_align="center", text_baseline="middle",
        text_font={"value": FONT}, text_font_size="10px", text_color="ink",
    )  # fmt: skip
    made.add_tools(
        HoverTool(
            renderers=[cells],
            tooltips=[(rows_are, "@row"), (columns_are, "@column"), ("", "@value{0.[0]}")],
        )
    )
    return made


def _shades() -> list[str]:
    """White to the accent, in 64 steps."""
    white, deep = (
        np.array([247, 249, 250]),
        np.array([int(ACCENT[i : i + 2], 16) for i in (1, 3, 5)]),
    )
    steps = np.linspace(0, 1, 64)[:, None] ** 0.8
    return [
        "#{:02x}{:02x}{:02x}".format(*rgb) for rgb in (white + steps * (deep - white)).astype(int)
    ]
