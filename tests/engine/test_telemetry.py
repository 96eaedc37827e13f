import json
from collections import Counter
from pathlib import Path

import pytest

from tests.engine.toys import GROUP, run_toy
from zarrloc.engine.telemetry import Summary


def _summary(**seconds: float) -> Summary:
    return Summary("e", 10, 5, 5, 10, wall_s=10, workers=2, seconds=Counter(seconds))


@pytest.mark.parametrize(
    ("seconds", "phase"),
    [
        ({"device": 17.0, "read": 19.0}, "device"),  # busy 85 % of two workers' time
        ({"device": 3.0, "read": 8.0, "wait": 9.0}, "read"),
        ({"device": 3.0, "write": 4.0, "open": 30.0}, "write"),
    ],
)
def test_the_bottleneck_is_the_device_where_it_is_kept_busy(
    seconds: dict[str, float], phase: str
) -> None:
    summary = _summary(**seconds)
    assert summary.bottleneck == phase
    assert f"bottleneck: {phase}" in summary.lines()[1]


def test_a_summary_says_what_failed_and_how_to_see_it() -> None:
    summary = _summary(device=1)
    summary.rows_failed = 2
    summary.bytes_read = 5_000_000
    summary.seconds["read"] = 0.5
    text = "\n".join(summary.lines())
    assert "10 rows in 5 of 5 blocks, 10.0 s, 1.0 rows/s" in text
    assert "2 of 10 rows have an error; `zarrloc info STORE --errors`" in text
    assert "read at 10 MB/s" in text


def test_the_log_lies_beside_the_store(tmp_path: Path) -> None:
    run_toy(tmp_path / "s", do={3: "raise", -1: ""})
    (log,) = (tmp_path / "s.runs").glob("*.jsonl")
    assert log.name.startswith(f"{GROUP.replace('/', '.')}-")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [event["event"] for event in events] == ["start", *["block"] * 5, "end"]
    assert events[1]["seconds"].keys() >= {"open", "read", "prepare", "device", "write", "total"}
