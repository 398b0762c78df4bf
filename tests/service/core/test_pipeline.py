"""The four stages of an image's way, without HTTP."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import numpy as np
import pytest

from engine import images
from engine.images import WHOLE
from service.codec import decode
from service.codec.encoders import Encoder, Result
from service.core.params import SegmentParams
from service.core.pipeline import LABOR, Decoded, SegmentResponse
from service.core.queue import InferenceResult
from service.core.service import Service, assemble
from service.core.threads import LANES
from service.settings import Settings
from tests.service.fakes import PATIENCE, FakeEngine

IMAGE = np.zeros((16, 16, 3), np.uint8)


async def encoded(service: Service, queued: Future[InferenceResult], params: SegmentParams) -> SegmentResponse:
    """The last stage alone."""
    with service.budget.holding() as held, service.budget.holding() as memory:
        return await service.pipeline._encode(Decoded(IMAGE, 0.0), queued, params, math.inf, held, memory)


def test_an_image_whose_client_leaves_while_it_is_decoded_never_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    entered, gate = threading.Event(), threading.Event()

    def slow(*_: object) -> images.Decoded:
        entered.set()
        assert gate.wait(PATIENCE)
        return images.Decoded(IMAGE, WHOLE)

    async def leave() -> None:
        asking = asyncio.create_task(
            service.pipeline.segment(b"", SegmentParams(engine, 0.5), service.budget.holding())
        )
        await asyncio.to_thread(entered.wait, PATIENCE)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    monkeypatch.setattr(decode, "decode", slow)
    engine = FakeEngine()
    service = assemble([engine], Settings())  # whose worker is not started: what is queued stays there
    asyncio.run(leave())
    gate.set()
    service.threads.stop(wait=True)
    assert service.batcher.waiting == 1
    assert service.batcher.step() == 0
    assert not engine.batches


@pytest.mark.parametrize(
    ("brief", "waiting", "thread"), [(True, 0, "stepping"), (True, 1, "codec-0"), (False, 0, "codec-0")]
)
def test_who_encodes(brief: bool, waiting: int, thread: str) -> None:
    """The engine's own thread where that is brief and nothing waits for the engine; otherwise the pool."""
    names = []

    def encode(_: Result) -> Iterator[bytes]:
        names.append(threading.current_thread().name)
        yield b""

    async def ask() -> None:
        params = SegmentParams(engine, 0.5, Encoder("", encode, lambda pixels, classes: 1, brief=brief))
        queued = service.batcher.submit(IMAGE, params)
        for _ in range(waiting):
            service.batcher.submit(np.zeros((32, 32, 3), np.uint8), params)  # of another batch
        asking = asyncio.create_task(encoded(service, queued, params))
        await asyncio.sleep(0)  # it now waits for the engine
        stepping = threading.Thread(target=service.batcher.step, name="stepping")
        stepping.start()
        await asking
        stepping.join()

    engine = FakeEngine()
    service = assemble([engine], Settings())
    asyncio.run(ask())
    assert [name.partition("_")[0] for name in names] == [thread]


def test_nothing_is_encoded_in_the_event_loop() -> None:
    threads = []

    def encode(_: Result) -> Iterator[bytes]:
        threads.append(threading.current_thread())
        yield b""

    async def ask() -> None:
        params = SegmentParams(engine, 0.5, Encoder("", encode, lambda pixels, classes: 1, brief=True))
        queued = service.batcher.submit(IMAGE, params)
        service.batcher.step()  # done before anybody waits for it
        await encoded(service, queued, params)

    engine = FakeEngine()
    service = assemble([engine], Settings())
    asyncio.run(ask())
    assert len(threads) == 1
    assert threads != [threading.main_thread()]


@pytest.mark.parametrize("most", LANES[:-1])
def test_small_images_never_wait_behind_large_ones(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not behind large files, nor behind small files of large images, which their headers tell."""
    gate, stuck = threading.Event(), threading.Semaphore(0)

    def slow(data: bytes, limit: int, selection: object, claim: Callable[[int], None], *_: object) -> images.Decoded:
        claim(int(data[:12]))
        if int(data[:12]) > most:
            stuck.release()
            assert gate.wait(PATIENCE)
        return images.Decoded(IMAGE, WHOLE)

    async def ask(size: int, padding: int = 0) -> SegmentResponse:
        params = SegmentParams(service.models.default, 0.5)
        with service.budget.holding() as memory:
            return await service.pipeline.segment(b"%012d" % size + bytes(padding), params, memory)

    async def all_of_them() -> None:
        threads = os.cpu_count() or 1
        large = [asyncio.create_task(ask(most + 1, padding=most // LABOR * (k % 2))) for k in range(2 * threads)]
        for _ in range(threads):
            await asyncio.to_thread(stuck.acquire)  # all threads for the large have something to do
        await asyncio.gather(*(ask(1) for _ in range(10)))
        assert not any(task.done() for task in large)
        gate.set()
        await asyncio.gather(*large)

    monkeypatch.setattr(decode, "decode", slow)
    service = assemble([FakeEngine()], Settings(memory_bytes=2**36))
    service.batcher.start()
    asyncio.run(all_of_them())
    service.batcher.close()
    service.threads.stop(wait=True)
