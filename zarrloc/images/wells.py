"""Names of wells, in the one form that coordinates have: `A01` to `AF48`."""

import re

_FORMS = (
    re.compile(r"(?P<row>[A-Za-z]|[Aa][A-Fa-f])[ _-]?(?P<column>\d{1,3})"),
    re.compile(r"[Rr](?P<number>\d{1,3})[ _-]?[Cc](?P<column>\d{1,3})"),
)
MOST_ROWS, MOST_COLUMNS = 32, 48
"""The size of a 1,536-well plate, the largest there is."""


def name_of(text: str) -> str | None:
    """The well that a text names, as `A01`; None where it names none.

    Examples
    --------
    >>> [name_of(text) for text in ("a1", "B-03", "r02c11", "AF48", "DMSO", "A0")]
    ['A01', 'B03', 'B11', 'AF48', None, None]
    """
    for form in _FORMS:
        if match := form.fullmatch(text.strip()):
            parts = match.groupdict()
            row = int(parts["number"]) if "number" in parts else number_of_row(parts["row"])
            return at(row, int(parts["column"]))
    return None


def at(row: int, column: int) -> str | None:
    """The name of the well at a row and column, both from 1; None outside any plate."""
    if not (1 <= row <= MOST_ROWS and 1 <= column <= MOST_COLUMNS):
        return None
    letters = chr(64 + row) if row <= 26 else "A" + chr(64 + row - 26)
    return f"{letters}{column:02}"


def number_of_row(letters: str) -> int:
    """The number of a row, from 1: A is 1, AA is 27."""
    number = 0
    for letter in letters.upper():
        number = 26 * number + ord(letter) - 64
    return number
