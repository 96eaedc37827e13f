import inspect
import subprocess
import sys
from pathlib import Path

import zarrloc
from zarrloc.api import stubs


def test_the_committed_stub_is_what_the_functions_say() -> None:
    assert stubs.FILE.read_text(encoding="utf-8") == stubs.stub(), (
        "run `python -m zarrloc.api.stubs`"
    )


def test_help_shows_every_setting_with_its_default() -> None:
    shown = inspect.signature(zarrloc.embed).parameters
    assert shown["size"].default == "native"
    assert shown["workers"].default is None
    assert {"store", "config", "name", "backbone", "precision"} <= shown.keys()


def test_a_type_checker_knows_the_keywords(tmp_path: Path) -> None:
    wrong = tmp_path / "use.py"
    wrong.write_text(
        "import zarrloc as zl\n"
        "zl.embed('a.zarr', backbone='dino-vits8', name='d')\n"
        "zl.embed('a.zarr', precision='fp8')\n"
        "zl.embed('a.zarr', workers='two')\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-error-summary", "--cache-dir", str(tmp_path / "c"),
         "--follow-imports", "skip", "--explicit-package-bases", "--config-file", "",
         str(wrong), "zarrloc/__init__.pyi"],
        capture_output=True, text=True, check=False, cwd=Path(zarrloc.__file__).parents[1],
    )  # fmt: skip
    found = [line.split("use.py:")[1][:8] for line in run.stdout.splitlines() if "use.py" in line]
    assert found == ["3: error", "4: error"], run.stdout + run.stderr
