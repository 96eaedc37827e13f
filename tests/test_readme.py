"""Every command and every line of Python in the README runs, in its order, on simulated data."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from zarrloc_cli.main import zarrloc

from zarrloc.config.simulate import SimulateConfig
from zarrloc.images import find
from zarrloc.images.fields import FovSource
from zarrloc.simulate import simulate

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()

STAND_INS = {"ACTB": "SIM0001"}
"""What the README says, and what simulated data call it."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[list[str]]:
    text = "\n".join(blocks("bash")).replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines() if line.strip()]


def test_make_has_the_targets_the_readme_names() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = [words[1] for words in commands() if words[0] == "make"]
    assert targets == ["demo", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In this process; the bucket is a folder; published weights are random ones."""
    from zarrloc.models import weights

    listing = find.find

    def local(source: object, **options: object) -> list[FovSource]:
        return listing(tmp_path / "images" if "://" in str(source) else str(source), **options)  # type: ignore[arg-type]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(find, "find", local)
    monkeypatch.setattr("zarrloc.engine.cluster.choose", lambda *_: "serial")
    obtain = weights.obtain
    monkeypatch.setattr(
        weights, "obtain", lambda backbone, given: obtain(backbone, given or "random:0")
    )


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("offline")
def test_every_command_of_the_readme(tmp_path: Path) -> None:
    simulate("data", SimulateConfig(proteins=10, fovs_per_protein=1, size=96, workers=1))
    shutil.copytree("data/raw", "images")
    shutil.copytree(ROOT / "examples", "examples")
    for table in Path("data/labels").iterdir():
        shutil.copy(table, ".")
    names = [file.name for file in Path("images").iterdir()]
    rows = [f"{name},{('er', 'golgi')[at % 2]},A" for at, name in enumerate(sorted(names))]
    Path("labels.csv").write_text("\n".join(["path,label,plate", *rows]))
    rows = [f"{name},{('drug', 'none')[at % 2]}" for at, name in enumerate(sorted(names))]
    Path("wells.csv").write_text("\n".join(["path,condition", *rows]))
    ran: list[list[str]] = []
    for words in commands():
        # What `reproduce` makes of published backbones takes hours; tests/reproduction runs it.
        if words[0] == "zarrloc" and words[1] != "reproduce":
            simulated = [STAND_INS.get(word, word) for word in words[1:]]
            code = zarrloc.main(simulated, standalone_mode=False)
            assert code in (None, 0), words
            ran.append(words)
    assert len(ran) >= 16
    for snippet in blocks("python"):
        run: Callable[[str], None] = exec
        run(snippet)
