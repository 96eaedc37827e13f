"""Examples with their pictures (paper, Figure 6)."""

from typing import NamedTuple

import numpy as np

from zarrloc.report.embedding_map import joined
from zarrloc.report.gather import Contents
from zarrloc.report.pictures import field_pictures, jpeg_url, pictures
from zarrloc.report.tallies import examples
from zarrloc.store.location import Location

PICTURE_PX = 256
SHOWN_ODD = 24
"""Fields that stand out and are shown; the command `outliers` names all."""
VERDICTS = {
    "true positives": "found",
    "false positives": "called",
    "false negatives": "missed",
}


class Card(NamedTuple):
    """One example, as text and a picture."""

    url: str
    protein: str
    name: str
    verdict: str
    wrong: bool
    label: str
    probability: str
    predicted: str
    reference: str


def make_cards(location: Location, contents: Contents) -> dict[str, list[Card]]:
    """Cards of each kind; empty where there is no head that was judged."""
    samples, truth, calls = contents.samples, contents.truth, contents.calls
    if contents.scores is None or samples is None or truth is None or calls is None:
        return {}
    rows = np.flatnonzero(contents.judged)
    found = examples(
        truth[rows], calls.probability[rows], calls.called[rows], samples.protein[rows]
    )
    shown = np.unique([rows[each.row] for kind in found.values() for each in kind])
    shown = shown.astype(np.int64)
    seen = pictures(location, samples, shown, PICTURE_PX)
    urls = {int(row): jpeg_url(one, quality=86) for row, one in zip(shown, seen, strict=True)}
    predicted = joined(calls.called, calls.labels)
    reference = joined(truth.positive, samples.labels)
    return {
        kind: [
            Card(
                urls[row],
                str(samples.protein[row]),
                str(samples.fov[row]) + (f", cell {row}" if samples.level == "cell" else ""),
                VERDICTS[kind],
                kind != "true positives",
                calls.labels[label],
                f"p = {calls.probability[row, label]:.2f}",
                str(predicted[row]),
                str(reference[row]),
            )
            for row, label in ((int(rows[each.row]), each.label) for each in chosen)
        ]
        for kind, chosen in found.items()
    }


class OddCard(NamedTuple):
    """A field that stands out."""

    url: str
    protein: str
    name: str
    why: str


def make_odd_cards(location: Location, contents: Contents) -> list[OddCard]:
    """Cards of fields that stand out, as many as are shown, those with most reasons first."""
    odd = contents.odd
    if odd is None:
        return []
    shown = sorted(odd.why, key=lambda row: (-len(odd.why[row]), row))[:SHOWN_ODD]
    seen = field_pictures(location, np.array(shown, np.int64), PICTURE_PX)
    return [
        OddCard(
            jpeg_url(picture, quality=80),
            str(odd.protein[row]),
            str(odd.names[row]),
            "; ".join(odd.why[row]),
        )
        for row, picture in zip(shown, seen, strict=True)
    ]
