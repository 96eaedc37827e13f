"""The site's commands exist, with the flags it gives them; its links lead somewhere; it builds."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from zarrloc_cli.main import zarrloc

from tests.report import browser

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)


def name_of(page: Path) -> str:
    return str(page.relative_to(DOCS))


def commands(page: Path) -> list[list[str]]:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = "\n".join(re.findall(r"^```(?:bash|\{code-cell\}).*?\n(.*?)^```", text, re.M | re.S))
    return [shlex.split(line, comments=True) for line in re.findall(r"^zarrloc .*$", blocks, re.M)]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name_of)
def test_every_command_of_a_page_exists_with_its_flags(page: Path) -> None:
    for words in commands(page):
        command = zarrloc.get_command(click.Context(zarrloc), words[1])
        assert command is not None, words
        flags = {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= flags, words


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_pages_and_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    pages = re.findall(r"\{doc\}`([^`]+)`", text)
    files = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    files += re.findall(r"\{(?:literal)?include\} (\S+)", text)
    for target in [*(f"{name}.md" for name in pages), *files]:
        if Path(target).name not in ("settings.md", "results.md"):  # written by conf.py
            assert (page.parent / target).exists(), target


def test_the_page_of_results_says_what_the_benchmarks_wrote() -> None:
    spec = importlib.util.spec_from_file_location("results_page", DOCS / "results_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.results_page()
    results = DOCS.parent / "benchmarks" / "results"
    assert all(f"| {name} |" in page for name in ("DINO", "DINOv2", "MAE", "SimCLR", "VICReg"))
    accuracy = json.loads((results / "accuracy.json").read_text())
    assert len(accuracy) >= 3
    for title, row in accuracy.items():
        low, high = row["head_ci"]
        assert (
            f"| {title} | {row['head']:.3f} ({low:.3f} to {high:.3f}) | {row['probe']:.3f}" in page
        )
    paper = json.loads((results / "paper.json").read_text())
    assert paper["tables"]
    for table in paper["tables"].values():
        assert f"### {table['title']}" in page
        assert all(row["name"] in page for row in table["rows"])
    for row in paper["orderings"]:
        assert (row["ordering"] in page) == bool(row["seeds"])
    lines = [line for line in page.splitlines() if line.startswith("|")]
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in lines]
    assert set(widths) <= {5, 6}, sorted(set(widths))


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("myst_nb") is None, reason="pip install -e '.[docs]' brings Sphinx"
)
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*build, str(DOCS), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    if browser.CHROMIUM is None:
        pytest.skip("chromium is not installed: the pages were built, and not looked at")
    with browser.chromium(tmp_path / "profile") as page:
        for file in [*sorted(tmp_path.glob("*.html")), *sorted(tmp_path.glob("[a-z]*/*.html"))]:
            page.load(file, 390)
            assert page.errors == [], file
            wide = page.value("document.documentElement.scrollWidth")
            assert wide <= 390, f"{file} scrolls sideways on a phone: {wide} px"


def test_pieces_of_a_stream_are_joined_as_they_came() -> None:
    pytest.importorskip("myst_nb", reason="pip install -e '.[docs]' brings Sphinx")
    spec = importlib.util.spec_from_file_location("site_conf", DOCS / "conf.py")
    assert spec is not None
    assert spec.loader is not None
    conf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conf)

    def piece(name: str, text: str) -> dict[str, str]:
        return {"output_type": "stream", "name": name, "text": text}

    other = {"output_type": "display_data"}
    told = [piece("stdout", "12 fie"), piece("stderr", "w"), piece("stdout", "lds\n  a"), other]
    assert conf.joined(told) == [piece("stdout", "12 fields\n  a"), piece("stderr", "w"), other]
