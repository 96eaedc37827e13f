import pytest

from zarrloc.errors import ChannelError, SourceError
from zarrloc.images.roles import FILE_NAMES, map_channels, role_of


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("DAPI", "nucleus"),
        ("Hoechst 33342", "nucleus"),
        ("hoechst", "nucleus"),
        ("nuclei", "nucleus"),
        ("DAPI (405 nm)", "nucleus"),
        ("GFP", "protein"),
        ("mNeonGreen", "protein"),
        ("FITC channel", "protein"),
        ("POI", "protein"),
        ("Tubulin", "microtubules"),
        ("calreticulin", "er"),
        ("ER", "er"),
        ("Alexa Fluor 488", "alexa_fluor_488"),
        ("GFP-tubulin", "gfp_tubulin"),
        ("Lamin B1", "lamin_b1"),
    ],
)
def test_a_name_means_a_role_or_stays_itself(name: str, role: str) -> None:
    assert role_of(name) == role
    assert role_of(role) == role


def test_a_name_that_says_nothing_is_refused() -> None:
    assert role_of("-") == ""
    assert role_of("Ядро") == "ядро"
    with pytest.raises(ChannelError, match="'-' says nothing; pass --channels"):
        map_channels((), ("DAPI", "-"))


def test_names_come_from_the_option_then_opencell_then_the_metadata() -> None:
    found = map_channels(("dna", "Lamin B1"), None)
    assert found.roles == ("nucleus", "lamin_b1")
    assert found.how[0] == "channel 0: 'dna' is nucleus (--channels)"
    assert map_channels((), ("whatever", "else"), is_opencell=True).roles == ("nucleus", "protein")
    found = map_channels((), ("GFP", "DAPI"))
    assert found.roles == ("protein", "nucleus")
    assert found.how[1] == "channel 1: 'DAPI' is nucleus (the files' metadata)"
    found = map_channels((), ("GFP", "DAPI"), origin=FILE_NAMES)
    assert found.how[1] == "channel 1: 'DAPI' is nucleus (the files' names)"


def test_unnamed_channels_ask_for_the_option_and_say_how_many_there_are() -> None:
    with pytest.raises(ChannelError, match=r"\(3 channels a file\).*--channels nucleus,protein"):
        map_channels((), None, count=3)
    with pytest.raises(ChannelError, match="have 3 channels, got --channels nucleus,protein"):
        map_channels(("nucleus", "protein"), None, count=3)


def test_two_channels_of_one_role_are_refused() -> None:
    with pytest.raises(ChannelError, match="'GFP' and 'FITC' both mean 'protein'"):
        map_channels(("DAPI", "GFP", "FITC"), None)


def test_opencell_in_the_papers_order_is_refused() -> None:
    with pytest.raises(ChannelError, match="hold nucleus,protein in this order"):
        map_channels(("protein", "nucleus"), None, is_opencell=True)
    assert map_channels(("DAPI", "GFP"), None, is_opencell=True).roles == ("nucleus", "protein")


def test_names_in_the_files_win_over_the_order_given() -> None:
    found = map_channels(("nucleus", "protein"), ("GFP", "DAPI"))
    assert found.roles == ("nucleus", "protein")
    assert found.order(("GFP", "DAPI"), 2) == [1, 0]
    assert found.order(("DAPI", "GFP"), 2) == [0, 1]
    assert found.order(None, 2) == [0, 1]
    with pytest.raises(SourceError, match="has channels DAPI, RFP, expected nucleus, protein"):
        found.order(("DAPI", "RFP"), 2)


def test_names_that_mean_nothing_take_the_roles_given_and_keep_them() -> None:
    found = map_channels(("nucleus", "protein"), ("488", "405"))
    assert found.order(("405", "488"), 2) == [1, 0]
    found = map_channels(("nucleus", "lamin"), ("DAPI", "GFP"))
    assert found.order(("GFP", "DAPI"), 2) == [1, 0]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (("nucleus", "lamin"), ("GFP", "DAPI")),
        (("dna", "lamin"), ("488", "DAPI")),
        (("nucleus", "protein", "er"), ("488", "405")),
    ],
)
def test_an_order_that_contradicts_the_names_is_refused(
    given: tuple[str, ...], names: tuple[str, ...]
) -> None:
    with pytest.raises(ChannelError, match=f"--channels {names[0]}=ROLE,{names[1]}=ROLE"):
        map_channels(given, names)


def test_roles_are_given_by_name_and_the_rest_is_left_out() -> None:
    found = map_channels(("w2=protein", "1=nucleus"), ("w1: DAPI", "w2: GFP", "w3: Cy5"))
    assert found.roles == ("protein", "nucleus")
    assert found.order(("w1: DAPI", "w2: GFP", "w3: Cy5"), 3) == [1, 0]
    found = map_channels(("DAPI=nucleus", "GFP=protein", "RFP=protein"), ("DAPI", "GFP"))
    assert found.order(("RFP", "DAPI"), 2) == [1, 0]
    with pytest.raises(ChannelError, match="no channel for protein; the files have w1, w2"):
        map_channels(("w1=nucleus", "w9=protein"), ("w1", "w2"))
    with pytest.raises(ChannelError, match="expected NAME=ROLE for every channel"):
        map_channels(("w1=nucleus", "protein"), ("w1", "w2"))
    with pytest.raises(ChannelError, match="do not name their channels"):
        map_channels(("w1=nucleus",), None, count=2)


def test_words_that_we_sorted_have_no_order() -> None:
    with pytest.raises(ChannelError, match="does not say which is which"):
        map_channels(("nucleus", "protein"), ("bar", "foo"), origin=FILE_NAMES)
    found = map_channels(("nucleus", "protein"), ("w1", "w2"), origin=FILE_NAMES)
    assert found.names == {"w1": "nucleus", "w2": "protein"}
