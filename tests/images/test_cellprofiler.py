from pathlib import Path

import numpy as np
import pytest

from tests.plate_files import pixels_of, shots, stains
from zarrloc.errors import SourceError
from zarrloc.images import find, read
from zarrloc.images.roles import Channels

ROLES = Channels(("nucleus", "protein"))


def _table(folder: Path, path: str, prefix: str = "") -> Path:
    names = ("FileName_DNA", "PathName_DNA", "FileName_GFP", "PathName_GFP", "Metadata_Plate")
    names = (*names, "Metadata_Well", "Metadata_Site", "Metadata_Dose", "Count_Cells")
    lines = [",".join(f"{prefix}{name}" for name in names)]
    for shot in shots(1):
        if shot.channel == 1:
            stem = f"exp1_{shot.well}_s{shot.site}"
            cells = (f"{stem}_DAPI.tif", path, f"{stem}_GFP.tif", path, "P1", shot.well.lower())
            lines.append(",".join((*cells, str(shot.site), "3", "17")))
    (folder / "Image.csv").write_text("\n".join(lines))
    return folder / "Image.csv"


@pytest.mark.parametrize("prefix", ["", "Image_"])
@pytest.mark.parametrize("path", ["here", "C:\\data\\run", "/on/another/machine", ""])
def test_an_image_table_is_a_manifest(path: str, prefix: str, tmp_path: Path) -> None:
    stains(tmp_path / "images", 1)
    table = _table(tmp_path, str(tmp_path / "images") if path == "here" else path, prefix)
    found = find.find(tmp_path / "images", manifest=table)
    assert [one.fov for one in found] == ["P1_B02_s1", "P1_B02_s2", "P1_C11_s1", "P1_C11_s2"]
    one = found[1]
    assert one.channels == ("DNA", "GFP")
    assert one.coords == {"plate": "P1", "well": "B02", "site": "2", "dose": "3"}
    assert one.problem == ""
    np.testing.assert_array_equal(read.read_field(one, ROLES), pixels_of("B02", 2)[0])


def test_urls_and_rows_without_a_file(tmp_path: Path) -> None:
    stains(tmp_path / "ima ges", 1)
    url = (tmp_path / "ima ges/exp1_B02_s1_DAPI.tif").as_uri()
    assert "%20" in url
    (tmp_path / "t.csv").write_text(f"URL_DNA,ImageNumber\n{url},1\n")
    (one,) = find.find(tmp_path / "t.csv")
    assert (one.fov, one.channels, one.problem) == ("exp1_B02_s1_DAPI", ("DNA",), "")
    (tmp_path / "t.csv").write_text(f"URL_DNA,ImageNumber\n{url},1\n,2\n")
    with pytest.raises(SourceError, match="line 3 names no file for channel DNA"):
        find.find(tmp_path / "t.csv")
