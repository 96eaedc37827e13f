"""What every command hands back: what was done, what was there already, what failed and why."""

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@dataclass(kw_only=True, repr=False)
class Result:
    """How a command ended. Printed, or shown in a notebook, it is a short summary.

    Attributes
    ----------
    what : str
        What was made: a group of the store such as `embeddings/dino`, or a file.
    done, reused : int
        Items (fields, cells, rows, files) that this call made, and that were there already.
    failures : dict of str to str
        Item -> why it failed.
    seconds : float
        How long the call took.
    notes : list of str
        Further remarks for the user.
    details : dict
        What else the command found, such as scores; `result["test"]` is `result.details["test"]`.
    exit_code : int
        What the command line would return: 0 all done, 3 finished with failures, 1 not finished.
    """

    what: str = ""
    done: int = 0
    reused: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    exit_code: int = 0
    summary: list[str] = field(default_factory=list)
    """The command's own lines on how it ended, in place of the counts."""

    @property
    def failed(self) -> "pd.DataFrame":
        """One row a failed item: `item`, `reason`."""
        import pandas as pd

        return pd.DataFrame(list(self.failures.items()), columns=["item", "reason"])

    @property
    def table(self) -> "pd.DataFrame":
        """What the command found, one row an item; empty where it finds no such thing."""
        import pandas as pd

        return pd.DataFrame(self.details.get("rows", []))

    def lines(self) -> Sequence[str]:
        """The summary, line by line."""
        if self.summary:
            return self.summary
        counts = f"{self.what}: {self.done} done"
        if self.reused:
            counts += f", {self.reused} there already"
        if self.failures:
            counts += f", {len(self.failures)} failed (`.failed` lists them)"
        return [f"{counts}, {self.seconds:.1f} s", *(f"  {note}" for note in self.notes)]

    def __getitem__(self, name: str) -> Any:
        return self.details[name]

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        text = "<br>".join(html.escape(line) for line in self.lines())
        table = self.failed.to_html(max_rows=20, index=False) if self.failures else ""
        return f"<div>{text}{table}</div>"
