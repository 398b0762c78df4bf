"""A headless Chromium by its own debugging protocol: open a page, run a script in it, take its picture."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.service.fakes import PATIENCE

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--remote-debugging-port=0", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
    *("--window-size=900,1100", "--disable-background-networking", "--remote-allow-origins=*"),
)


class Page:
    """One tab. Everything it does is awaited, and an exception in a script is one here."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0

    def do(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol, and its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(PATIENCE))
            if message.get("id") == self._number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    def run(self, script: str) -> Any:
        """The value of an expression, or of the promise that it gives."""
        done = self.do("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Until the expression holds."""
        look = f"const look = () => ({condition}) ? done(true) : setTimeout(look, 20); look();"
        assert self.run(f"new Promise((done) => {{ {look} }})")

    def open(self, address: str) -> None:
        """Load a page and wait for its own first steps."""
        self.do("Page.navigate", url=address)
        self.wait_for("document.readyState === 'complete' && document.getElementById('model')?.options.length > 0")

    def choose(self, selector: str, *files: Path) -> None:
        """As a person who picks `files` in a dialogue."""
        root = self.do("DOM.getDocument")["root"]["nodeId"]
        node = self.do("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.do("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def picture(self) -> bytes:
        """A screenshot as PNG."""
        return base64.b64decode(self.do("Page.captureScreenshot", format="png")["data"])


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """A page in a Chromium of its own; skips where there is none, unless MBUNET_REQUIRE_CHROMIUM says that is wrong."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        assert not os.environ.get("MBUNET_REQUIRE_CHROMIUM"), "no Chromium on this machine"
        pytest.skip("needs Chromium: apt-get install chromium")
    command = [found, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stderr
            address = next(line.split()[-1] for line in process.stderr if line.startswith("DevTools listening on "))
            host = address.split("/")[2]
            targets = httpx.get(f"http://{host}/json", timeout=PATIENCE).json()
            target = next(entry for entry in targets if entry["type"] == "page")
            with connect(target["webSocketDebuggerUrl"], max_size=None, open_timeout=PATIENCE) as socket:
                page = Page(socket)
                page.do("Page.enable")
                page.do("DOM.enable")
                yield page
        finally:
            process.kill()
