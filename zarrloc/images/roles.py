"""Channel roles: one name for what a channel shows, whatever its dye is called."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from zarrloc.errors import ChannelError, SourceError
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
_TAGGED = re.compile(r"(?P<tag>[a-z]{1,7}[ _]?\d*): (?P<name>.+)", re.IGNORECASE)
_NUMBERED = re.compile(r"([a-z]{0,7})[ _]?0*(\d+)", re.IGNORECASE)


FILE_NAMES = "the files' names"
"""The origin of channels that file names gave, in an order that zarrloc chose."""


def role_of(name: str) -> str:
    """The role a channel's name means; an unknown name in lower case with underscores.

    "DAPI", "Hoechst 33342" and "w1: DAPI" are `nucleus`, "mNeonGreen" is `protein`, "Lamin B1" is
    `lamin_b1`. A name without a letter or digit means nothing: "".
    """
    tagged = _TAGGED.fullmatch(name)
    words = re.findall(r"[^\W_]+", (tagged["name"] if tagged else name).lower())
    plain = "_".join(words)
    bare = "_".join(word for word in words if not _BESIDE.fullmatch(word))
    return _ROLE.get(plain) or _ROLE.get(bare) or plain


def means(name: str) -> str | None:
    """The role of a name that is known to mean one; None for any other."""
    role = role_of(name)
    return role if role in _ALIASES else None


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts 2 before 10."""
    parts = re.findall(r"\d+|\D+", text)
    return tuple((0, int(p), "") if p.isdecimal() else (1, 0, p.lower()) for p in parts)


@dataclass(frozen=True)
class Channels:
    """Which channel of a file is which role of the store."""

    roles: tuple[str, ...]
    """The roles in the order of the store."""
    names: Mapping[str, str] = field(default_factory=dict)
    """What files call a channel -> its role."""
    by_order: bool = False
    """Files that do not name their channels hold the roles in this order."""
    some: bool = False
    """Files may hold further channels, which are left out."""
    origin: str = "files"
    """`given`, `opencell` or `files`."""
    how: tuple[str, ...] = field(default=(), compare=False)
    """A line for each that says where it came from."""

    def order(self, names: Sequence[str] | None, count: int) -> list[int]:
        """Where each role lies among the `count` channels of a file, by `names` if it has them.

        Raises
        ------
        SourceError
            Where a role is missing or there twice, or a channel too many.
        """
        if names is None:
            if not self.by_order:
                raise SourceError("does not name its channels; pass --channels with their order")
            if count != len(self.roles):
                raise SourceError(
                    f"has {_counted(count)}, expected {len(self.roles)} ({', '.join(self.roles)})"
                )
            return list(range(count))
        got = [self.names.get(name) or role_of(name) for name in names]
        wrong = [role for role in self.roles if got.count(role) != 1]
        if wrong or (not self.some and len(got) > len(self.roles)):
            raise SourceError(
                f"has channels {', '.join(names)}, expected {', '.join(self.roles)}; --channels "
                "NAME=ROLE,... says which is which"
            )
        return [got.index(role) for role in self.roles]


def wanted_channels(given: Sequence[str], there: Sequence[str]) -> dict[str, str]:
    """Role of each channel that counts, by its name in the files' names, in the order of roles.

    Raises ChannelError where `given` (--channels) asks for one that is not `there`.
    """
    if not given or not there:
        return {name: role_of(name) or name for name in there}
    channels = map_channels(given, there, origin=FILE_NAMES)
    order = {role: place for place, role in enumerate(channels.roles)}
    roles = {name: channels.names.get(name) or role_of(name) for name in there}
    return dict(
        sorted(((n, r) for n, r in roles.items() if r in order), key=lambda item: order[item[1]])
    )


def map_channels(
    given: Sequence[str],
    names: Sequence[str] | None,
    *,
    count: int = 0,
    is_opencell: bool = False,
    origin: str = "the files' metadata",
) -> Channels:
    """Which channel is which role.

    Parameters
    ----------
    given
        `--channels`: a role for each channel in file order, or `NAME=ROLE` for those that count.
    names
        What the files call their channels, in the commonest order; None where they do not.
    count
        How many channels a file has, where known; for messages.
    is_opencell
        OpenCell's files, whose order is known.
    origin
        Where `names` come from.

    Raises
    ------
    ChannelError
        Where no roles can be determined, a name means nothing or the same as another, or `given`
        contradicts the files' names or OpenCell's order.
    """
    pairs = [text.rpartition("=")[::2] for text in given]
    if any(name for name, _ in pairs):
        return _by_pairs(pairs, names, count)
    roles = tuple(map(role_of, given))
    if is_opencell:
        _check_roles(given or opencell.CHANNELS, roles or opencell.CHANNELS)
        if roles and roles != opencell.CHANNELS:
            raise ChannelError(
                f"OpenCell's files hold {','.join(opencell.CHANNELS)} in this order, "
                f"got --channels {','.join(given)}; leave --channels out"
            )
        how = _how(opencell.CHANNELS, opencell.CHANNELS, "OpenCell's order")
        return Channels(opencell.CHANNELS, {}, True, origin="opencell", how=how)
    if not given:
        if not names:
            has = f" ({_counted(count)} a file)" if count else ""
            raise ChannelError(
                f"the files do not name their channels{has}; pass --channels with a role for each "
                "in file order, as in --channels nucleus,protein"
            )
        roles = tuple(map(role_of, names))
        _check_roles(names, roles)
        by_name = dict(zip(names, roles, strict=True))
        how = _how(names, roles, origin)
        if all(map(_NUMBERED.fullmatch, names)):
            asked = ",".join(f"{name}=ROLE" for name in names)
            how += (
                f"the channels {', '.join(names)} do not say what they show; --channels {asked} "
                "does, or `zarrloc annotate STORE --channels` later",
            )
        return Channels(roles, by_name, how=how)
    _check_roles(given, roles)
    if names:
        return _by_names(given, roles, names, in_order=origin != FILE_NAMES)
    if count and count != len(roles):
        raise ChannelError(
            f"the files have {_counted(count)}, got --channels {','.join(given)}; "
            "expected a role for each, in file order"
        )
    return Channels(roles, {}, True, origin="given", how=_how(given, roles, "--channels"))


def _by_names(
    given: Sequence[str], roles: tuple[str, ...], names: Sequence[str], *, in_order: bool
) -> Channels:
    """Roles that were given for files which name their channels: the names win."""
    meant = [role_of(name) for name in names]
    if set(roles) <= set(meant):
        by_name = {n: role for n, role in zip(names, meant, strict=True) if role in roles}
        ordered = sorted(by_name, key=lambda name: roles.index(by_name[name]))
        some = len(names) > len(roles)
        how = _how(ordered, roles, "by its name")
        return Channels(roles, by_name, True, some, "given", how)
    said = f"the files call their channels {', '.join(names)}; got --channels {','.join(given)}"
    advice = f"pass --channels {','.join(f'{name}=ROLE' for name in names)}"
    if len(names) != len(roles):
        raise ChannelError(f"{said}; {advice} for those that count")
    for name, meaning, role in zip(names, meant, roles, strict=True):
        if meaning != role and (meaning in roles or role in meant):
            raise ChannelError(f"{said}, which makes {name!r} {role}; {advice}")
    if not in_order and not all(map(_NUMBERED.fullmatch, names)):  # we sorted them
        raise ChannelError(f"{said}, which does not say which is which; {advice}")
    by_name = dict(zip(names, roles, strict=True))
    return Channels(roles, by_name, True, origin="given", how=_how(names, roles, "--channels"))


def _by_pairs(
    pairs: Sequence[tuple[str, str]], names: Sequence[str] | None, count: int
) -> Channels:
    if not names:
        raise ChannelError(
            f"the files do not name their channels ({_counted(count)} a file); pass --channels "
            "with a role for each in file order, without names"
        )
    by_name: dict[str, str] = {}
    for key, role in pairs:
        if not (key and role_of(role)):
            raise ChannelError(
                f"--channels {key or role}: expected NAME=ROLE for every channel, such as "
                f"{names[0]}=nucleus"
            )
        matching = [name for name in names if _same_channel(key.strip(), name)]
        by_name.update({name: role_of(role) for name in matching or [key.strip()]})
    roles = tuple(dict.fromkeys(role_of(role) for _, role in pairs))
    for role in roles:
        mine = [name for name in names if by_name.get(name) == role]
        if len(mine) != 1:
            raise ChannelError(
                f"--channels names {'no' if not mine else 'more than one'} channel for {role}; "
                f"the files have {', '.join(names)}"
            )
    ordered = [next(name for name in names if by_name.get(name) == role) for role in roles]
    how = _how(ordered, roles, "--channels")
    return Channels(roles, by_name, some=True, origin="given", how=how)


def _same_channel(key: str, name: str) -> bool:
    """Whether a user's `key` means this channel: `w1`, `1`, `DAPI` all mean `w1: DAPI`."""
    tagged = _TAGGED.fullmatch(name)
    called = {name, tagged["tag"], tagged["name"]} if tagged else {name}
    if key.lower() in {text.lower() for text in called}:
        return True
    number = _NUMBERED.fullmatch(key)
    numbers = [_NUMBERED.fullmatch(text) for text in called]
    return number is not None and any(
        other is not None
        and number[2] == other[2]
        and (not number[1] or not other[1] or number[1].lower() == other[1].lower())
        for other in numbers
    )


def _check_roles(names: Sequence[str], roles: Sequence[str]) -> None:
    for index, role in enumerate(roles):
        if not role:
            raise ChannelError(f"channel name {names[index]!r} says nothing; pass --channels")
        if role in roles[:index]:
            raise ChannelError(
                f"channels {names[roles.index(role)]!r} and {names[index]!r} both mean {role!r}; "
                f"pass --channels with a name of its own for each"
            )


def _how(names: Sequence[str], roles: Sequence[str], origin: str) -> tuple[str, ...]:
    return tuple(
        f"channel {index}: {name!r} is {role} ({origin})"
        for index, (name, role) in enumerate(zip(names, roles, strict=True))
    )


def _counted(count: int) -> str:
    return f"{count} channel{'s' * (count != 1)}"
