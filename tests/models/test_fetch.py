"""Published files against a real HTTP server that cuts off, forgets and lies."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from zarrloc.errors import WeightsError
from zarrloc.models import fetch
from zarrloc.models.fetch import Remote, obtain, wrong_with

CONTENT = bytes(range(256)) * 4000
SHA = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Server:
    """Serves CONTENT at any path but `/absent`; `cut` answers end after so many bytes."""

    def __init__(self) -> None:
        self.address = ""
        self.asked: list[str] = []
        self.cut: list[int] = []
        self.ranges = True


@pytest.fixture
def server() -> Iterator[Server]:
    own = Server()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            span = self.headers.get("Range", "")
            own.asked.append(span)
            if self.path == "/absent":
                self.send_error(404)
                return
            start = int(span[6:-1]) if span and own.ranges else 0
            if start >= len(CONTENT):
                self.send_error(416)
                return
            body = CONTENT[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: own.cut.pop(0)] if own.cut else body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        own.address = f"http://127.0.0.1:{listening.server_address[1]}"
        threading.Thread(target=listening.serve_forever, args=(0.05,), daemon=True).start()
        yield own
        listening.shutdown()


def _remote(server: Server, checksum: str = "", name: str = "net.pth") -> Remote:
    return Remote(name, f"{server.address}/{name}", checksum)


def test_a_file_is_fetched_once_recorded_and_checked_ever_after(
    server: Server, tmp_path: Path
) -> None:
    path = obtain(_remote(server), tmp_path)
    assert path == tmp_path / "net.pth"
    assert path.read_bytes() == CONTENT
    assert obtain(_remote(server), tmp_path) == path
    assert len(server.asked) == 1
    assert SHA in (tmp_path / "net.pth.json").read_text()
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match=r"net\.pth has the checksum .*remove it, and it is"):
        obtain(_remote(server), tmp_path)


def test_what_broke_off_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.cut = [5 * fetch.CHUNK, 3 * fetch.CHUNK]
    assert obtain(_remote(server, SHA), tmp_path).read_bytes() == CONTENT
    assert server.asked == ["", f"bytes={5 * fetch.CHUNK}-", f"bytes={8 * fetch.CHUNK}-"]
    assert sorted(one.name for one in tmp_path.iterdir() if "lock" not in one.name) == [
        "net.pth",
        "net.pth.json",
    ]


def test_a_later_run_goes_on_and_a_server_without_ranges_starts_over(
    server: Server, tmp_path: Path
) -> None:
    server.cut = [fetch.CHUNK] * 3
    with pytest.raises(WeightsError, match=r"cannot get net\.pth from .*Copy it to .*net\.pth"):
        obtain(_remote(server), tmp_path)
    assert not (tmp_path / "net.pth").exists()
    assert (tmp_path / "net.pth.partial").stat().st_size == 3 * fetch.CHUNK
    server.ranges = False
    assert obtain(_remote(server), tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == f"bytes={3 * fetch.CHUNK}-"


def test_left_overs_longer_than_the_file_are_dropped(server: Server, tmp_path: Path) -> None:
    (tmp_path / "net.pth.partial").write_bytes(CONTENT + b"more")
    assert obtain(_remote(server, SHA), tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_keeps_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is not what was published"):
        obtain(_remote(server, f"sha256:{'0' * 64}"), tmp_path)
    left = {one.name for one in tmp_path.iterdir()}
    assert left <= {"net.pth.lock"}


def test_what_is_not_there_says_what_to_copy_where(server: Server, tmp_path: Path) -> None:
    absent = Remote("absent", f"{server.address}/absent")
    with pytest.raises(WeightsError, match=r"answer 404.*Copy it to .*/absent .*--from DIR"):
        obtain(absent, tmp_path)
    down = Remote("net.pth", "http://127.0.0.1:1/net.pth")
    with pytest.raises(WeightsError, match=r"ConnectionError.*ZARRLOC_WEIGHTS"):
        obtain(down, tmp_path)


def test_of_ten_at_once_one_downloads_and_none_reads_half(server: Server, tmp_path: Path) -> None:
    start = threading.Barrier(10)

    def work(_: int) -> bytes:
        start.wait()
        return obtain(_remote(server), tmp_path).read_bytes()

    with ThreadPoolExecutor(10) as pool:
        assert set(pool.map(work, range(10))) == {CONTENT}
    assert len(server.asked) == 1


def test_files_are_copied_from_a_folder(server: Server, tmp_path: Path) -> None:
    usb = tmp_path / "usb"
    usb.mkdir()
    (usb / "net.pth").write_bytes(CONTENT)
    here = tmp_path / "here"
    assert obtain(_remote(server, SHA), here, usb).read_bytes() == CONTENT
    assert server.asked == []
    (usb / "net.pth").write_bytes(b"half")
    with pytest.raises(WeightsError, match="has the checksum"):
        obtain(_remote(server, SHA), here, usb)
    assert (here / "net.pth").read_bytes() == CONTENT
    with pytest.raises(WeightsError, match="there is no"):
        obtain(_remote(server, name="other"), here, usb)


def test_a_file_put_there_by_hand_must_stay_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(b"mine")
    remote = Remote("net.pth", "http://127.0.0.1:1/net.pth")
    assert obtain(remote, tmp_path).read_bytes() == b"mine"
    (tmp_path / "net.pth").write_bytes(b"other")
    assert "has the checksum" in wrong_with(remote, tmp_path / "net.pth")


def test_the_folder_is_named_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ZARRLOC_CACHE", str(tmp_path / "old"))
    monkeypatch.delenv("ZARRLOC_WEIGHTS", raising=False)
    assert fetch.folder() == tmp_path / "old"
    monkeypatch.setenv("ZARRLOC_WEIGHTS", str(tmp_path / "all"))
    assert fetch.folder() == tmp_path / "all"
