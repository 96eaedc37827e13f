"""A page in headless Chromium, driven over the DevTools protocol.

No driver package: the protocol is JSON over one websocket, and tornado, which Dask brings along,
speaks that. Selenium would need a driver binary of the browser's very version beside it.
"""

import asyncio
import base64
import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tornado.websocket import WebSocketClientConnection, websocket_connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-port=0",
)  # fmt: skip
LARGEST_MESSAGE = 256 * 2**20
PATIENCE_S = 120


class Page:
    """One page. `requests` are all URLs asked for, `errors` what the console complained of."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: WebSocketClientConnection) -> None:
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._loop = loop
        self._socket = socket
        self._count = 0

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol, and its result."""
        return self._loop.run_until_complete(
            asyncio.wait_for(self._send(method, params), PATIENCE_S)
        )

    async def _send(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        await self._socket.write_message(
            json.dumps({"id": self._count, "method": method, "params": params})
        )
        while True:
            text = await self._socket.read_message()
            assert text is not None, "chromium closed the connection"
            message = json.loads(text)
            if message.get("id") == self._count:
                assert "error" not in message, message
                return dict(message["result"])
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        match message["method"]:
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                self.errors.append(str(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.errors.append(str(params["args"]))
            # Its warnings are the browser's own, such as that WebGL runs without a GPU here.
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.errors.append(str(params["entry"]))

    def load(self, file: Path, width: int = 1280, height: int = 900) -> None:
        """Open a file from disk in a window of that size and wait until bokeh has drawn."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.resize(width, height)
        self.send("Page.navigate", url=file.resolve().as_uri())
        self.wait("document.readyState === 'complete'")

    def resize(self, width: int, height: int) -> None:
        """Give the window another size."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def value(self, script: str) -> Any:
        """The value of an expression in the page."""
        result = self.send("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, condition: str, seconds: float = 60) -> None:
        """Until an expression holds."""
        end = time.monotonic() + seconds
        while not self.value(condition):
            assert time.monotonic() < end, f"waited {seconds} s for {condition}"
            time.sleep(0.05)

    def move(self, x: float, y: float) -> None:
        """Move the mouse there."""
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, file: Path, *, whole: bool = True) -> None:
        """The page as PNG."""
        taken = self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(taken["data"]))


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """A browser of its own, with its profile in the new folder `profile`."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    null = subprocess.DEVNULL
    loop = asyncio.new_event_loop()
    with subprocess.Popen(command, stdout=null, stderr=null) as process:
        try:
            socket = loop.run_until_complete(_connect(profile / "DevToolsActivePort"))
            yield Page(loop, socket)
            loop.run_until_complete(_close(socket))
        finally:
            process.terminate()
            loop.close()


async def _close(socket: WebSocketClientConnection) -> None:
    socket.close()


async def _connect(port_file: Path) -> WebSocketClientConnection:
    end = time.monotonic() + PATIENCE_S
    while not (port_file.exists() and port_file.read_text().count("\n") == 1):
        assert time.monotonic() < end, "chromium did not start"
        await asyncio.sleep(0.05)
    port, path = port_file.read_text().split()
    browser = await websocket_connect(f"ws://127.0.0.1:{port}{path}")
    await browser.write_message(json.dumps({"id": 0, "method": "Target.getTargets"}))
    while "result" not in (answer := json.loads(await browser.read_message() or "{}")):
        pass
    browser.close()
    pages = [t for t in answer["result"]["targetInfos"] if t["type"] == "page"]
    address = f"ws://127.0.0.1:{port}/devtools/page/{pages[0]['targetId']}"
    return await websocket_connect(address, max_message_size=LARGEST_MESSAGE)
