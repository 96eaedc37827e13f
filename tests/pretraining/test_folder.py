"""What may be the folder of a run, and what of it an overwrite removes."""

import json
from pathlib import Path

import pytest

from zarrloc.config.pretrain import PretrainConfig
from zarrloc.errors import ConfigError, StoreError
from zarrloc.pretraining import folder
from zarrloc.store.location import Location

SETTINGS = {"batch": 4, "data": "00ff"}


def check(out: Path, *, overwrite: bool = False, inputs: tuple[str | None, ...] = ()) -> None:
    store = Location.of(out.parent / "my.zarr")
    folder.check(out, store, overwrite=overwrite, inputs=inputs)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with one file of each kind, and with things of its user's."""
    out = tmp_path / "ft"
    folder.take(out, SETTINGS, overwrite=False)
    for name in (
        *("backbone.json", "backbone.safetensors", "teacher.pth", "log.jsonl"),
        *("best/backbone.json", "best/teacher.pth", "checkpoints/step-00000004.pt"),
        *("checkpoints/step-00000008.broken", "tensorboard/events.out.tfevents.1"),
        *("notes.txt", "best/notes.txt", "checkpoints.txt", "mine.partial", "figures/a.png"),
    ):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text(name)
    return out


def names(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}


def test_overwriting_removes_what_a_run_wrote_and_nothing_else(run: Path) -> None:
    """The user's files stay, beside the run's and in its folders."""
    check(run, overwrite=True)
    folder.take(run, {**SETTINGS, "batch": 6}, overwrite=True)
    kept = {"notes.txt", "best/notes.txt", "checkpoints.txt", "mine.partial", "figures/a.png"}
    assert names(run) == {"run.json", *kept}
    assert folder.read(run)["batch"] == 6
    assert not (run / "checkpoints").exists()


def test_a_linked_folder_is_not_followed(run: Path, tmp_path: Path) -> None:
    """Its files are someone else's, whatever they are called."""
    elsewhere = tmp_path / "elsewhere"
    (run / "best").rename(elsewhere)
    (run / "best").symlink_to(elsewhere)
    folder.take(run, SETTINGS, overwrite=True)
    assert names(elsewhere) == {"backbone.json", "teacher.pth", "notes.txt"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_folders_are_refused(tmp_path: Path, overwrite: bool) -> None:
    """Whatever is asked for, and nothing in them changes."""
    foreign, store, file = tmp_path / "thesis", tmp_path / "other.zarr", tmp_path / "file"
    for path in (foreign / "chapter.tex", store / "zarr.json"):
        path.parent.mkdir()
        path.write_text("{}")
    (store / "run.json").write_text("{}")
    file.write_text("")
    own = tmp_path / "my.zarr"
    own.mkdir()
    for out, message in (
        (foreign, "not empty and holds no run"),
        (store, "is a Zarr store"),
        (file, "is a file"),
        (own, "lie in one another"),
        (own / "run", "lie in one another"),
        (tmp_path, "lie in one another"),
    ):
        with pytest.raises((ConfigError, StoreError), match=message):
            folder.check(out, Location.of(own), overwrite=overwrite, inputs=())
    assert names(foreign) == {"chapter.tex"}
    with pytest.raises(ConfigError, match="not to a URL"):
        folder.check(Path("s3://bucket/ft"), Location.of(own), overwrite=overwrite, inputs=())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "another tool"}'])
def test_a_damaged_or_foreign_marker_is_refused(run: Path, text: str) -> None:
    """It cannot be known whose the files are: none is removed."""
    (run / "run.json").write_text(text)
    before = names(run)
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match=r"run\.json is damaged or not of"):
            check(run, overwrite=overwrite)
        with pytest.raises(ConfigError, match=r"run\.json is damaged or not of"):
            folder.take(run, SETTINGS, overwrite=overwrite)
    assert names(run) == before


def test_a_marker_of_a_newer_zarrloc_is_refused(run: Path) -> None:
    """By its number."""
    (run / "run.json").write_text(json.dumps({"zarrloc_pretrain": 99, "settings": {}}))
    with pytest.raises(ConfigError, match="has format 99, this zarrloc knows 1"):
        check(run)


def test_a_folder_is_made_with_those_it_lies_in(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "of today" / "ft"
    check(out)
    folder.take(out, SETTINGS, overwrite=False)
    assert names(out) == {"run.json"}


def test_a_run_that_ended_while_it_took_its_folder_goes_on(tmp_path: Path) -> None:
    """All it left is half of the marker."""
    out = tmp_path / "ft"
    out.mkdir()
    (out / "run.json.partial").write_text("{")
    check(out)
    folder.take(out, SETTINGS, overwrite=False)
    assert folder.read(out) == SETTINGS


def test_other_settings_are_refused_with_the_difference(run: Path) -> None:
    """And equal ones go on."""
    folder.take(run, SETTINGS, overwrite=False)
    with pytest.raises(ConfigError, match="batch: 4 -> 6"):
        folder.take(run, {**SETTINGS, "batch": 6}, overwrite=False)


@pytest.mark.parametrize("start", [".", "best", "teacher.pth"])
def test_what_a_run_starts_from_is_not_removed(run: Path, start: str) -> None:
    """A fine-tune that would overwrite its own start is refused; a name is no path."""
    with pytest.raises(ConfigError, match="which --overwrite would remove"):
        check(run, overwrite=True, inputs=("dino-vits8", str(run / start)))
    check(run, overwrite=True, inputs=("dino-vits8", None, str(run.parent)))


def test_a_setting_that_is_newer_than_the_run_had_its_default(tmp_path: Path) -> None:
    """So the run goes on; with another value it is another run."""
    settings = PretrainConfig.of({"arch": "x"}).result()
    older = {k: v for k, v in settings.items() if k not in ("tokens", "mask_range", "noise")}
    out = tmp_path / "run"
    folder.take(out, older, overwrite=False)
    (out / "log.jsonl").write_text("")
    folder.take(out, settings, overwrite=False)
    with pytest.raises(ConfigError, match=r"\(noise: 0.0 -> 0.5\)"):
        folder.take(out, {**settings, "noise": 0.5}, overwrite=False)
    with pytest.raises(ConfigError, match=r"\(data: None -> 7\)"):
        folder.take(out, {**settings, "data": "7"}, overwrite=False)


def test_a_run_that_noted_no_weights_goes_on(tmp_path: Path) -> None:
    """An earlier zarrloc's; where they are noted, others are another run."""
    out = tmp_path / "run"
    folder.take(out, SETTINGS, overwrite=False)
    folder.take(out, {**SETTINGS, "weights": "0a"}, overwrite=False)
    folder.take(out, {**SETTINGS, "weights": "0a"}, overwrite=True)
    (out / "log.jsonl").write_text("")
    folder.take(out, {**SETTINGS, "weights": "0a"}, overwrite=False)
    with pytest.raises(ConfigError, match=r"\(weights: 0a -> 0b\)"):
        folder.take(out, {**SETTINGS, "weights": "0b"}, overwrite=False)
