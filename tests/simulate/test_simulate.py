"""The simulated data: its form is OpenCell's, its truth is true, its bytes are the seed's."""

import csv
import hashlib
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import tifffile
from click.testing import CliRunner
from numpy.random import SeedSequence

from zarrloc.config.simulate import SimulateConfig
from zarrloc.errors import ConfigError
from zarrloc.simulate import LABELS, Protein, draw_grades, simulate, simulate_fov
from zarrloc.simulate.camera import expose
from zarrloc.simulate.dataset import plan, planned_fov
from zarrloc.simulate.textures import smooth_noise

NAME = re.compile(r"^OC-FOV_(.+)_(ENSG\d+)_(CID\d+)_(FID\d+)_(proj|stack)\.tif$")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulate") / "sim"
    summary = simulate(out, SimulateConfig(proteins=17, fovs_per_protein=2, size=128, workers=1))
    assert (summary.proteins, summary.fovs) == (17, 34)
    return out


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.*"))
    }


def test_files_have_opencells_names_tags_and_layout(dataset: Path) -> None:
    paths = sorted((dataset / "raw").iterdir())
    assert len(paths) == 34
    matches = [NAME.match(path.name) for path in paths]
    assert all(matches)
    assert len({m[4] for m in matches if m}) == 34  # FID is unique
    assert any("-" in m[1] for m in matches if m)
    with tifffile.TiffFile(paths[0]) as file:
        assert file.is_imagej
        assert file.series[0].axes == "CYX"
        assert file.series[0].shape == (2, 128, 128)
        assert file.series[0].dtype == np.uint16
        tags = file.pages[0].tags
        assert tags["XResolution"].value == (5, 1)
        assert tags["Compression"].value == 1
        assert tags["ImageDescription"].value == (
            "ImageJ=1.11a\nimages=2\nchannels=2\nhyperstack=true\nmode=grayscale\nunit=um\naxes=CYX"
        )


def test_tags_are_those_of_a_real_file(dataset: Path, shared) -> None:  # type: ignore[no-untyped-def]
    def tags(path: Path) -> list[dict[str, object]]:
        size = {"ImageWidth", "ImageLength", "StripOffsets", "RowsPerStrip", "StripByteCounts"}
        with tifffile.TiffFile(path) as file:
            return [
                {t.name: t.value for t in page.tags if t.name not in size} for page in file.pages
            ]

    real = next(shared("opencell").glob("*.tif"))
    assert tags(next((dataset / "raw").iterdir())) == tags(real)


def test_every_label_is_as_often_the_main_one_and_the_cell_line_joins_all(dataset: Path) -> None:
    annotated = {
        row["target_name"]: row
        for row in rows(dataset / "labels" / "opencell-localization-annotations.csv")
    }
    lines = {
        int(row["cell_line_id"]): row for row in rows(dataset / "labels" / "all-public-targets.csv")
    }
    first = {row["annotations_grade_3"].split(";")[0] for row in annotated.values()}
    assert first == set(LABELS)
    wrong_gene = wrong_ensg = 0
    for path in (dataset / "raw").iterdir():
        match = NAME.match(path.name)
        assert match
        target = lines[int(match[3][3:])]["target_name"]
        assert target in annotated
        wrong_gene += match[1] != target
        wrong_ensg += match[2] != annotated[target]["ensg_id"]
    assert wrong_gene > 0
    assert wrong_ensg > 0


def test_truth_fits_the_images(dataset: Path) -> None:
    table = rows(dataset / "truth" / "cells.csv")
    seen: dict[str, set[int]] = {}
    for row in table:
        seen.setdefault(row["field"], set()).add(int(row["mask_id"]))
        assert set(row["labels"].split(";")) <= set(LABELS)
    for path in (dataset / "raw").iterdir():
        image = tifffile.imread(path)
        cells = tifffile.imread(dataset / "truth" / f"{path.stem}_cells.tif")
        nuclei = tifffile.imread(dataset / "truth" / f"{path.stem}_nuclei.tif")
        assert cells.shape == nuclei.shape == image.shape[1:]
        assert set(np.unique(cells)) - {0} == seen[path.stem]
        assert np.all(cells[nuclei > 0] == nuclei[nuclei > 0])
        assert image[0][nuclei > 0].mean() > 1.5 * image[0][nuclei == 0].mean()
        assert image.min() > 300  # a camera's offset, never 0


@pytest.mark.parametrize("workers", [1, 2])
def test_bytes_depend_on_the_seed_alone(tmp_path: Path, workers: int) -> None:
    config = SimulateConfig(fovs=9, size=64, seed=3, workers=workers)
    simulate(tmp_path / "a", config)
    simulate(tmp_path / "b", config.model_copy(update={"workers": 1}))
    simulate(tmp_path / "c", config.model_copy(update={"seed": 4, "workers": 1}))
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert a == b
    assert {a[name] for name in a if "raw" in name}.isdisjoint(c.values())


def test_fovs_counts_fields_and_four_to_six_go_to_a_protein(tmp_path: Path) -> None:
    counts = [target.fovs for target in plan(SimulateConfig(fovs=103))]
    assert sum(counts) == 103
    assert set(counts[:-1]) == {4, 5, 6}
    assert {target.fovs for target in plan(SimulateConfig(proteins=40))} == {4, 5, 6}


def test_nuclei_are_78_px_across_whatever_the_size() -> None:
    for side in (256, 600):
        across = []
        for seed in range(2 if side == 600 else 4):
            nuclei = simulate_fov({"er": 3}, shape=(side, side), seed=seed).nuclei
            border = set(np.unique(np.r_[nuclei[0], nuclei[-1], nuclei[:, 0], nuclei[:, -1]]))
            areas = np.bincount(nuclei.ravel())
            across += [2 * np.sqrt(a / np.pi) for i, a in enumerate(areas) if a and i not in border]
        assert 68 < np.median(across) < 88, (side, across)


def test_the_nucleus_channel_and_the_geometry_know_nothing_of_the_labels() -> None:
    one, other = (
        simulate_fov({label: 3}, shape=(128, 128), protein=Protein(), seed=5)
        for label in ("er", "golgi")
    )
    np.testing.assert_array_equal(one.cells, other.cells)
    np.testing.assert_array_equal(one.image[0], other.image[0])
    assert not np.array_equal(one.image[1], other.image[1])


@pytest.mark.parametrize(
    ("label", "inside"),
    [("nucleoplasm", 0.9), ("chromatin", 0.9), ("nucleolus_gc", 0.9), ("nuclear_punctae", 0.9)],
)
def test_nuclear_labels_shine_in_the_nucleus_and_others_do_not(label: str, inside: float) -> None:
    def share(label: str) -> float:
        fov = simulate_fov({label: 3}, protein=Protein(diffuse=0.0), seed=2, shape=(300, 300))
        usual = np.isin(fov.cells, [i for i, grades in fov.grades.items() if label in grades])
        bright = fov.image[1] > np.percentile(fov.image[1][usual], 95)
        return float((fov.nuclei > 0)[bright & usual].mean())

    assert share(label) > inside
    assert max(share(other) for other in ("cytoplasmic", "vesicles", "golgi")) < 0.25


def test_about_one_cell_in_ten_shows_another_pattern() -> None:
    fovs = [simulate_fov({"er": 3, "golgi": 1}, shape=(256, 256), seed=seed) for seed in range(14)]
    cells = [grades for fov in fovs for grades in fov.grades.values()]
    assert 0.04 < np.mean(["er" not in grades for grades in cells]) < 0.17


def test_grades_scale_a_pattern() -> None:
    def nuclear(grade: int) -> float:
        grades = {"cytoplasmic": 3, "nucleolus_gc": grade}
        fov = simulate_fov(grades, shape=(200, 200), seed=8)
        values = fov.image[1][fov.nuclei > 0].astype(float)
        return float(np.percentile(values, 97) - np.median(values))

    assert nuclear(1) < nuclear(2) < nuclear(3)


def test_drawn_grades_hold_the_main_label_at_three() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_grades(rng, "er") for _ in range(200)]
    assert all(grades["er"] == 3 for grades in drawn)
    assert {grade for grades in drawn for grade in grades.values()} == {1, 2, 3}
    assert 1.2 < np.mean([len(grades) for grades in drawn]) < 2.5


def test_fields_of_a_protein_share_its_effects_but_not_their_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[tuple[Protein, tuple[int, ...]]] = []

    def fake(grades: object, *, shape: object, protein: Protein, seed: SeedSequence) -> None:
        given.append((protein, tuple(seed.generate_state(2))))

    monkeypatch.setattr("zarrloc.simulate.dataset.simulate_fov", fake)
    config = SimulateConfig(proteins=20, fovs_per_protein=3)
    for target in plan(config):
        for field in range(target.fovs):
            planned_fov(target, field, config)
    proteins = [protein for protein, _ in given]
    assert proteins == [protein for protein in proteins[::3] for _ in range(3)]
    assert len({protein.peak for protein in proteins}) == 20
    assert len({seed for _, seed in given}) == 60


def test_main_labels_are_as_frequent_as_asked() -> None:
    def mains(labels: str) -> Counter[str]:
        config = SimulateConfig.of({"proteins": 340, "labels": labels})
        return Counter(next(iter(target.grades)) for target in plan(config))

    assert set(mains("balanced").values()) == {20}
    assert mains("opencell").most_common(1)[0][0] == "cytoplasmic"


def test_fields_hold_ten_to_forty_nuclei_and_touching_cells() -> None:
    for seed in range(3):
        fov = simulate_fov({"er": 3}, protein=Protein.draw(np.random.default_rng(seed)), seed=seed)
        areas = np.bincount(fov.nuclei.ravel())[1:]
        assert 10 <= np.sum(areas > 1500) <= 42
        left, right = fov.cells[:, :-1], fov.cells[:, 1:]
        assert np.sum((left != right) & (left > 0) & (right > 0)) > 50


def test_noise_is_white_skewed_and_as_strong_as_the_background_asks() -> None:
    empty = np.zeros((200, 200), np.float32)
    noise = expose(
        np.random.default_rng(0), empty, empty, focus_px=1, haze=0.05, background=700, gain=40
    ).astype(float)
    assert noise.mean() == pytest.approx(700, abs=4)
    assert 40 < noise.std() < 85
    assert abs(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]) < 0.02
    assert 0.6 < scipy.stats.skew(noise.ravel()) < 1.6


def test_smooth_noise_has_unit_variance_and_its_scale() -> None:
    noise = smooth_noise(np.random.default_rng(0), (400, 400), 4.0)
    assert noise.dtype == np.float32
    assert noise.std() == pytest.approx(1, abs=0.05)
    # White noise blurred by a Gaussian of sd s has the autocorrelation exp(-d^2 / 4 s^2).
    got = np.mean(noise[:, 4:] * noise[:, :-4]) / noise.var()
    assert got == pytest.approx(np.exp(-1 / 4), abs=0.04)


def test_refusals_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        simulate(tmp_path / "full")
    with pytest.raises(ConfigError, match=r"unknown labels \['nowhere'\]"):
        simulate_fov({"nowhere": 3})
    with pytest.raises(ConfigError, match="1, 2 or 3"):
        simulate_fov({"er": 4})
    with pytest.raises(ConfigError, match="not both"):
        SimulateConfig.of({"fovs": 3, "proteins": 2})

    def broken(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("zarrloc.simulate.write._write_tables", broken)
    with pytest.raises(OSError, match="disk full"):
        simulate(tmp_path / "new", SimulateConfig(fovs=1, size=64))
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_command_passes_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from zarrloc_cli.simulate import command

    from zarrloc.simulate import write

    got: list[tuple[Path, SimulateConfig]] = []

    def fake(out: Path, config: SimulateConfig) -> write.Summary:
        got.append((out, config))
        return write.Summary(str(out), 12, 3, 99)

    monkeypatch.setattr("zarrloc.simulate.simulate", fake)
    result = CliRunner().invoke(command, ["sim", "--fovs", "12", "--size", "256", "--seed", "7"])
    assert result.exit_code == 0, result.output
    assert "12 fields of 3 proteins, 99 cells" in result.output
    assert got == [(Path("sim"), SimulateConfig(fovs=12, size=256, seed=7))]
