"""One self-contained HTML page about a store: map, scores, examples, failures, provenance."""

from zarrloc.report.write import write_report

__all__ = ["write_report"]
