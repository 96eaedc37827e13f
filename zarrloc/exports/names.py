"""Names that other tools take: for folders and elements, each different."""

import re
from collections.abc import Iterable, Sequence


def folder_names(
    names: Sequence[str], taken: Iterable[str] = (), instead: str = "field"
) -> list[str]:
    """`names` as names of folders, each different from the others and from those `taken`.

    Letters, digits, `.`, `_` and `-` are kept; names also differ where case does not count.

    Examples
    --------
    >>> folder_names(["P 1", "p_1", "..", "B03"])
    ['P_1', 'p_1-2', 'field', 'B03']
    """
    seen = {name.lower() for name in taken}
    made = []
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip("._")[:100] or instead
        one, count = plain, 1
        while one.lower() in seen:
            count += 1
            one = f"{plain}-{count}"
        seen.add(one.lower())
        made.append(one)
    return made
