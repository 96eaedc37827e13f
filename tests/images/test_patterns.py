import pytest

from zarrloc.errors import SourceError
from zarrloc.images.files import File
from zarrloc.images.patterns import Pattern, is_pattern, split_pattern

GUID = "3F2504E0-4F89-41D3-9A0C-0305E82C3301"


def test_a_pattern_tells_fields_apart_and_what_is_known_of_them() -> None:
    pattern = Pattern("{plate}_{well}_s{site}_w{channel}{*}.tif")
    for end in ("", GUID, f"_thumb{GUID}", "_x"):
        part = pattern.part(File(f"/data/exp_1_b2_s3_w1{end}.tif"))
        assert part is not None
        assert (part.fov, part.channel, part.folder) == ("exp_1_b2_s3", "1", "/data/")
        assert part.coords == {"plate": "exp_1", "well": "B02", "site": "3"}
    part = pattern.part(File("/data/exp_B02_s3_wDAPI.tif"))
    assert part is not None
    assert part.channel == "DAPI"
    assert pattern.part(File("/data/other.tif")) is None


def test_rows_and_columns_become_wells_and_planes_are_numbered() -> None:
    pattern = Pattern("r{row}c{col}f{site}p{z}-ch{channel}sk1fk1fl1.tiff")
    part = pattern.part(File("/d/r02c03f01p07-ch2sk1fk1fl1.tiff"))
    assert part is not None
    assert (part.channel, part.plane, part.coords["well"]) == ("2", "07", "B03")


def test_folders_may_stand_in_a_pattern() -> None:
    pattern = Pattern("{donor}/{channel}/{fov}.tif")
    part = pattern.part(File("/data/d1/DAPI/img_1.tif"))
    assert part is not None
    assert (part.fov, part.channel, part.folder) == ("img_1", "DAPI", "/data/")
    assert part.coords == {"donor": "d1"}
    part = Pattern("{channel}/*.tif").part(File("/data/DAPI/img_1.tif"))
    assert part is not None
    assert (part.fov, part.channel) == ("img_1", "DAPI")


def test_a_source_is_split_into_a_glob_and_a_pattern() -> None:
    assert split_pattern("/d/p*/{channel}/x_{z}{*}.tif") == (
        "/d/p*/*/x_**.tif",
        "{channel}/x_{z}{*}.tif",
    )
    assert is_pattern("a_{channel}.tif")
    assert not is_pattern("a{1}.tif")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{channel}_{channel}.tif", "{channel} must stand once"),
        ("{image}_{channel}.tif", "{image} cannot become a coordinate"),
    ],
)
def test_a_pattern_that_cannot_be_is_refused(text: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        Pattern(text)
