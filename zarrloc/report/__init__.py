"""One self-contained HTML page about a store: map, scores, examples, failures, provenance."""
