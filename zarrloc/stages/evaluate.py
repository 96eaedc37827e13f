"""Evaluate: a head, or nearest neighbours, beside what chance, brightness and leakage score."""

from pathlib import Path
from typing import Any

from zarrloc.config.evaluate import EvaluateConfig
from zarrloc.errors import ConfigError
from zarrloc.scoring.evaluation import finite
from zarrloc.scoring.judge_head import judge_head
from zarrloc.scoring.judge_neighbours import judge_neighbours
from zarrloc.scoring.judge_probe import judge_probe
from zarrloc.store.location import Location


def evaluate(store: str | Path | Location, config: EvaluateConfig) -> dict[str, Any]:
    """Score a head, or the nearest neighbours and a linear probe of an embedding.

    Parameters
    ----------
    store
        Path or address of the store.
    config
        Either `head`, or `embedding` with `knn`, `probe` or both.

    Returns
    -------
    dict
        What `--json` prints; a figure that does not exist is None. For a head: `test`,
        `validation` (each figure has `mean`, `sd` and `each` fold's), `pooled`, `per_label`,
        `baselines` and, with `config.probe`, `probe`. For an embedding: `knn` and `baselines`, by
        the number of neighbours, and `probe`.

    Raises
    ------
    ConfigError
        Where neither is asked for, there is too little to score, or the fields have no such
        target or coordinate.
    StoreError
        Where the store, the head or the embedding is absent.

    Examples
    --------
    >>> config = EvaluateConfig(embedding="dino", knn=(1, 5), exclude_same="plate")
    >>> evaluate("my.zarr", config)["knn"]["5"]["macro_f1"]  # doctest: +SKIP
    0.42
    """
    location = Location.of(store)
    asked = config.knn or config.probe
    if config.head and not (config.knn or config.embedding):
        result = judge_head(location, config.head, config)
    elif config.embedding and asked and not config.head:
        probe = judge_probe(location, config.embedding, config) if config.probe else {}
        found = judge_neighbours(location, config.embedding, config) if config.knn else {}
        result = {**probe, **found}
    else:
        raise ConfigError(
            "give either --head NAME, or --embedding NAME with --knn 1,3,5,10,20, --probe, or both"
        )
    return dict(finite(result))
