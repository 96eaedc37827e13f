"""Channel roles: one name for what a channel shows, whatever its dye is called."""

import re
from collections.abc import Sequence

from zarrloc.errors import ChannelError
from zarrloc.images import opencell

_ALIASES = {
    "nucleus": "nuclei nuclear dna dapi hoechst h33342 draq5 sytox",
    "protein": "poi target protein_of_interest tagged_protein gfp egfp sfgfp mneongreen mng fitc",
    "microtubules": "microtubule tubulin alpha_tubulin beta_tubulin",
    "er": "endoplasmic_reticulum calreticulin concanavalin_a",
    "mitochondria": "mitochondrion mito mitotracker",
    "actin": "f_actin phalloidin",
    "brightfield": "bright_field bf transmitted_light",
}
_ROLE = {alias: role for role, names in _ALIASES.items() for alias in (role, *names.split())}

# Words beside a dye's name that do not change what it shows: "DAPI channel", "Hoechst 33342",
# "GFP (488 nm)".
_BESIDE = re.compile(r"channel|stain|dye|laser|ex|em|nm|\d{3,}")


def role_of(name: str) -> str:
    """The role a channel's name means; an unknown name in lower case with underscores.

    "DAPI" and "Hoechst 33342" are `nucleus`, "mNeonGreen" is `protein`, "Lamin B1" is `lamin_b1`.
    A name without a letter or digit means nothing: "".
    """
    words = re.findall(r"[^\W_]+", name.lower())
    plain = "_".join(words)
    bare = "_".join(word for word in words if not _BESIDE.fullmatch(word))
    return _ROLE.get(plain) or _ROLE.get(bare) or plain


def map_channels(
    given: Sequence[str], metadata_names: Sequence[str] | None, is_opencell: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Roles of the channels in file order, and a line for each that says where it came from.

    `given` (--channels) counts before OpenCell's known order, that before the names in the files'
    metadata. Raises ChannelError where there is none of these, where a name means nothing or the
    same as another, or where `given` contradicts OpenCell's order.
    """
    if given:
        names, origin = tuple(given), "--channels"
    elif is_opencell:
        names, origin = opencell.CHANNELS, "OpenCell's order"
    elif metadata_names:
        names, origin = tuple(metadata_names), "the files' metadata"
    else:
        raise ChannelError(
            "the files do not name their channels; pass --channels with a role for each in file "
            "order, as in --channels nucleus,protein"
        )
    roles = tuple(map(role_of, names))
    for index, role in enumerate(roles):
        if not role:
            raise ChannelError(f"channel name {names[index]!r} says nothing; pass --channels")
        if role in roles[:index]:
            raise ChannelError(
                f"channels {names[roles.index(role)]!r} and {names[index]!r} both mean {role!r}; "
                f"pass --channels with a name of its own for each"
            )
    if is_opencell and roles != opencell.CHANNELS:
        raise ChannelError(
            f"OpenCell's files hold {','.join(opencell.CHANNELS)} in this order, "
            f"got --channels {','.join(names)}; leave --channels out"
        )
    how = tuple(
        f"channel {index}: {name!r} is {role} ({origin})"
        for index, (name, role) in enumerate(zip(names, roles, strict=True))
    )
    return roles, how
