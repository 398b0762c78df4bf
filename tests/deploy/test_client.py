"""The client that loses nothing, against a server that fails as it is told."""

from __future__ import annotations

import subprocess
import sys
import threading
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy.ray import client

MASK = b"the mask"


@contextmanager
def answering(*script: tuple[int, dict[str, str]]) -> Iterator[str]:
    """A server that gives these answers one after the other; status 0 closes the connection without one."""
    left = list(script)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status, headers = left.pop(0)
            if not status:
                return
            self.send_response(status)
            for name, value in {"Content-Length": str(len(MASK)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(MASK)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_it_tries_until_there_is_a_mask() -> None:
    waits: list[float] = []
    failures: list[Exception] = []
    script = [(429, {"Retry-After": "7"}), (500, {}), (0, {}), (503, {}), (200, {})]
    with answering(*script) as url:
        assert client.segment(url, b"image", failed=failures.append, sleep=waits.append) == MASK
    assert waits == [7.0, 0.2, 0.4, 0.8]
    assert len(failures) == 4


def test_it_does_not_repeat_what_cannot_succeed() -> None:
    with answering((413, {})) as url, pytest.raises(urllib.error.HTTPError, match="413"):
        client.segment(url, b"image", sleep=lambda seconds: None)


def test_it_gives_up_when_its_patience_ends() -> None:
    with answering((503, {"Retry-After": "60"})) as url, pytest.raises(client.GaveUpError) as caught:
        client.segment(url, b"image", patience_s=5)
    assert isinstance(caught.value.__cause__, urllib.error.HTTPError)


def test_a_folder_goes_on_where_it_stopped(tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (images / name).write_bytes(b"image")
    (masks / "b.png").write_bytes(b"done before")
    with answering((200, {}), (503, {}), (200, {})) as url:
        done = subprocess.run(
            [sys.executable, client.__file__, url, images, "-o", masks], capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in masks.iterdir()} == {
        "a.png": MASK,
        "b.png": b"done before",
        "c.png": MASK,
    }
