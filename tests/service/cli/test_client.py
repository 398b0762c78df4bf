"""The client that asks again, against a server that fails as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from service.cli import client

MASK = b"the mask"
PROBLEM = json.dumps({"title": "Failed", "detail": "on this image"}).encode()


@contextmanager
def answering(*script: tuple[int, dict[str, str], bytes]) -> Iterator[str]:
    """A server that gives these answers one after the other; status 0 closes the connection without one."""
    left = list(script)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status, headers, body = left.pop(0)
            if not status:
                return
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
            assert not left
        finally:
            server.shutdown()


def test_it_asks_until_there_is_a_mask() -> None:
    waits: list[float] = []
    failures: list[str] = []
    script = [
        (429, {"Retry-After": "7"}, PROBLEM),
        (500, {}, b"Internal Server Error"),  # a proxy's: its server has died
        (0, {}, b""),
        (200, {"Content-Length": "100"}, MASK),  # cut off
        (503, {}, b""),
        (200, {}, MASK),
    ]
    with answering(*script) as url:
        told = client.segment(url, b"image", 60, failed=lambda e: failures.append(str(e)), sleep=waits.append)
    assert told == MASK
    assert waits == [7.0, 0.2, 0.4, 0.8, 1.6]
    assert failures[0] == "Failed: on this image"
    assert [text.partition(" from ")[0] for text in failures[2:4]] == ["no answer"] * 2
    assert failures[4] == "503 Service Unavailable"


@pytest.mark.parametrize("status", [400, 413, 500])
def test_it_does_not_repeat_what_cannot_succeed(status: int) -> None:
    with answering((status, {}, PROBLEM)) as url, pytest.raises(client.Refused, match="Failed: on this image"):
        client.segment(url, b"image", 60)


def test_it_gives_up_at_the_retry_deadline() -> None:
    with answering((503, {"Retry-After": "60"}, b"")) as url, pytest.raises(client.Refused, match="503"):
        client.segment(url, b"image", 5)
    with pytest.raises(OSError, match="no answer from http://127"):
        client.segment(url, b"image", 0)
