from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from zarrloc_cli import main as cli

import zarrloc
from tests.labelled_store import add_cells, make_store
from zarrloc.errors import ConfigError


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 proteins of 3 fields; their embedding is their labels and a little noise."""
    path = make_store(tmp_path_factory.mktemp("s") / "oc.zarr", proteins=16, fields=3)
    add_cells(path)
    return path


def test_what_has_the_same_labels_comes_first(store: Path) -> None:
    found = zarrloc.similar(store, "p001", embedding="planted", top=5)
    assert found["protein"] == "P001"
    assert found.table["labels"][:2].tolist() == ["er"] * 2
    assert found.table["labels"].str.contains("er")[:3].all()
    assert found.table["score"].is_monotonic_decreasing
    assert "P001" not in found.table["protein"].tolist()
    assert found.table["fields"].tolist() == [3] * 5


def test_scores_are_those_of_plain_numpy(store: Path) -> None:
    data = zarrloc.open(store).embedding("planted").load()
    x = data.embedding.values.astype(float)
    x = (x - x.mean(0)) / x.std(0)
    proteins = sorted(set(data.protein.values.tolist()))
    means = np.stack([x[data.protein.values == name].mean(0) for name in proteins])
    means -= means.mean(0)
    found = zarrloc.similar(store, "P004", embedding="planted", top=15).table
    for _, row in found.iterrows():
        a, b = means[proteins.index("P004")], means[proteins.index(str(row["protein"]))]
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        assert row["score"] == pytest.approx(cosine, abs=1e-3)


def test_cells_can_tell_too(store: Path) -> None:
    found = zarrloc.similar(store, "P001", top=3)  # the first embedding is of cells
    assert found["embedding"] == "embeddings/cells"
    assert found.table["labels"].str.contains("er").all()


def test_the_command_draws_a_strip(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "strip.png"
    with pytest.raises(SystemExit) as end:
        cli.main(["similar", str(store), "--protein", "P002", "--top", "3", "--out", str(out)])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert "most like P002 (golgi):" in said
    with Image.open(out) as picture:
        assert picture.size[0] * picture.size[1] > 4 * 200 * 200


def test_an_unknown_protein_gets_the_nearest(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no protein 'P0012' .* among 16; did you mean P\d+\?"):
        zarrloc.similar(store, "P0012")
    with pytest.raises(ConfigError, match=r"name a \.png file in a folder that exists"):
        zarrloc.similar(store, "P001", out=tmp_path / "no" / "x.png")
    with pytest.raises(ConfigError, match="top is 0"):
        zarrloc.similar(store, "P001", top=0)
