"""The client that asks again, against a server that fails as it is told."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from engine.images import Selection
from service.cli import client

MASK = b"the mask"
PROBLEM = json.dumps({"title": "Failed", "detail": "on this image"}).encode()


@contextmanager
def answering(
    *script: tuple[int, dict[str, str], bytes], version: str = "HTTP/1.0", certificate: Path | None = None
) -> Iterator[str]:
    """A server that gives these answers one after the other; status 0 closes the connection without one.

    With a file of a certificate and its key it speaks TLS.
    """
    left = list(script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = version

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
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
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
        (200, {"X-Image-Taken": "page=0/3"}, MASK),
    ]
    with answering(*script) as url:
        told = client.segment(url, b"image", 60, failed=lambda e: failures.append(str(e)), sleep=waits.append)
    assert told == client.Segmented(MASK, "page=0/3")
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


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make a certificate")
def test_a_certificate_that_is_not_trusted_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And taken where SSL_CERT_FILE names it."""
    file = tmp_path / "both.pem"
    made = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {file} -out {tmp_path}/cert.pem -days 2 -subj /CN=here"
    subprocess.run([*made.split(), "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    file.write_bytes(file.read_bytes() + (tmp_path / "cert.pem").read_bytes())
    with answering((200, {}, MASK), certificate=file) as url:
        with pytest.raises(OSError, match=r"no answer from https.* self.signed certificate; .* SSL_CERT_FILE"):
            client.segment(url, b"image", 60, sleep=lambda seconds: pytest.fail("it is tried again"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        assert client.segment(url, b"image", 60).body == MASK


@contextmanager
def refusing(seen: list[bytes]) -> Iterator[str]:
    """A server that answers 413 to the head of one request, and hangs up; what it has read is in `seen`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                read = b""
                while b"\r\n\r\n" not in read:
                    read += connection.recv(2**16)
                head = f"HTTP/1.1 413 Too large\r\nContent-Length: {len(PROBLEM)}\r\nConnection: close\r\n\r\n"
                connection.sendall(head.encode() + PROBLEM)
            seen.append(read)

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def test_a_large_body_is_refused_by_its_head() -> None:
    seen: list[bytes] = []
    with refusing(seen) as url, pytest.raises(client.Refused, match="Failed: on this image"):
        client.segment(url, bytes(2**25), 60)
    assert b"Content-Length: 33554432" in seen[0].replace(b"Content-length", b"Content-Length")
    assert seen[0].endswith(b"\r\n\r\n")


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
def test_a_large_body_is_sent_to_who_wants_it_and_to_who_does_not_know_the_question(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "WANTED_WITHIN_S", 0.05 if version == "HTTP/1.0" else 60)
    with answering((200, {}, MASK), version=version) as url:
        assert client.segment(url, bytes(2**21), 60).body == MASK


def test_the_query_says_what_differs_from_the_default() -> None:
    assert client.query_of(None, Selection()) == {}
    assert client.query_of(None, Selection(), model="road") == {"model": "road"}
    assert client.query_of(0.4, Selection(channel=0, page="max")) == {"threshold": 0.4, "channel": 0, "page": "max"}
