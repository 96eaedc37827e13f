"""`zarrloc report`: store in, page out."""

from dataclasses import dataclass, field
from pathlib import Path

from zarrloc.config.report import ReportConfig
from zarrloc.errors import ConfigError
from zarrloc.report.gather import Projection, gather
from zarrloc.report.page import render
from zarrloc.report.projection import project as umap_projection
from zarrloc.store.location import Location


@dataclass(frozen=True)
class ReportSummary:
    """What was written."""

    out: Path
    bytes: int
    points: int
    absent: list[str] = field(default_factory=list)
    exit_code: int = 0

    def lines(self) -> list[str]:
        """What was done, as lines of text."""
        first = f"{self.out}: {self.points} points, {self.bytes / 1e6:.1f} MB; opens from disk"
        return [first, *(f"  {line}" for line in self.absent)]


def write_report(
    store: str | Path | Location,
    out: str | Path,
    config: ReportConfig | None = None,
    *,
    project: Projection = umap_projection,
) -> ReportSummary:
    """Write one self-contained HTML page about `store` to `out`.

    `project` puts features `(n, f)` on a plane `(n, 2)`. Raises `StoreError` without a store,
    `ConfigError` for an embedding or head that isn't there, or an `out` that can't be written.
    """
    location = Location.of(store)
    config = config or ReportConfig()
    target = Path(out)
    if not target.parent.is_dir():
        raise ConfigError(f"cannot write {out}: {target.parent} is not a folder")
    contents = gather(location, config, project)
    page = render(location, contents, config).encode()
    try:
        target.write_bytes(page)
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error.strerror}") from error
    points = 0 if contents.points is None else len(contents.points)
    return ReportSummary(target, len(page), points, list(dict.fromkeys(contents.absent.values())))
