import pytest

from zarrloc.errors import ChannelError
from zarrloc.images.roles import map_channels, role_of


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
        map_channels((), ("DAPI", "-"), False)


def test_names_come_from_the_option_then_opencell_then_the_metadata() -> None:
    roles, how = map_channels(("dna", "Lamin B1"), ("GFP", "DAPI"), False)
    assert roles == ("nucleus", "lamin_b1")
    assert how[0] == "channel 0: 'dna' is nucleus (--channels)"
    assert map_channels((), ("whatever", "else"), True)[0] == ("nucleus", "protein")
    roles, how = map_channels((), ("GFP", "DAPI"), False)
    assert roles == ("protein", "nucleus")
    assert how[1] == "channel 1: 'DAPI' is nucleus (the files' metadata)"


def test_unnamed_channels_ask_for_the_option() -> None:
    with pytest.raises(ChannelError, match="--channels nucleus,protein"):
        map_channels((), None, False)


def test_two_channels_of_one_role_are_refused() -> None:
    with pytest.raises(ChannelError, match="'GFP' and 'FITC' both mean 'protein'"):
        map_channels(("DAPI", "GFP", "FITC"), None, False)


def test_opencell_in_the_papers_order_is_refused() -> None:
    with pytest.raises(ChannelError, match="hold nucleus,protein in this order"):
        map_channels(("protein", "nucleus"), None, True)
    assert map_channels(("DAPI", "GFP"), None, True)[0] == ("nucleus", "protein")
