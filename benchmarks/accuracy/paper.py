"""Which of the paper's orderings appear on simulated OpenCell? Differences with intervals.

    python examples/paper/simulated.py FOLDER --seeds 3
    zarrloc reproduce examples/paper/*.yaml FOLDER/opencell.zarr --stand-ins FOLDER/stand_ins.yaml
    python benchmarks/accuracy/paper.py FOLDER/opencell.zarr [--tables OUT --tables OUT ...]

Every head's out-of-fold calls on all fields (those of the test part by the mean of the heads), from
the thresholds that are best on the other folds, are set against another row's on the same fields:
from 0.5, as the tables call, small heads call little and tell little apart. The interval is of
2,000 resamples of proteins, drawn alike for both. With several `--tables`, one a seed of split,
heads and fine-tuning, each has its own difference, and their mean and sd stand beside. Neighbours
of cells have the mean over the paper's k, and no interval.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zarrloc.groups.embeddings import proteins_of, read_labels
from zarrloc.groups.heads import read_head
from zarrloc.scoring.metrics import (
    best_thresholds,
    bootstrap_f1,
    counts,
    f1_of,
    interval,
    macro,
    truth_of,
)
from zarrloc.store.columns import read_column
from zarrloc.store.location import Location
from zarrloc.store.read import need

RESAMPLES = 2000
NATURAL, HPA, RGB = "HPA FOV, ViT-base/8, natural", "HPA FOV", "ImageNet-1k, ViT-base/8"
MAPS = [f"[1, 2] -> {to}" for to in ("[1, 3]", "[0, 2]", "[2, 1]", "[0, 1]", "[3, 0]", "[1, 0]")]
FOV = "HPA FOV, ViT-base/8"
ORDERINGS: list[tuple[str, tuple[str, list[str]], tuple[str, list[str]]]] = [
    (
        "natural map above six others, not fine-tuned",
        ("tableD4", ["[1, 2] -> [1, 2], natural"]),
        ("tableD4", MAPS),
    ),
    (
        "natural map above two others, fine-tuned",
        ("table3", ["HPA FOV, natural, [1, 2] -> [1, 2]"]),
        ("table3", ["HPA FOV, [1, 2] -> [0, 3]", "HPA FOV, [1, 2] -> [2, 1]"]),
    ),
    (
        "near domain above far, not fine-tuned",
        ("table1", [NATURAL]),
        ("table1", [f"{RGB}, channel-wise"]),
    ),
    (
        "near domain above far, fine-tuned",
        ("table2", [NATURAL]),
        ("table2", [f"{RGB}, channel-wise"]),
    ),
    (
        "near domain above from scratch",
        ("table1", [NATURAL]),
        ("table1", ["OpenCell, ViT-base/8, from scratch"]),
    ),
    ("fine-tuned above not, near domain", ("table2", [NATURAL]), ("table1", [NATURAL])),
    (
        "fine-tuned above not, far domain",
        ("table2", [f"{RGB}, channel-wise"]),
        ("table1", [f"{RGB}, channel-wise"]),
    ),
    (
        "own inputs above replication, near domain",
        ("table1", [NATURAL]),
        ("table1", [f"{FOV}, replication"]),
    ),
    (
        "own inputs above replication, near domain, fine-tuned",
        ("table2", [NATURAL]),
        ("table2", [f"{FOV}, replication"]),
    ),
    (
        "all fine-tuning data above a fifth",
        ("figure3", ["fraction 1"]),
        ("figure3", ["fraction 0.2"]),
    ),
    (
        "green and blue inputs above five others",
        ("tableD3", ["[1, 2] -> [G, B]"]),
        ("tableD3", [f"[1, 2] -> [{to}]" for to in ("G, R", "R, G", "R, B", "B, G", "B, R")]),
    ),
    (
        "cells: single-cell backbone above the fields'",
        ("table4", ["HPA single-cell, ViT-base/16"]),
        ("table4", [FOV]),
    ),
    ("cells: near domain above far", ("table4", [FOV]), ("table4", [f"{RGB[:-2]}/8"])),
    ("cells: fine-tuned above not", ("table4", [f"{FOV}, fine-tuned"]), ("table4", [FOV])),
]

Samples = npt.NDArray[np.float64]


class Seed:
    """The tables of one seed: any row's macro-F1, and its resamples."""

    def __init__(self, location: Location, folder: Path) -> None:
        self.location = location
        self.fovs = need(location, "fovs", "ingest SOURCE STORE")
        self.grade = read_labels(self.fovs).grade
        self.protein = proteins_of(self.fovs)
        self.rows = {
            (file.stem, row["name"]): row
            for file in folder.glob("*.json")
            for row in json.loads(file.read_text())["rows"]
        }

    def score(self, table: str, names: Sequence[str]) -> tuple[float, Samples | None, float]:
        """Mean over rows: pooled macro-F1, its resamples (None for cells), and the paper's."""
        found = [self.rows[table, name] for name in names]
        if any(row["missing"] for row in found):
            raise KeyError(table)
        paper = [row["paper"] for row in found]
        published = float(np.mean([np.mean([v[0] for v in one.values()]) for one in paper]))
        if not found[0]["head"]:
            each = [np.mean([f["mean"] for f in row["measured"].values()]) for row in found]
            return float(np.mean(each)), None, published
        pooled, samples = [], []
        for row in found:
            head = read_head(self.location, row["head"])
            group = need(self.location, head.path, "train")
            probability = read_column(group, "probability")
            truth = truth_of(self.grade, head.stage.config["weak"])
            rows = truth.labelled & np.isfinite(probability).all(1)
            truth, probability, fold = truth[rows], probability[rows], head.row_fold[rows]
            called = np.zeros(probability.shape, bool)
            for number in np.unique(fold):
                own, others = fold == number, (fold >= 0) & (fold != number)
                limits = best_thresholds(truth[others], probability[others])
                called[own] = probability[own] >= limits
            tallies = counts(truth, called)
            pooled.append(float(macro(f1_of(tallies.sum(axis=0)))))
            samples.append(macro(bootstrap_f1(tallies, self.protein[rows], RESAMPLES, 0)))
        return float(np.mean(pooled)), np.mean(samples, axis=0), published


def compare(seeds: Sequence[Seed]) -> list[dict[str, Any]]:
    """A row an ordering: both sides, the difference by seed with its interval, the verdict."""
    told = []
    for title, above, below in ORDERINGS:
        row: dict[str, Any] = {"ordering": title, "seeds": []}
        for seed in seeds:
            try:
                one, other = seed.score(*above), seed.score(*below)
            except (KeyError, ValueError):  # a row that was not run, or could not
                continue
            row["paper"] = one[2] - other[2]
            difference = {"above": one[0], "below": other[0], "difference": one[0] - other[0]}
            if one[1] is not None and other[1] is not None:
                difference["interval"] = interval(one[1] - other[1])
            row["seeds"].append(difference)
        each = [found["difference"] for found in row["seeds"]]
        if each:
            row["mean"] = float(np.mean(each))
            row["sd"] = float(np.std(each, ddof=1)) if len(each) > 1 else None
            row["appears"] = verdict(row["seeds"])
        told.append(row)
    return told


def verdict(found: Sequence[dict[str, Any]]) -> str:
    """`yes` or `no` where every seed's interval says so."""
    if not all("interval" in row for row in found):
        return "no interval"
    lows, highs = zip(*(row["interval"] for row in found), strict=True)
    return "yes" if min(lows) > 0 else "no: reversed" if max(highs) < 0 else "undecided"


def lines(told: Sequence[dict[str, Any]]) -> list[str]:
    """The table in Markdown."""
    text = [
        "| ordering | paper | here | difference (95 %), by seed | appears |",
        "|---|---|---|---|---|",
    ]
    for row in told:
        if not row["seeds"]:
            text.append(f"| {row['ordering']} | | | not run | |")
            continue
        each = []
        for found in row["seeds"]:
            words = f"{found['difference']:+.3f}"
            if "interval" in found:
                low, high = found["interval"]
                words += f" ({low:+.3f} to {high:+.3f})"
            each.append(words)
        first = row["seeds"][0]
        text.append(
            f"| {row['ordering']} | {row['paper']:+.3f} | {first['above']:.3f}, "
            f"{first['below']:.3f} | {'; '.join(each)} | {row['appears']} |"
        )
    return text


def main() -> None:
    """Compare, print, save."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--tables", type=Path, action="append", help="`--out` of each seed's run")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/paper.json"))
    given = parser.parse_args()
    folders = given.tables or [Path(f"{given.store}.reproduce")]
    location = Location.of(given.store)
    told = compare([Seed(location, folder / "tables") for folder in folders])
    tables = {
        file.stem: json.loads(file.read_text())
        for file in sorted((folders[0] / "tables").glob("*.json"))
    }
    print("\n".join(lines(told)))
    given.out.write_text(json.dumps({"orderings": told, "tables": tables}, indent=1) + "\n")


if __name__ == "__main__":
    main()
