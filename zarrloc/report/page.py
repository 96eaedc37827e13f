"""The page: text, tables, pictures and figures in one HTML document that holds all it shows."""

import datetime
from importlib.metadata import version

from bokeh.embed import components
from bokeh.resources import Resources
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from zarrloc.config.report import ReportConfig
from zarrloc.report import words
from zarrloc.report.cards import make_cards, make_odd_cards
from zarrloc.report.embedding_map import embedding_map
from zarrloc.report.gather import Contents
from zarrloc.report.plots import draw
from zarrloc.store.location import Location

PLOTS = ("bars", "folds", "roc", "knn")
CURVES = {
    "loss": "Loss over the steps",
    "neighbours": "Macro-F1 of neighbours over the steps, beside baselines",
    "rank": "Effective rank over the steps",
}
"""What is drawn of a run of `pretrain`, and what each is called where it cannot be seen."""
MATRICES = ("confusion", "cooccurrence")


def render(location: Location, contents: Contents, config: ReportConfig) -> str:
    """The whole page as HTML. Names from the store are escaped, wherever they appear."""
    environment = Environment(
        loader=PackageLoader("zarrloc.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["with_code"] = words.with_code
    drawn = draw(contents)
    scripts, divs = "", {}
    if drawn.figures:
        script, divs = components(drawn.figures)
        scripts = Resources(mode="inline", components=["bokeh"]).render_js() + script
    shown = None if contents.points is None else embedding_map(location, contents, config)
    return environment.get_template("page.html").render(
        c=contents,
        config=config,
        words=words,
        curve_titles=CURVES,
        css=_own(environment, "page.css"),
        map=shown,
        map_js=_own(environment, "map.js"),
        matrices={name: drawn.matrices.get(name) for name in MATRICES},
        scripts=Markup(scripts),
        plots={name: Markup(divs.get(name, "")) for name in PLOTS},
        curves=[
            {kind: Markup(divs[f"{kind}_{index}"]) for kind in CURVES if f"{kind}_{index}" in divs}
            for index in range(len(contents.runs))
        ],
        cards=make_cards(location, contents),
        odd_cards=make_odd_cards(location, contents),
        version=version("zarrloc"),
        made=datetime.datetime.now(datetime.UTC).strftime("%d %B %Y, %H:%M UTC"),
    )


def _own(environment: Environment, name: str) -> Markup:
    """One of the package's files, as it is."""
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])
