"""A real S3 server, and a proxy before it that counts requests and spoils answers on demand."""

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from zarrloc.store import remote

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
}
START_S = 60.0


def free_port() -> int:
    """A port nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def server(log: Path) -> Iterator[str]:
    """A moto S3 server on a free port, in a process of its own; its address."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (
        open(log, "w") as out,
        subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as process,
    ):
        try:
            end = time.monotonic() + START_S
            while True:
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, "the S3 server does not start"
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@dataclass(frozen=True)
class Request:
    """One request as the proxy saw it."""

    method: str
    path: str
    """With its query, without the host."""
    status: int

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""
        return self.method in ("PUT", "POST", "DELETE")

    @property
    def lists(self) -> bool:
        """Whether it lists keys."""
        return "list-type=2" in self.path


Answer = int | str
"""A status to answer with, `slow`, `cut` (half the body, then nothing), or `drop` (no answer)."""


@dataclass
class Proxy:
    """Passes requests on to the server, unless `spoil` says otherwise."""

    server: str
    address: str = ""
    seen: list[Request] = field(default_factory=list)
    spoil: Callable[[str, str], Answer | None] = lambda method, path: None
    slow_s: float = 0.0

    def count(self) -> list[Request]:
        """What was asked since the last count."""
        seen, self.seen = self.seen, []
        return seen


@contextmanager
def proxy(server: str) -> Iterator[Proxy]:
    """A proxy on a free port."""
    own = Proxy(server)
    host = urlsplit(server).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = own.spoil(self.command, self.path)
            if answer == "drop":
                own.seen.append(Request(self.command, self.path, 0))
                self.close_connection = True
                return
            if isinstance(answer, int):
                own.seen.append(Request(self.command, self.path, answer))
                text = f"<Error><Code>{CODES[answer]}</Code></Error>".encode()
                self._send(answer, {"Content-Type": "application/xml"}, text)
                return
            if answer == "slow":
                time.sleep(own.slow_s)
            onward = http.client.HTTPConnection(host)
            headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
            onward.request(self.command, self.path, body, headers)
            got = onward.getresponse()
            found = got.read()
            own.seen.append(Request(self.command, self.path, got.status))
            kept = {
                k: v
                for k, v in got.getheaders()
                if k.lower() not in ("connection", "transfer-encoding", "content-length")
            }
            length = got.getheader("Content-Length") if self.command == "HEAD" else None
            self._send(got.status, kept, found, length, cut=answer == "cut")
            onward.close()

        def _send(
            self,
            status: int,
            headers: dict[str, str],
            body: bytes,
            length: str | None = None,
            cut: bool = False,
        ) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", length or str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            if cut:
                body = body[: len(body) // 2]
                self.close_connection = True
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass  # a client that was cut off hangs up

    with Quiet(("127.0.0.1", 0), Handler) as listening:
        own.address = f"http://127.0.0.1:{listening.server_address[1]}"
        thread = threading.Thread(target=listening.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield own
        listening.shutdown()


CODES = {403: "AccessDenied", 500: "InternalError", 503: "SlowDown"}


@contextmanager
def environment(endpoint: str, **more: str) -> Iterator[None]:
    """The environment in which zarrloc finds the server, for this process and its children."""
    wanted = {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint, **more}
    before = {name: os.environ.get(name) for name in wanted}
    forget()
    os.environ.update(wanted)
    try:
        yield
    finally:
        forget()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def forget() -> None:
    """Drop the clients made so far: they keep the endpoint they were made with."""
    remote.object_store.cache_clear()
    remote._check_endpoint.cache_clear()


def make_bucket(server: str, name: str) -> None:
    """A new bucket."""
    connection = http.client.HTTPConnection(urlsplit(server).netloc)
    connection.request("PUT", f"/{name}")
    assert connection.getresponse().status == 200
    connection.close()
