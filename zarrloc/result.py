"""What every command hands back: what was done, what was there already, what failed and why."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@dataclass(kw_only=True, repr=False)
class Result:
    """How a command ended. Printed, or shown by a notebook, it says so in words.

    Attributes
    ----------
    what
        What was made: a group of the store such as `embeddings/dino`, or a file.
    done, reused
        Items (fields, cells, blocks, files) that this call made, and that were there already.
    failures
        Item -> why it failed.
    seconds
        How long it took.
    notes
        What a reader should know besides.
    """

    what: str = ""
    done: int = 0
    reused: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 all done; 3 finished, but some items failed."""
        return 3 if self.failures else 0

    @property
    def failed(self) -> "pd.DataFrame":
        """One row a failed item: `item`, `reason`."""
        import pandas as pd

        rows = list(self.failures.items())
        return pd.DataFrame(rows, columns=["item", "reason"])

    def lines(self) -> Sequence[str]:
        """For a terminal."""
        told = f"{self.what}: {self.done} done"
        if self.reused:
            told += f", {self.reused} there already"
        if self.failures:
            told += f", {len(self.failures)} failed"
        return [f"{told}, {self.seconds:.1f} s", *(f"  {note}" for note in self.notes)]

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        text = "<br>".join(html.escape(line) for line in self.lines())
        if not self.failures:
            return f"<div>{text}</div>"
        return f"<div>{text}{self.failed.to_html(max_rows=20)}</div>"
