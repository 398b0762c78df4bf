"""WS /stream: masks for frames, the newest frame first, and nothing for strangers."""

from __future__ import annotations

import gc
import io
import json
import logging
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from service.api.stream import LatestFrame
from service.app import create_app
from service.logs import json_lines, log
from service.settings import Settings
from tests.pictures import file_of, photo
from tests.service.api.test_batch import red
from tests.service.core.test_batcher import Clock
from tests.service.fakes import PATIENCE, FakeEngine, fake_model, serving
from tests.service.test_app import assert_lives_on


@contextmanager
def streaming(client: httpx.Client, query: str = "", **options: Any) -> Iterator[ClientConnection]:
    address = str(client.base_url).replace("http", "ws").rstrip("/")
    with connect(f"{address}/stream{query}", open_timeout=PATIENCE, **options) as socket:
        yield socket


def head(socket: ClientConnection) -> dict[str, Any]:
    text = socket.recv(PATIENCE)
    assert isinstance(text, str)
    document: dict[str, Any] = json.loads(text)
    return document


def mask(socket: ClientConnection) -> np.ndarray[Any, Any]:
    body = socket.recv(PATIENCE)
    assert isinstance(body, bytes)
    with Image.open(io.BytesIO(body)) as image:
        return np.asarray(image.convert("L"))


def test_each_frame_gets_its_mask_and_times(client: httpx.Client) -> None:
    with streaming(client) as socket:
        for number in range(3):
            socket.send(file_of(photo()))
            told = head(socket)
            assert (told["frame"], told["dropped"], told["status"]) == (number, 0, 200)
            assert set(told["ms"]) == {"decode", "queue", "engine", "encode"}
            np.testing.assert_array_equal(mask(socket) == 255, np.asarray(photo())[:, :, 0] == 255)


def test_a_bad_frame_gets_a_problem_and_the_stream_goes_on(client: httpx.Client) -> None:
    with streaming(client, "?format=json") as socket:
        socket.send(b"no image")
        told = head(socket)
        assert (told["status"], told["problem"]["title"]) == (400, "The body is not a readable image")
        socket.send(red())
        assert head(socket)["status"] == 200
        assert json.loads(socket.recv(PATIENCE))["classes"][1]["pixels"] == 16


def test_an_open_stream_goes_over_to_new_models_and_holds_no_old_one() -> None:
    engine = FakeEngine()
    app = create_app(engine, Settings())
    with serving(app) as client, streaming(client, "?model=fake") as socket:
        for _ in range(2):
            socket.send(red())
            assert head(socket)["status"] == 200
            assert mask(socket).all()
            assert engine.entered.is_set()
            old, engine = weakref.ref(engine), FakeEngine()
            app.state.service.models.serve([engine])
        gc.collect()
        assert old() is None
        app.state.service.models.serve([FakeEngine(fake_model(name="other"))])
        socket.send(red())
        assert head(socket)["status"] == 404


def test_when_the_client_is_ahead_the_newest_frame_wins() -> None:
    engine = FakeEngine()
    app = create_app(engine, Settings(stream_fps=1_000_000))
    with serving(app) as client:
        engine.gate.clear()
        engine.entered.clear()
        with streaming(client) as socket:
            socket.send(red(255))
            assert engine.entered.wait(PATIENCE)
            for _ in range(5):
                socket.send(red(255))
            socket.send(red(0))
            socket.ping().wait(PATIENCE)  # it is answered after the frames before it have been taken in
            engine.gate.set()
            assert head(socket)["frame"] == 0
            assert mask(socket).all()
            told = head(socket)
            assert (told["frame"], told["dropped"]) == (6, 5)
            assert not mask(socket).any()
            value = app.state.service.metrics.registry.get_sample_value
            assert value("mbunet_stream_frames_total", {"outcome": "dropped"}) == 5  # while the stream goes on
        assert_lives_on(client)
    assert value("mbunet_stream_frames_total", {"outcome": "dropped"}) == 5
    assert value("mbunet_stream_frames_total", {"outcome": "answered"}) == 2
    assert app.state.service.streams.total == 0


def test_a_fault_of_ours_ends_the_stream_and_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("service.api.stream.milliseconds", fail)
    app = create_app(FakeEngine(), Settings())
    with serving(app) as client:
        with streaming(client) as socket:
            socket.send(red())
            with pytest.raises(ConnectionClosed) as caught:
                socket.recv(PATIENCE)
        assert_lives_on(client)
    assert caught.value.rcvd
    assert caught.value.rcvd.code == 1011
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == ["request failed"]
    value = app.state.service.metrics.registry.get_sample_value
    assert value("mbunet_requests_total", {"route": "/stream", "outcome": "failed"}) == 1


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("?model=nothing", {}, 404),
        ("?format=tiff", {}, 406),
        ("?treshold=1", {}, 422),
        ("", {"Origin": "https://evil.example"}, 403),
    ],
)
def test_refused_before_it_begins(client: httpx.Client, query: str, headers: dict[str, str], status: int) -> None:
    with pytest.raises(InvalidStatus) as caught, streaming(client, query, additional_headers=headers):
        pass
    assert caught.value.response.status_code == status
    assert json.loads(caught.value.response.body or b"")["status"] == status


@pytest.mark.parametrize(("path", "status"), [("/stream?format=tiff", 406), ("/stream?model=x", 404), ("/x", 403)])
def test_a_refused_one_is_one_line_of_the_log(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, path: str, status: int
) -> None:
    reads, writes = os.pipe()
    handler = json_lines(writes)
    caplog.set_level(logging.WARNING, "uvicorn.error")  # as it is in the process of `mbunet serve`
    caplog.set_level(logging.INFO, log.name)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    address = str(client.base_url).replace("http", "ws").rstrip("/")
    with pytest.raises(InvalidStatus) as caught, connect(f"{address}{path}"):
        pass
    client.get("/healthz")  # whose line comes after all of the refusal's
    handler.flush()
    os.close(writes)
    with open(reads) as lines:
        (line, _) = (json.loads(text) for text in lines)
    assert line["message"] == "request"
    assert (line["status"], line["outcome"]) == (status, "refused")
    assert caught.value.response.status_code == status


@pytest.mark.parametrize(("key", "offer"), [("k", "key.k"), ("sä/=", "key64.c8OkLz0")])
def test_a_page_offers_its_key_as_a_subprotocol(key: str, offer: str) -> None:
    with serving(create_app(FakeEngine(), Settings(api_key=key))) as client:
        for wrong in ([], [Subprotocol("key64.c8OkLz")], [Subprotocol("key64.x")]):
            with pytest.raises(InvalidStatus), streaming(client, subprotocols=[Subprotocol("mbunet"), *wrong]):
                pass
        offered = [Subprotocol("mbunet"), Subprotocol(offer)]
        with streaming(client, subprotocols=offered) as socket:
            assert socket.subprotocol == "mbunet"
            socket.send(red())
            assert head(socket)["status"] == 200


def test_a_message_over_the_byte_limit_ends_the_stream(client: httpx.Client) -> None:
    with streaming(client) as socket:
        socket.send(bytes(200_001))
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv(PATIENCE)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1009
    assert_lives_on(client)


def test_a_text_ends_the_stream_with_a_reason(client: httpx.Client) -> None:
    with streaming(client) as socket:
        socket.send("no frame")
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv(PATIENCE)
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, "binary" in caught.value.rcvd.reason) == (1003, True)
    assert_lives_on(client)


def test_a_stream_that_leaves_withdraws_its_frame() -> None:
    engine = FakeEngine()
    app = create_app(engine, Settings())
    with serving(app) as client:
        engine.gate.clear()
        with streaming(client) as socket:
            socket.send(red())
            assert engine.entered.wait(PATIENCE)
        engine.gate.set()
        assert_lives_on(client)
    assert app.state.service.streams.total == 0


def test_streams_are_limited_in_number() -> None:
    with serving(create_app(FakeEngine(), Settings(streams=1))) as client, streaming(client):
        with pytest.raises(InvalidStatus) as caught, streaming(client):
            pass
        assert caught.value.response.status_code == 503


def test_frames_are_taken_at_intervals_and_the_newest_is_left() -> None:
    clock = Clock()
    frames = LatestFrame(0.5, clock)
    frames.put(b"0")
    assert (frames.pause_s(), frames.take()) == (0, (0, b"0"))
    for frame in (b"1", b"2"):
        frames.put(frame)
    clock.now += 0.25
    assert frames.pause_s() == 0.25
    clock.now += 0.25
    assert (frames.pause_s(), frames.take(), frames.dropped) == (0, (2, b"2"), 1)
    assert not frames.arrived.is_set()
