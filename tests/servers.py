"""A small HTTP server whose answers are chosen, as an object store that is in trouble."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from obstore.store import from_url

from zarrloc.images import files

SILENT = 0
"""The connection is closed without an answer."""


@dataclass
class Answers:
    """The statuses of the first answers; later ones are 200 with `body`."""

    troubles: list[int]
    body: bytes = b""
    asked: list[str] = field(default_factory=list)


@contextmanager
def serving(answers: Answers, *, quick: bool) -> Iterator[str]:
    """The address of a server; `quick` has the object-store client not try again by itself."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers.asked.append(self.path)
            status = answers.troubles.pop() if answers.troubles else 200
            if status == SILENT:
                self.close_connection = True
                return
            body = answers.body if status == 200 else b"<?xml version='1.0'?><Error/>"
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def client(uri: str, **_: Any) -> Any:
        retries: Any = {"max_retries": 0, "retry_timeout": timedelta(seconds=5)}
        return from_url(uri, retry_config=retries, client_options={"allow_http": True})

    with pytest.MonkeyPatch.context() as patch:
        if quick:
            patch.setattr(files, "object_store", client)
        yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
