import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.engine.toys import GROUP, run_toy
from zarrloc.engine import telemetry
from zarrloc.engine.telemetry import Progress, Summary


def _summary(**seconds: float) -> Summary:
    return Summary("e", 10, 5, 5, 10, wall_s=10, workers=2, seconds=Counter(seconds))


@pytest.mark.parametrize(
    ("seconds", "phase"),
    [
        ({"device": 17.0, "decode": 19.0}, "device"),  # busy 85 % of two workers' time
        ({"device": 3.0, "decode": 8.0, "wait": 9.0}, "decode"),
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


def test_plain_lines_come_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "zarrloc")
    monkeypatch.setattr(telemetry.LOG, "handlers", [])  # the command line's own
    now = [0.0]
    monkeypatch.setattr(telemetry.time, "monotonic", lambda: now[0])
    with Progress("embeddings/e", 10, 40, "FOV") as progress:
        for _ in range(10):
            now[0] += 4.0
            progress.advance(4, 1)
    lines = caplog.messages
    assert capsys.readouterr() == ("", ""), "the library prints nothing"
    assert lines[0] == "embeddings/e: 3/10 blocks, 1.0 FOV/s, 28 s left, 3 errors"
    assert len(lines) == 3


def test_a_terminal_gets_one_live_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("embeddings/e", 2, 8, "FOV") as progress:
        assert progress.live is not None
        progress.advance(4, 1)
        progress.advance(4, 0)
        assert progress.live.finished
    assert "embeddings/e blocks" in capsys.readouterr().err
    with Progress("embeddings/e", 2, 8, "FOV", quiet=True) as quiet:
        assert quiet.live is None


def test_the_log_lies_beside_the_store(tmp_path: Path) -> None:
    run_toy(tmp_path / "s", do={3: "raise", -1: ""})
    (log,) = (tmp_path / "s.runs").glob("*.jsonl")
    assert log.name.startswith(f"{GROUP.replace('/', '.')}-")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [event["event"] for event in events] == ["start", *["block"] * 5, "end"]
    assert events[1]["seconds"].keys() >= {"open", "decode", "device", "write", "total"}
