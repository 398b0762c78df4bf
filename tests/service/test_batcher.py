"""The queue before the engine, with a clock that is set by hand and, mostly, no thread at all."""

from __future__ import annotations

import numpy as np
import pytest

from service.batcher import Batcher, Bounds
from service.codec import Pixels
from service.problems import DeadlinePassed, EngineFailure, QueueFull, Unavailable
from tests.service.fakes import PATIENCE, FakeEngine

BOUNDS = Bounds(queue_images=5, queue_pixels=5 * 256, batch_images=3, batch_pixels=3 * 256)


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> bool:
        """Called for every image run, as the fake engine's `breaks`: time passes, nothing breaks."""
        self.now += seconds
        return False


def image(red: int = 0, side: int = 16) -> Pixels:
    return np.full((side, side, 3), red, np.uint8)


def test_takes_what_waits_in_batches_and_in_order() -> None:
    engine = FakeEngine()
    batcher = Batcher(engine, BOUNDS)
    replies = [batcher.submit(image(red), 0.5) for red in (0, 255, 0, 255, 0)]
    assert [batcher.step(), batcher.step(), batcher.step()] == [3, 2, 0]
    assert [reply.result(0).mask.max() for reply in replies] == [0, 1, 0, 1, 0]
    assert [len(batch) for batch in engine.batches] == [3, 2]


def test_thresholds_belong_to_their_images() -> None:
    batcher = Batcher(FakeEngine(), BOUNDS)
    replies = [batcher.submit(image(100), threshold) for threshold in (0.3, 0.5)]
    batcher.step()
    assert [reply.result(0).mask.max() for reply in replies] == [1, 0]


def test_a_batch_is_bounded_by_pixels_and_a_large_image_runs_alone() -> None:
    engine = FakeEngine()
    batcher = Batcher(engine, Bounds(queue_images=9, queue_pixels=10**6, batch_images=9, batch_pixels=600))
    for side in (16, 16, 16, 100, 16):
        batcher.submit(image(side=side), 0.5)
    while batcher.step():
        pass
    assert [[len(i) for i in batch] for batch in engine.batches] == [[16, 16], [16], [100], [16]]


@pytest.mark.parametrize("bounds", [Bounds(2, 10**6, 1, 256), Bounds(99, 2 * 256, 1, 256)], ids=["images", "pixels"])
def test_a_full_queue_refuses_with_the_measured_time(bounds: Bounds) -> None:
    clock = Clock()
    batcher = Batcher(FakeEngine(breaks=lambda image: clock.pass_by(7)), bounds, clock)
    batcher.submit(image(), 0.5)
    batcher.step()  # 7 seconds for one image of this size
    for _ in range(2):
        batcher.submit(image(), 0.5)
    with pytest.raises(QueueFull) as caught:
        batcher.submit(image(), 0.5)
    assert caught.value.headers == {"Retry-After": "14"}
    batcher.step()
    batcher.submit(image(), 0.5)


def test_an_unmeasured_queue_says_one_second() -> None:
    batcher = Batcher(FakeEngine(), Bounds(1, 256, 1, 256))
    batcher.submit(image(), 0.5)
    with pytest.raises(QueueFull) as caught:
        batcher.require_room()
    assert caught.value.headers == {"Retry-After": "1"}


def test_the_departed_neither_run_nor_hold_a_place() -> None:
    engine = FakeEngine()
    batcher = Batcher(engine, Bounds(2, 10**6, 2, 10**6))
    gone, stays = batcher.submit(image(), 0.5), batcher.submit(image(255), 0.5)
    assert gone.cancel()
    later = batcher.submit(image(), 0.5)
    assert batcher.step() == 2
    assert len(engine.batches[0]) == 2
    assert stays.result(0).mask.all()
    assert later.done()


def test_the_late_get_their_problem_and_do_not_run() -> None:
    clock, engine = Clock(), FakeEngine()
    batcher = Batcher(engine, BOUNDS, clock)
    late, timely = batcher.submit(image(), 0.5, deadline=101), batcher.submit(image(), 0.5, deadline=103)
    clock.now = 102
    assert batcher.step() == 1
    assert isinstance(late.exception(0), DeadlinePassed)
    assert timely.result(0).queue_s == 2


def test_one_bad_image_does_not_harm_its_batch() -> None:
    batcher = Batcher(FakeEngine(breaks=lambda image: image[0, 0, 0] == 13), BOUNDS)
    good, failing, other = (batcher.submit(image(red), 0.5) for red in (0, 13, 255))
    assert batcher.step() == 3
    assert not good.result(0).mask.any()
    assert other.result(0).mask.all()
    failure = failing.exception(0)
    assert isinstance(failure, EngineFailure)
    assert "secret" not in failure.detail
    assert "secret" in str(failure.__cause__)


def test_the_worker_outlives_failures_and_drains_at_the_end() -> None:
    engine = FakeEngine(breaks=lambda image: image[0, 0, 0] == 13)
    batcher = Batcher(engine, BOUNDS)
    batcher.start()
    assert isinstance(batcher.submit(image(13), 0.5).exception(PATIENCE), EngineFailure)
    engine.entered.clear()
    engine.gate.clear()
    replies = [batcher.submit(image(), 0.5) for _ in range(4)]
    assert engine.entered.wait(PATIENCE)
    engine.gate.set()
    batcher.close()
    assert all(reply.done() and not reply.exception() for reply in replies)
    with pytest.raises(Unavailable):
        batcher.submit(image(), 0.5)


def test_timings_come_from_the_engine() -> None:
    batcher = Batcher(FakeEngine(), BOUNDS)
    reply = batcher.submit(image(), 0.5)
    batcher.step()
    assert reply.result(0).engine_s == pytest.approx(0.003)
