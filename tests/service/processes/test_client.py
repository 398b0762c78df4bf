"""A front end's queue and the engine process's host, at the two ends of a real line, without the processes."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine import images, preprocess
from engine.model import Model
from service.codec.encoders import ENCODERS
from service.codec.pixels import Fitted
from service.core import resident
from service.core.models import Models
from service.core.params import SegmentParams
from service.core.resident import Resident
from service.problems import DeadlinePassed, EngineFailure, QueueFull, Unavailable
from service.processes import client, messages, outbox
from service.processes.arena import Arena, part_of
from service.processes.client import EngineClient, RemoteEngine
from service.processes.host import Host
from service.processes.outbox import Outbox
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.service.fakes import PATIENCE, FakeEngine, fake_model

ARENA = 1 << 24
SETTINGS = Settings(queue_images=3)


def photo(side: int = 16) -> Fitted:
    return np.random.default_rng(side).integers(0, 256, (side, side + 3, 3), np.uint8)


@dataclass
class Two:
    """Both ends. The host's queue serves `engine`; the client's registry is `models`."""

    engine: FakeEngine
    host: Host
    resident: Resident
    models: Models
    client: EngineClient

    def connect(self) -> None:
        ours, theirs = messages.pair()
        self.host.serve(theirs)
        self.client.attach(ours)

    def params(self, threshold: float = 0.5, format: str = "png", low: bool = False) -> SegmentParams:
        return SegmentParams(self.models.default, threshold, ENCODERS[format], low_priority=low)

    def hold(self) -> Any:
        """The engine is busy with an image until its gate opens."""
        self.engine.gate.clear()
        self.engine.entered.clear()
        held = self.client.submit(photo(), self.params())
        assert self.engine.entered.wait(PATIENCE)
        return held

    def used(self) -> int:
        gc.collect()
        engine = self.models.default
        assert isinstance(engine, RemoteEngine)
        return engine.session.arena.used


def two_of(engine: FakeEngine) -> Two:
    metrics = Metrics()
    host = Host(metrics.gauges_text)
    its = resident.assemble(
        [engine], SETTINGS, metrics, load=lambda: [engine], changed=host.changed, began=host.began, turned=host.publish
    )
    host.open(its)
    models = Models([])
    client = EngineClient(models, ARENA, 3)
    two = Two(engine, host, its, models, client)
    two.connect()
    assert client.connected.wait(PATIENCE)
    its.lifecycle.start()
    assert its.lifecycle.settled.wait(PATIENCE)
    while not client.notice or client.notice.turn_since:
        pass
    return two


@pytest.fixture
def two() -> Iterator[Two]:
    made = two_of(FakeEngine())
    yield made
    made.engine.gate.set()
    made.resident.lifecycle.stop()


def until(condition: Any) -> None:
    limit = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < limit


def test_a_mask_is_what_the_engine_gives(two: Two) -> None:
    for image in (photo(), photo(99), photo(40)[::2, 1:30]):
        result = two.client.submit(image, two.params(0.3)).result(PATIENCE)
        direct = two.engine.start([image], [0.3]).finish()
        np.testing.assert_array_equal(result.mask, direct.masks[0])
        assert result.logits is None
        assert result.queue_s >= 0
        assert result.engine_s == pytest.approx(0.003)
        del result
    assert two.used() == 0


def test_a_jpeg_is_decoded_to_where_the_engine_reads_it(two: Two) -> None:
    file = io.BytesIO()
    Image.fromarray(photo(32)).save(file, "JPEG")
    engine, claimed = two.models.default, list[int]()
    assert isinstance(engine, RemoteEngine)
    decoded = images.decode(file.getvalue(), empty=engine.empty).pixels
    np.testing.assert_array_equal(decoded, images.decode(file.getvalue()).pixels)
    assert part_of(decoded, engine.session.arena)
    fitted = preprocess.preprocess(decoded, engine.model.preprocessing)
    assert two.client.place(fitted, claimed.append) is decoded
    other = two.client.place(photo(32), claimed.append)
    assert part_of(other, engine.session.arena)
    assert claimed == [other.nbytes]


@pytest.mark.parametrize("classes", [1, 4])
def test_logits_come_where_they_are_wanted(classes: int) -> None:
    two = two_of(FakeEngine(fake_model(classes)))
    image = photo(21)
    result = two.client.submit(image, two.params(format="probability")).result(PATIENCE)
    direct = two.engine.start([image], want_logits=True)
    np.testing.assert_array_equal(result.mask, direct.masks[0])
    np.testing.assert_array_equal(result.logits, direct.logits[0])
    two.resident.lifecycle.stop()


def test_the_model_comes_without_weights(two: Two) -> None:
    theirs, ours = two.models.default, two.engine
    assert (theirs.device, theirs.kernel) == (ours.device, ours.kernel)
    assert isinstance(theirs.model, Model)
    assert (theirs.model.name, theirs.model.layers, theirs.model.classes) == (
        ours.model.name,
        ours.model.layers,
        ours.model.classes,
    )
    assert theirs.model.tensors == {}
    assert theirs.model.padded(17, 33) == ours.model.padded(17, 33)


def test_a_full_queue_refuses_all_or_none_with_retry_after(two: Two) -> None:
    held = two.hold()
    waiting = two.client.submit_all([photo()] * 3, two.params())
    refused = two.client.submit_all([photo()] * 2, two.params())
    for future in refused:
        error = future.exception(PATIENCE)
        assert isinstance(error, QueueFull)
        assert error.headers
        assert int(error.headers["Retry-After"]) >= 1
    until(lambda: two.client.notice and two.client.notice.waiting == 3)
    two.engine.gate.set()
    for future in (held, *waiting):
        assert future.result(PATIENCE).mask.shape == (16, 19)
    del held, waiting, refused, future
    assert two.used() == 0


def test_room_is_asked_for_only_where_there_may_be_none(two: Two) -> None:
    asyncio.run(two.client.require_room())
    held = two.hold()
    two.client.submit_all([photo()] * 3, two.params())
    assert isinstance(two.client.submit(photo(), two.params()).exception(PATIENCE), QueueFull)
    two.engine.gate.set()
    assert held.result(PATIENCE)
    until(lambda: two.client.notice and not two.client.notice.waiting)
    notice = two.client.notice
    assert notice
    assert notice.room == 0  # somebody was told to come again, and a place is kept for him
    asyncio.run(two.client.require_room())


def test_a_cancelled_image_never_runs_and_its_memory_comes_back(two: Two) -> None:
    held = two.hold()
    waiting = two.client.submit(photo(30), two.params())
    until(lambda: two.resident.batcher.waiting)
    assert waiting.cancel()
    (front_end,) = two.host._front_ends
    until(lambda: len(front_end.asked) == 1)
    two.engine.gate.set()
    held.result(PATIENCE)
    with pytest.raises(CancelledError):
        waiting.result(0)
    two.client.submit(photo(40), two.params()).result(PATIENCE)
    assert [batch[0].shape[0] for batch in two.engine.batches[1:]] == [16, 40]
    del held, waiting
    until(lambda: two.used() == 0)


def test_deadlines_hold_across_the_line(two: Two) -> None:
    held = two.hold()
    late = two.client.submit(photo(), two.params(), time.monotonic())
    until(lambda: two.resident.batcher.waiting)
    two.engine.gate.set()
    assert held.result(PATIENCE)
    assert isinstance(late.exception(PATIENCE), DeadlinePassed)


def test_what_fails_fails_alone_and_says_nothing_of_why(two: Two) -> None:
    two.engine.breaks = lambda image: image.shape[0] == 13
    bad, good = two.client.submit_all([photo(13), photo(14)], two.params())
    error = bad.exception(PATIENCE)
    assert isinstance(error, EngineFailure)
    assert "secret" not in error.detail
    assert "RuntimeError: secret internals" in str(error.__cause__)  # for the log
    assert good.result(PATIENCE)


def test_low_priority_comes_with_the_image(two: Two) -> None:
    two.hold()
    two.client.submit(photo(), two.params(low=True))
    two.client.submit(photo(), two.params())
    batcher = two.resident.batcher
    until(lambda: batcher.waiting == 2)
    assert {kind.low_priority: len(entries) for kind, entries in batcher._waiting.items() if entries} == {
        True: 1,
        False: 1,
    }


def test_new_models_are_shown_and_old_ones_serve_who_began_with_them(two: Two) -> None:
    old = two.params()
    two.resident.models._load = lambda: [FakeEngine(fake_model(name="new"))]
    assert two.resident.models.reload()
    until(lambda: two.models.default.model.name == "new")
    assert two.client.submit(photo(), old).result(PATIENCE)
    assert two.client.submit(photo(), two.params()).result(PATIENCE)
    (front_end,) = two.host._front_ends
    assert len(front_end._engines) == 2
    del old
    gc.collect()
    until(lambda: len(front_end._engines) == 1)  # nobody can name the old one any more


def test_when_the_engines_process_ends_all_is_unavailable_at_once_until_there_is_another(two: Two) -> None:
    held = two.hold()
    params = two.params()
    (front_end,) = two.host._front_ends
    front_end._line.shutdown(socket.SHUT_RDWR)
    assert isinstance(held.exception(PATIENCE), Unavailable)
    until(lambda: two.client.notice is None)
    assert two.client.absent_s >= 0
    assert asyncio.run(two.client.exposition()) == b""
    with pytest.raises(Unavailable):
        asyncio.run(two.client.require_room())
    with pytest.raises(Unavailable):
        two.client.submit(photo(), params)
    two.engine.gate.set()
    two.connect()
    until(lambda: two.client.notice)
    with pytest.raises(Unavailable):
        two.client.submit(photo(), params)  # begun with the engine that has gone
    assert two.client.submit(photo(), two.params()).result(PATIENCE)


def test_a_front_end_that_ends_takes_its_images_along(two: Two) -> None:
    held = two.hold()
    two.client.submit_all([photo()] * 3, two.params())
    until(lambda: two.resident.batcher.waiting == 3)
    (front_end,) = two.host._front_ends
    engine = two.models.default
    assert isinstance(engine, RemoteEngine)
    engine.session._line.shutdown(socket.SHUT_RDWR)
    front_end.join(PATIENCE)
    two.engine.gate.set()
    two.host.wait(PATIENCE)
    until(lambda: not two.resident.batcher.running_s)
    assert len(two.engine.batches) == 2  # the warm-up and the one that was under way
    assert isinstance(held.exception(PATIENCE), Unavailable)


@pytest.mark.parametrize(
    "packet",
    [
        b"?",
        bytes([messages.SEGMENT]),
        messages.BATCH.pack(messages.SEGMENT, 10**6, 0.5, 1e9, False, False),  # no such engine
        messages.TICKET.pack(messages.METRICS, 1)[:-1],
    ],
)
def test_a_front_end_that_talks_nonsense_is_given_up_alone(two: Two, packet: bytes) -> None:
    ours, theirs = messages.pair()
    two.host.serve(theirs)
    messages.send(ours, packet)
    while messages.receive(ours)[0]:
        pass
    assert two.client.submit(photo(), two.params()).result(PATIENCE)


@pytest.mark.parametrize(("pixels", "result"), [(ARENA, 0), (0, ARENA), (2**63, 0), (0, ARENA - 16)])
def test_nobody_reads_or_writes_beyond_an_arena(two: Two, pixels: int, result: int) -> None:
    ours, theirs = messages.pair()
    two.host.serve(theirs)
    messages.receive(ours)
    engine = two.models.default
    assert isinstance(engine, RemoteEngine)
    messages.send(ours, bytes([messages.ARENA]), [Arena(ARENA).descriptor])
    batch = messages.BATCH.pack(messages.SEGMENT, engine.number, 0.5, 1e9, False, False)
    messages.send(ours, batch + messages.IMAGE.pack(1, pixels, result, 16, 16))
    assert messages.receive(ours)[0] == b""
    assert len(two.engine.batches) == 1


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="no scheduling classes here")
def test_who_reads_what_a_front_end_asks_preempts_nobody(two: Two) -> None:
    two.client.submit(photo(), two.params()).result(PATIENCE)
    (front_end,) = two.host._front_ends
    assert front_end.native_id
    assert os.sched_getscheduler(front_end.native_id) == os.SCHED_BATCH


def test_a_front_end_that_reads_nothing_never_holds_the_engine_up(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MOST_BYTES", 100_000)
    ours, theirs = messages.pair()
    two.host.serve(theirs)
    for ticket in range(100_000):
        try:
            messages.send(ours, messages.COUNT.pack(messages.ROOM, ticket, 1))
        except messages.Lost:
            if len(two.host._front_ends) == 1:
                break
    assert len(two.host._front_ends) == 1
    assert two.client.submit(photo(), two.params()).result(PATIENCE)


def test_a_front_end_that_pauses_loses_no_answer(two: Two) -> None:
    ours, theirs = messages.pair()
    two.host.serve(theirs)
    tickets = range(2000)  # a line holds a few hundred
    asking = Outbox(ours)
    for ticket in tickets:
        asking.send(messages.COUNT.pack(messages.ROOM, ticket, 1))
    assert messages.receive(ours)[0][0] == messages.MODELS
    assert [messages.TICKET.unpack_from(messages.receive(ours)[0])[1] for _ in tickets] == [*tickets]


def test_an_engine_process_that_takes_too_little_is_said_not_to_answer(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = messages.pair()
    old = two.models.default
    two.client.attach(ours)
    messages.send(theirs, bytes([messages.MODELS]), [two.host._catalog.descriptor, two.host.board.descriptor])
    until(lambda: two.models.default is not old)
    monkeypatch.setattr(outbox, "MOST_BYTES", 0)
    asked = list[Any]()
    with pytest.raises(Unavailable, match="does not answer"):
        asked += (two.client.submit(photo(1), two.params()) for _ in range(1000))


def test_who_loses_the_line_alone_is_told_when_no_other_comes(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    abandoned = threading.Event()
    two.client._abandoned = abandoned.set
    two.host.forget(front_end := next(iter(two.host._front_ends)))
    front_end._outbox.end()
    until(lambda: two.client.notice is None)
    two.connect()  # as the supervisor does for who has lost the engine process
    until(lambda: two.client.notice)
    monkeypatch.setattr(client, "LINE_S", 0.01)
    assert not abandoned.is_set()
    next(iter(two.host._front_ends))._outbox.end()
    assert abandoned.wait(PATIENCE)
