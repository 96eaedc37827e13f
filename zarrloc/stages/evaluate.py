"""Evaluate: a head, or nearest neighbours, beside what chance, brightness and leakage score."""

from pathlib import Path
from typing import Any

from zarrloc.config.evaluate import EvaluateConfig
from zarrloc.errors import ConfigError
from zarrloc.scoring.evaluation import finite
from zarrloc.scoring.judge_head import judge_head
from zarrloc.scoring.judge_neighbours import judge_neighbours
from zarrloc.store.location import Location


def evaluate(store: str | Path | Location, config: EvaluateConfig) -> dict[str, Any]:
    """Score a head (`config.head`) or nearest neighbours (`config.embedding`, `config.knn`).

    Returns what `--json` prints. For a head: `test`, `validation` (each figure has `mean`, `sd`
    and `each` fold's), `pooled`, `per_label`, `baselines` and, if asked for, `probe`. For
    neighbours: `knn` and `baselines`, by the number of neighbours. A figure that doesn't exist is
    None. Raises `ConfigError` or `StoreError`.
    """
    location = Location.of(store)
    if config.head and not (config.knn or config.embedding):
        result = judge_head(location, config.head, config)
    elif config.embedding and config.knn and not config.head:
        result = judge_neighbours(location, config.embedding, config)
    else:
        raise ConfigError("give either --head NAME, or --embedding NAME with --knn 1,3,5,10,20")
    return dict(finite(result))
