from zarrloc.exports.names import folder_names


def test_names_are_kept_where_they_can_be() -> None:
    assert folder_names(["FID00001", "B-03.tif", "a_b"]) == ["FID00001", "B-03.tif", "a_b"]


def test_names_differ_also_where_case_does_not_count() -> None:
    made = folder_names(["a b", "A_B", "a/b", "Taken"], taken=["TAKEN"])
    assert made == ["a_b", "A_B-2", "a_b-3", "Taken-2"]


def test_nothing_hides_or_climbs() -> None:
    assert folder_names(["..", ".x", "__y", "", "é"], instead="cell") == [
        "cell", "x", "y", "cell-2", "cell-3",
    ]  # fmt: skip
