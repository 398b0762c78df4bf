"""The four stages of an image's way, without HTTP."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engine import images, preprocess
from engine.images import WHOLE
from engine.model import Preprocessing
from engine.runtime import Engine
from service.codec import decode
from service.codec.encoders import ENCODERS, Encoder, Result
from service.core import cost
from service.core.params import SegmentParams
from service.core.pipeline import LABOR, Decoded, SegmentResponse
from service.core.queue import InferenceResult
from service.core.service import Service, assemble
from service.core.threads import LANES
from service.problems import MemoryFull, Problem
from service.settings import Settings
from tests.models import random_model
from tests.pictures import file_of, photo
from tests.service.fakes import PATIENCE, FakeEngine, fake_model, fitting_threads

IMAGE = np.zeros((16, 16, 3), np.uint8)


async def encoded(
    service: Service, queued: Future[InferenceResult], params: SegmentParams, image: NDArray[np.uint8] = IMAGE
) -> SegmentResponse:
    """The last stage alone, of IMAGE as the network sees `image`."""
    with service.budget.holding() as held, service.budget.holding() as memory:
        return await service.pipeline._encode(Decoded(image, IMAGE, 0.0), queued, params, math.inf, held, memory)


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
    ("brief", "waiting", "side", "thread"),
    [(True, 0, 16, "stepping"), (True, 1, 16, "codec-0"), (False, 0, 16, "codec-0"), (True, 0, 40, "codec-0")],
)
def test_who_encodes(brief: bool, waiting: int, side: int, thread: str) -> None:
    """The engine's own thread where that is brief, the mask is of the image's size, and nothing waits for the engine;
    otherwise the pool.
    """
    names = []

    def encode(_: Result) -> Iterator[bytes]:
        names.append(threading.current_thread().name)
        yield b""

    async def ask() -> None:
        params = SegmentParams(engine, 0.5, Encoder("", encode, lambda pixels, classes: 1, brief=brief))
        queued = service.batcher.submit(IMAGE, params)
        for _ in range(waiting):
            service.batcher.submit(np.zeros((32, 32, 3), np.uint8), params)  # of another batch
        asking = asyncio.create_task(encoded(service, queued, params, np.zeros((side, side, 3), np.uint8)))
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


SHRUNK = Preprocessing("resize", height=64, width=64)
STRETCHED = Preprocessing(contrast="stretch")


def answers(engine: Any, files: Sequence[bytes], format: str = "npy") -> list[SegmentResponse | Problem]:
    """To a batch of them, by a service of its own."""

    async def ask() -> list[SegmentResponse | Problem]:
        params = SegmentParams(engine, engine.model.threshold, ENCODERS[format])
        with service.budget.holding() as memory:
            return await service.pipeline.segment_all(files, params, memory)

    service = assemble([engine], Settings())
    service.batcher.start()
    found = asyncio.run(ask())
    service.batcher.close()
    service.threads.stop(wait=True)
    assert service.budget.held == 0
    return found


def body(answer: SegmentResponse | Problem) -> bytes:
    assert isinstance(answer, SegmentResponse)
    return b"".join(answer.pieces)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("how", [Preprocessing(), STRETCHED, SHRUNK, Preprocessing("aspect", 48, 32, "stretch")])
def test_an_answer_is_what_the_engine_alone_makes_of_the_image(how: Preprocessing, deep: bool) -> None:
    levels = np.random.default_rng(0).integers(0, 200, (2, 40, 51), np.uint8)
    pictures = [Image.fromarray(one.astype(np.uint16) * 90) if deep else Image.fromarray(one) for one in levels]
    files = [file_of(picture) for picture in pictures]
    with Engine.load(replace(random_model(width=2), preprocessing=how), device="cpu", threads=1) as engine:
        decoded = [images.decode(file).pixels for file in files]
        masks, logits = engine.run(decoded)[0], engine.run_logits(decoded)[0]
        for format in ("npy", "probability", "overlay"):
            results = zip(decoded, masks, logits, answers(engine, files, format), strict=True)
            for image, mask, its_logits, answer in results:
                drawn = Result(engine.model, image, mask, its_logits)
                assert body(answer) == b"".join(ENCODERS[format].encode(drawn))


def test_images_that_a_model_resizes_share_a_batch_whatever_their_size() -> None:
    engine = FakeEngine(replace(fake_model(), preprocessing=SHRUNK))
    files = [file_of(photo(*size)) for size in ((16, 16), (40, 30), (100, 3))]
    assert all(isinstance(answer, SegmentResponse) for answer in answers(engine, files))
    assert {image.shape for batch in engine.batches for image in batch} == {(64, 64, 3)}
    assert len(engine.batches) == 1


def test_an_image_is_fitted_and_its_mask_resized_in_the_threads_of_the_codecs(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = fitting_threads(monkeypatch)
    engine = FakeEngine(replace(fake_model(), preprocessing=SHRUNK))
    for answer in answers(engine, [file_of(photo())], "rle"):
        assert isinstance(answer, SegmentResponse)
    assert threads == ["codec-0"] * 2


@pytest.mark.parametrize("how", [Preprocessing(), STRETCHED, SHRUNK])
def test_what_the_network_sees_lies_in_memory_of_the_engine_and_nothing_else(how: Preprocessing) -> None:
    given: list[NDArray[np.uint8]] = []

    class Giving(FakeEngine):
        def empty(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
            given.append(super().empty(shape))
            return given[-1]

    engine = Giving(replace(fake_model(), preprocessing=how))
    assert body(answers(engine, [file_of(photo(), "JPEG")])[0])
    assert len(given) == 1
    assert np.shares_memory(engine.batches[0][0], given[0])


def test_where_the_engine_has_no_memory_the_client_is_told() -> None:
    class Full(FakeEngine):
        def empty(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
            raise MemoryFull("there is no memory for this image at present")

    engine = Full(replace(fake_model(), preprocessing=STRETCHED))
    assert isinstance(answers(engine, [file_of(photo())])[0], MemoryFull)
    assert not engine.batches


class Counting(FakeEngine):
    """Notes what is held, in the budget of `service`, when memory for an image is asked for."""

    service: Service
    held: list[int]

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        self.held = [*getattr(self, "held", []), self.service.budget.held]
        return super().empty(shape)


def test_memory_is_counted_before_an_image_is_fitted() -> None:
    async def ask() -> None:
        params = SegmentParams(engine, 0.5, ENCODERS["npy"])
        with service.budget.holding() as memory:
            assert body((await service.pipeline.segment_all([file_of(photo(30, 20))], params, memory))[0])

    engine = Counting(replace(fake_model(), preprocessing=SHRUNK))
    service = engine.service = assemble([engine], Settings())
    service.batcher.start()
    asyncio.run(ask())
    service.batcher.close()
    assert engine.held == [3 * 30 * 20 + cost.run_bytes(SegmentParams(engine, 0.5, ENCODERS["npy"]), (20, 30, 3))]


def test_an_answer_is_made_of_memory_that_is_held_though_its_client_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    entered, gate, held = threading.Event(), threading.Event(), list[int]()

    def slow(result: Any, *_: object) -> Any:
        entered.set()
        assert gate.wait(PATIENCE)
        held.append(service.budget.held)
        return result

    async def leave() -> None:
        params = SegmentParams(engine, 0.5, ENCODERS["npy"])
        with service.budget.holding() as memory:
            asking = asyncio.create_task(service.pipeline.segment(file_of(photo()), params, memory))
            await asyncio.to_thread(entered.wait, PATIENCE)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        gate.set()

    monkeypatch.setattr(preprocess, "postprocess", slow)
    engine = FakeEngine(replace(fake_model(), preprocessing=SHRUNK))
    service = assemble([engine], Settings())
    service.batcher.start()
    asyncio.run(leave())
    service.batcher.close()
    service.threads.stop(wait=True)
    assert held[0] > 0
    assert service.budget.held == 0


def test_what_a_network_sees_much_of_is_fitted_among_the_large(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def noted(image: Any, *_: object) -> Any:
        threads.append(threading.current_thread().name.partition("_")[0])
        return np.zeros((16, 16, 3), np.uint8)

    monkeypatch.setattr(preprocess, "preprocess", noted)
    engine = FakeEngine(replace(fake_model(), preprocessing=Preprocessing("resize", 1024, 2048)))
    assert body(answers(engine, [file_of(photo())])[0])
    assert threads == ["codec-1"]


def test_what_is_drawn_on_is_where_the_engine_reads_it_where_both_are_the_same() -> None:
    drawn = []

    def encode(result: Result) -> Iterator[bytes]:
        drawn.append(result.image)
        yield b""

    async def ask(how: Preprocessing) -> bool:
        engine = FakeEngine(replace(fake_model(), preprocessing=how))
        service = assemble([engine], Settings())
        service.batcher.start()
        params = SegmentParams(engine, 0.5, Encoder("", encode, lambda pixels, classes: 1))
        grey = file_of(Image.fromarray(np.zeros((20, 30), np.uint16)))
        with service.budget.holding() as memory:
            await service.pipeline.segment(grey, params, memory)
        service.batcher.close()
        return drawn[-1] is engine.batches[-1][0]

    assert asyncio.run(ask(Preprocessing()))
    assert not asyncio.run(ask(STRETCHED))
