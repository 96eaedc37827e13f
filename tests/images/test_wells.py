import string

from zarrloc.images import wells


def test_all_the_ways_to_name_a_well() -> None:
    assert {wells.name_of(text) for text in ("B3", "b03", "B-3", "B_03", " B 3 ", "r02c03")} == {
        "B03"
    }
    assert [wells.name_of(text) for text in ("H12", "P24", "AF48", "aa1")] == [
        "H12", "P24", "AF48", "AA01",
    ]  # fmt: skip
    for text in ("", "B", "3", "A0", "AG1", "A49", "DMSO", "r33c1", "B3.tif"):
        assert wells.name_of(text) is None


def test_every_well_of_the_largest_plate_has_its_own_name() -> None:
    rows = [*string.ascii_uppercase, *(f"A{letter}" for letter in "ABCDEF")]
    names = [wells.at(row, column) for row in range(1, 33) for column in range(1, 49)]
    assert names == [f"{row}{column:02}" for row in rows for column in range(1, 49)]
    assert all(wells.name_of(str(name)) == name for name in names)
    assert wells.at(33, 1) is wells.at(1, 49) is wells.at(0, 1) is None
