"""What all figures of the page share: type, colours, legends, names that are safe to draw."""

from typing import Any

from bokeh.models import Legend, LegendItem
from bokeh.plotting import figure

from zarrloc.report.palette import FAINT, INK, RULE

LINE_PX = 17
"""A line of a legend."""

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


def plain(text: str) -> str:
    """A name as figures may show it: TeX delimiters would make bokeh fetch MathJax."""
    for mark in ("$$", r"\[", r"\("):
        text = text.replace(mark, " ".join(mark))
    return text


def canvas(**settings: Any) -> Any:
    """A bokeh figure as wide as its place, quiet about everything but the data."""
    made = figure(
        **{
            "sizing_mode": "stretch_width",
            "tools": "",
            "toolbar_location": None,
            "outline_line_color": None,
            "background_fill_alpha": 0,
            "border_fill_alpha": 0,
            **settings,
        }
    )
    for axis in made.axis:
        axis.axis_line_color = axis.major_tick_line_color = RULE
        axis.minor_tick_line_color = None
        axis.major_label_text_font = axis.axis_label_text_font = FONT
        axis.major_label_text_font_size = axis.axis_label_text_font_size = "12px"
        axis.major_label_text_color = INK
        axis.axis_label_text_color = FAINT
        axis.axis_label_text_font_style = "normal"
    made.grid.grid_line_color = RULE
    return made


def add_legend(made: Any, items: list[tuple[str, list[Any]]], place: str = "right") -> Legend:
    """Names beside a figure, or `below` it; a click on one hides what it names."""
    if place == "below":
        made.height += LINE_PX * len(items)
    legend = Legend(
        items=[LegendItem(label={"value": plain(name)}, renderers=r) for name, r in items],
        click_policy="hide",
        border_line_color=None,
        background_fill_alpha=0,
        label_text_font=FONT,
        label_text_font_size="12px",
        label_text_color=INK,
        inactive_fill_alpha=0.75,
        spacing=1,
        padding=0,
        margin=6,
        glyph_height=16,
        glyph_width=16,
        label_height=16,
    )
    made.add_layout(legend, place)
    return legend
