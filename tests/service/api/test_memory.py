"""What requests hold: refused before it is allocated, and free when their answers are taken."""

from __future__ import annotations

import gc
import json
import socket
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image
from websockets.frames import Frame, Opcode

from engine.images import Decoded
from service import problems
from service.api.memory import AT_ONCE
from service.app import create_app
from service.codec import decode, polygons
from service.codec.pixels import Pixels
from service.settings import Settings
from tests.pictures import file_of, photo
from tests.service.api.test_stream import head, streaming
from tests.service.api.test_websocket_limits import HANDSHAKE
from tests.service.fakes import PATIENCE, FakeEngine, serving
from tests.service.test_app import PNG, assert_lives_on, assert_problem, connection
from tests.service.test_faults import Forgetful

MEMORY = 2**22
LARGE = file_of(Image.new("RGB", (700, 700)))  # 6 MB to decode


@pytest.fixture(scope="module")
def app() -> FastAPI:
    return create_app(FakeEngine(), Settings(memory_bytes=MEMORY, max_body_bytes=2**21))


@pytest.fixture(scope="module")
def narrow(app: FastAPI) -> Iterator[httpx.Client]:
    """A client of a server with little memory."""
    with serving(app) as client:
        yield client


def held(app: FastAPI) -> int:
    size: int = app.state.service.budget.held
    return size


def test_an_image_that_takes_more_than_there_is_is_refused_and_holds_nothing(
    app: FastAPI, narrow: httpx.Client
) -> None:
    document = assert_problem(narrow.post("/segment", content=LARGE, headers=PNG), problems.TooCostly)
    assert document["limit"] == 0.75 * MEMORY
    assert_lives_on(narrow)
    assert held(app) == 0


def test_unfinished_bodies_are_counted_as_they_come_and_leave_room_for_small_ones(
    app: FastAPI, narrow: httpx.Client
) -> None:
    head = "POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 1000000\r\n\r\n"
    with ExitStack() as stack:
        sockets = [stack.enter_context(connection(narrow)) for _ in range(5)]
        for raw in sockets:
            raw.sendall(head.encode() + bytes(500_000))  # and counts twice
        refused = 0
        while refused < 2:
            refused = sum(is_refused(raw) for raw in sockets)
        assert held(app) <= 0.75 * MEMORY
        assert_lives_on(narrow)
    while held(app):
        pass


def test_who_takes_and_finishes_nothing_is_forgotten_after_his_time() -> None:
    """12 who read no answer, 4 websockets that read none, 12 bodies that lack their end."""
    settings = Settings(memory_bytes=2**25, stall_ms=100, upload_ms=300)
    app = create_app(FakeEngine(batches=Forgetful()), settings)
    image = file_of(Image.new("RGB", (1200, 1200)))
    head = "POST /segment?format=probability HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    whole = f"{head}Content-Length: {len(image)}\r\n\r\n".encode() + image
    unfinished = f"{head}Content-Length: {2**20}\r\n\r\n".encode() + bytes(2**20 - 1)
    with serving(app) as client, ExitStack() as stack:
        for number in range(12):
            for first in (whole, unfinished):
                idle(stack, client).sendall(first)
            if number < 4:
                raw = idle(stack, client)
                raw.sendall(HANDSHAKE.replace("/stream", "/stream?format=probability").encode())
                raw.sendall(Frame(Opcode.BINARY, image).serialize(mask=True))
            assert held(app) <= settings.memory_bytes
        while held(app) > 2 * 4 * len(image):  # what websockets keep that were told that there is no memory
            assert held(app) <= settings.memory_bytes
        assert_lives_on(client)


def idle(stack: ExitStack, client: httpx.Client) -> socket.socket:
    """A connection that never reads."""
    raw = stack.enter_context(socket.socket())
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect((client.base_url.host, client.base_url.port or 0))
    return raw


def is_refused(raw: socket.socket) -> bool:
    """Whether there is the answer that there is no memory."""
    raw.settimeout(0)
    try:
        answer = raw.recv(1 << 16, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"retry-after: " in answer.lower()
    return True


def test_an_answer_is_held_until_it_is_taken() -> None:
    app = create_app(FakeEngine(), Settings(memory_bytes=2**30))
    with serving(app) as client, socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(PATIENCE)
        raw.connect(("127.0.0.1", client.base_url.port or 0))
        body = file_of(Image.new("RGB", (2000, 2000)))
        head = "POST /segment?format=probability HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        raw.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert raw.recv(1)
        assert held(app) >= 4 * 2000 * 2000
        left = 4 * 2000 * 2000
        while left > 0:
            left -= len(raw.recv(1 << 20))
        while held(app):
            pass


def test_a_large_answer_in_pieces_is_whole(client: httpx.Client) -> None:
    answer = client.post("/segment?format=npy", content=file_of(Image.new("L", (1000, 1000))), headers=PNG)
    assert len(answer.content) == int(answer.headers["content-length"]) == 1_000_128
    assert len(answer.content) > AT_ONCE


@pytest.mark.parametrize("path", ["/segment/batch", "/segment/batch?format=rle", "/segment/batch?format=npy"])
def test_a_batch_in_pieces_is_one_document(client: httpx.Client, path: str) -> None:
    files = [("image", ("x", file_of(photo()))), ("image", ("x", b"no image")), ("image", ("x", file_of(photo())))]
    document = json.loads(client.post(path, files=files).content)
    assert document["model"] == "fake"
    assert [item["status"] for item in document["items"]] == [200, 400, 200]


@pytest.mark.parametrize(("wanted", "status"), [("png", 200), ("polygons", problems.TooIntricate.status)])
@pytest.mark.parametrize("path", ["/segment", "/segment/batch", "/stream"])
def test_pixels_do_not_wait_for_the_garbage_collector(
    path: str, wanted: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels: list[weakref.ref[Pixels]] = []
    true_decode = decode.decode

    def noted(*arguments: Any) -> Decoded:
        decoded = true_decode(*arguments)
        pixels.append(weakref.ref(decoded.pixels))
        return decoded

    monkeypatch.setattr(decode, "decode", noted)
    monkeypatch.setattr(polygons, "MAX_CORNERS", 3)
    with serving(create_app(FakeEngine(batches=Forgetful()), Settings())) as client, without_collector():
        assert asked(client, path, f"format={wanted}") == status
        patience = time.monotonic() + PATIENCE
        while pixels[0]() is not None:  # until the thread of the engine has looked away, too
            assert time.monotonic() < patience
            client.get("/healthz")


def asked(client: httpx.Client, path: str, query: str) -> int:
    """The status that an image gets."""
    image = file_of(photo())
    if path == "/stream":
        with streaming(client, f"?{query}") as socket:
            socket.send(image)
            return int(head(socket)["status"])
    if path == "/segment":
        return client.post(f"{path}?{query}", content=image, headers=PNG).status_code
    answer = client.post(f"{path}?{query}", files={"image": image})
    return int(answer.json()["items"][0]["status"])


@contextmanager
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
