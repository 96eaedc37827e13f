"""The site: `make docs`. A warning is an error; tutorials run while it is built."""

import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path

import myst_nb.core.render

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
# Tutorials call the commands as a user would: those of the environment that builds the site.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
os.environ["COLUMNS"] = "96"
os.environ["TQDM_DISABLE"] = "1"

project = "zarrloc"
author = "the zarrloc developers"
copyright = "the zarrloc developers"
version = release = version_of("zarrloc")

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx_click",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "README.md"]
html_theme = "pydata_sphinx_theme"
html_title = "zarrloc"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "show_prev_next": True,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 6,
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_show_sourcelink = False
html_context = {"default_mode": "auto"}  # without it the theme's script complains on every page

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True


def joined(outputs: list[dict[str, str]]) -> list[dict[str, str]]:
    """Pieces of a stream as one text, as they came: `%%bash` hands over 100 bytes at a time.

    MyST-NB's own function ends a line after every piece.
    """
    kept, streams = [], {}
    for output in outputs:
        if output["output_type"] == "stream" and output["name"] in streams:
            streams[output["name"]]["text"] += output["text"]
            continue
        if output["output_type"] == "stream":
            streams[output["name"]] = output
        kept.append(output)
    return kept


myst_nb.core.render.coalesce_streams = joined

autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
# Prompts and outputs are not copied.
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
suppress_warnings = ["mystnb.unknown_mime_type"]


def settings_page() -> str:
    """Every command's settings as tables, read off the models that check them."""
    import zarrloc
    from zarrloc.config.base import Config

    lines = [
        "# Settings",
        "",
        "What each command's `--config FILE`, flags and Python config take.",
        "",
    ]
    for name in sorted(name for name in dir(zarrloc) if name.endswith("Config")):
        config = getattr(zarrloc, name)
        assert issubclass(config, Config)
        lines += [f"## {name}", "", "| setting | default | meaning |", "|---|---|---|"]
        for key, field in config.model_fields.items():
            default = "required" if field.is_required() else f"`{field.get_default()}`"
            meaning = " ".join((field.description or "").split()).replace("|", "\\|")
            lines.append(f"| `{key}` | {default.replace('|', chr(92) + '|')} | {meaning} |")
        lines.append("")
    return "\n".join(lines)


from results_page import results_page  # noqa: E402

(HERE / "reference" / "settings.md").write_text(settings_page())
(HERE / "explain" / "results.md").write_text(results_page())
