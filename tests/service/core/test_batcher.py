"""The queue before the engines, with a clock that is set by hand and, mostly, no thread at all."""

from __future__ import annotations

import math
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from service.codec.encoders import ENCODERS
from service.codec.pixels import Fitted, Pixels
from service.core.batcher import Batcher, QueueLimits
from service.core.params import SegmentParams
from service.core.queue import InferenceResult
from service.problems import DeadlinePassed, EngineFailure, QueueFull, Unavailable
from tests.service.fakes import PATIENCE, FakeEngine

BOUNDS = QueueLimits(queue_images=5, batch_images=3, batch_pixels=3 * 256)
WIDE = QueueLimits(queue_images=99, batch_images=9, batch_pixels=10**8)


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


def image(red: int = 0, side: int = 16) -> Fitted:
    return np.full((side, side, 3), red, np.uint8)


@dataclass
class Bench:
    """A batcher with its engine and clock, and the short way to submit."""

    bounds: QueueLimits = BOUNDS
    engine: FakeEngine = field(default_factory=FakeEngine)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.batcher = Batcher(self.bounds, self.clock)

    def submit(
        self, red: int = 0, side: int = 16, threshold: float = 0.5, deadline: float = math.inf, **params: Any
    ) -> Future[InferenceResult]:
        return self.batcher.submit(image(red, side), self.params(threshold, **params), deadline)

    def params(self, threshold: float = 0.5, **params: Any) -> SegmentParams:
        return SegmentParams(self.engine, threshold)._replace(**params)

    def drain(self) -> list[list[int]]:
        """Run all that waits; the sides of the images, batch by batch."""
        while self.batcher.step():
            pass
        return [[len(one) for one in batch] for batch in self.engine.batches]


def top(reply: Future[InferenceResult]) -> int:
    mask = reply.result(0).mask
    assert mask is not None
    return int(mask.max())


# -- batches -------------------------------------------------------------------------------------------------------


def test_takes_what_waits_in_batches_and_in_order() -> None:
    bench = Bench()
    replies = [bench.submit(red) for red in (0, 255, 0, 255, 0)]
    assert [bench.batcher.step() for _ in range(3)] == [3, 2, 0]
    assert [top(reply) for reply in replies] == [0, 1, 0, 1, 0]


def test_thresholds_belong_to_their_images() -> None:
    bench = Bench()
    replies = [bench.submit(100, threshold=threshold) for threshold in (0.3, 0.5)]
    assert bench.batcher.step() == 2
    assert [top(reply) for reply in replies] == [1, 0]


def test_a_batch_holds_one_padded_shape_of_all_that_wait() -> None:
    bench = Bench(WIDE)
    for side in (16, 40, 10, 48, 9):
        bench.submit(side=side)
    assert bench.drain() == [[16, 10, 9], [40, 48]]


def test_a_batch_is_bounded_by_pixels_and_a_large_image_runs_alone() -> None:
    bench = Bench(replace(WIDE, batch_pixels=600))
    for side in (16, 16, 16, 100, 16):
        bench.submit(side=side)
    assert bench.drain() == [[16, 16], [100], [16, 16]]


def test_the_smaller_overtakes_the_larger_but_no_longer_than_that_takes() -> None:
    bench = Bench(replace(WIDE, batch_images=1))
    for side in (64, 32, 16):
        bench.submit(side=side)
    assert bench.drain() == [[16], [32], [64]]
    bench = Bench(replace(WIDE, batch_images=1))
    bench.submit(side=64)
    for _ in range(64**2 // 16**2 + 3):  # one that is smaller comes before every turn
        bench.submit(side=16)
        bench.batcher.step()
    assert bench.drain() == [[16]] * 15 + [[64]] + [[16]] * 4


def test_models_and_kinds_of_answers_do_not_mix() -> None:
    bench, other = Bench(WIDE), FakeEngine()
    mask, elsewhere = bench.submit(255), bench.submit(255, engine=other)
    logits = [bench.submit(red, encoder=ENCODERS["probability"]) for red in (255, 0)]
    assert [bench.batcher.step() for _ in range(4)] == [1, 1, 2, 0]
    for result, expected in zip(logits, (1000, -1000), strict=True):
        some = result.result(0)
        assert some.logits is not None
        assert (top(result), some.logits.shape, some.logits.max()) == (int(expected > 0), (16, 16, 1), expected)
    assert top(mask) == top(elsewhere) == 1
    assert len(other.batches) == 1


def test_no_shape_starves_under_a_stream_of_another() -> None:
    bench = Bench(replace(WIDE, batch_images=2))
    rare = bench.submit(side=40)  # 48 x 48 pixels are computed: more go no longer ahead
    for _ in range(48**2 // (2 * 16**2) + 1):
        bench.submit()
        bench.submit()
        bench.batcher.step()
        bench.clock.now += 1
    assert rare.done()


def test_low_priority_waits_for_others_but_not_for_ever() -> None:
    bench = Bench(replace(WIDE, batch_images=1))
    low = [bench.submit(low_priority=True) for _ in range(2)]
    for _ in range(10):
        bench.submit()
    served = []
    while bench.batcher.step():
        served.append(sum(one.done() for one in low))
    assert served == [0, 1, 1, 1, 1, 1, 2, *[2] * 5]  # one in five


# -- large images --------------------------------------------------------------------------------------------------


def large_and_small() -> Bench:
    """An image of 64 x 64 pixels is large, and runs in 16 windows of as many as four small ones have."""
    return Bench(replace(WIDE, batch_images=1, batch_pixels=1024), FakeEngine(turn_pixels=256))


def test_small_images_get_in_between_two_windows() -> None:
    bench = large_and_small()
    large = bench.submit(255, side=64)
    for _ in range(3):
        bench.batcher.step()
    small = bench.submit()
    bench.batcher.step()
    assert small.done()
    assert not large.done()
    assert bench.drain() == [[64]] * 3 + [[16]] + [[64]] * 13
    assert top(large) == 1


def test_many_small_images_leave_a_large_one_its_share() -> None:
    bench = large_and_small()
    large = bench.submit(side=64)
    turns = 0
    while not large.done():
        bench.submit()
        turns += bench.batcher.step()
    assert turns == 32  # half of the pixels


def test_large_images_run_one_after_the_other() -> None:
    bench = large_and_small()
    first, second = (bench.submit(side=64) for _ in range(2))
    for _ in range(16):
        bench.batcher.step()
    assert (first.done(), second.done()) == (True, False)


def test_a_large_image_whose_client_leaves_or_whose_deadline_passes_is_given_up_between_windows() -> None:
    bench = large_and_small()
    gone, late = bench.submit(side=64), bench.submit(side=80, deadline=101)
    bench.batcher.step()
    assert gone.cancel()
    bench.batcher.step()
    bench.clock.now = 102
    assert bench.batcher.step() == 0
    assert isinstance(late.exception(0), DeadlinePassed)
    assert bench.drain() == [[64], [80]]


def test_small_images_are_never_refused_for_the_pixels_of_others() -> None:
    bench = Bench(QueueLimits(3, 1, 256))
    for _ in range(2):
        bench.submit(side=4096)
    bench.batcher.require_room()
    bench.submit()
    with pytest.raises(QueueFull):
        bench.submit()


# -- waiting for company -------------------------------------------------------------------------------------------


def test_by_default_nothing_waits_for_company() -> None:
    bench = Bench()
    assert bench.batcher.seconds_until_due() == math.inf
    bench.submit()
    assert bench.batcher.seconds_until_due() == 0


def test_with_a_delay_the_oldest_waits_until_it_is_over_or_the_batch_is_full() -> None:
    bench = Bench(replace(BOUNDS, max_delay_s=2.0))
    bench.submit()
    bench.clock.now += 0.5
    bench.submit()
    assert bench.batcher.seconds_until_due() == 1.5
    bench.submit()
    assert bench.batcher.seconds_until_due() == 0
    bench.batcher.step()
    bench.submit(low_priority=True)
    bench.clock.now += 3
    assert bench.batcher.seconds_until_due() == 0


# -- refusals ------------------------------------------------------------------------------------------------------


def test_a_full_queue_refuses_with_the_measured_time() -> None:
    clock = Clock()
    bench = Bench(QueueLimits(2, 1, 256), FakeEngine(breaks=lambda image: clock.pass_by(7)), clock)
    bench.submit()
    bench.batcher.step()  # 7 seconds for one image of this size
    for _ in range(2):
        bench.submit()
    with pytest.raises(QueueFull) as caught:
        bench.submit()
    assert caught.value.headers == {"Retry-After": "14"}
    bench.batcher.step()
    bench.submit()


def test_an_unmeasured_queue_says_one_second() -> None:
    bench = Bench(QueueLimits(1, 1, 256))
    bench.submit()
    with pytest.raises(QueueFull) as caught:
        bench.batcher.require_room()
    assert caught.value.headers == {"Retry-After": "1"}


def test_many_are_admitted_whole_or_not_at_all() -> None:
    bench = Bench()
    bench.submit()
    with pytest.raises(QueueFull):
        bench.batcher.submit_all([image()] * 5, bench.params())
    assert bench.batcher.waiting == 1
    replies = bench.batcher.submit_all([image()] * 4, bench.params())
    bench.drain()
    assert all(reply.done() for reply in replies)


def test_the_cancelled_neither_run_nor_hold_a_place() -> None:
    bench = Bench(QueueLimits(2, 2, 10**6))
    gone, stays = bench.submit(), bench.submit(255)
    assert gone.cancel()
    bench.batcher.require_room()
    later = bench.submit()
    assert bench.batcher.step() == 2
    assert len(bench.engine.batches[0]) == 2
    assert top(stays) == 1
    assert later.done()


def test_the_late_get_their_problem_and_do_not_run() -> None:
    bench = Bench()
    late, timely = bench.submit(deadline=101), bench.submit(deadline=103)
    bench.clock.now = 102
    assert bench.batcher.step() == 1
    assert isinstance(late.exception(0), DeadlinePassed)
    assert timely.result(0).queue_s == 2


# -- failures ------------------------------------------------------------------------------------------------------


def test_one_bad_image_does_not_harm_its_batch() -> None:
    bench = Bench(engine=FakeEngine(breaks=lambda image: image[0, 0, 0] == 13))
    good, failing, other = (bench.submit(red) for red in (0, 13, 255))
    assert bench.batcher.step() == 3
    assert (top(good), top(other)) == (0, 1)
    failure = failing.exception(0)
    assert isinstance(failure, EngineFailure)
    assert "secret" not in failure.detail
    assert "secret" in str(failure.__cause__)


def test_an_engine_that_would_end_its_thread_only_fails_its_image() -> None:
    def leave(image: Pixels) -> bool:
        raise SystemExit

    bench = Bench(engine=FakeEngine(breaks=leave))
    bench.batcher.start()
    for _ in range(2):
        assert isinstance(bench.submit().exception(PATIENCE), EngineFailure)
    assert bench.batcher.works
    assert bench.batcher.close()


def test_when_the_thread_of_the_engines_ends_nothing_waits_for_it() -> None:
    def broken(images: int, seconds: float) -> None:
        raise SystemExit

    bench = Bench()
    bench.batcher = Batcher(WIDE, bench.clock, broken)
    waiting = [bench.submit(side=side) for side in (16, 40)]
    bench.batcher.start()
    assert waiting[0].result(PATIENCE)
    assert isinstance(waiting[1].exception(PATIENCE), Unavailable)
    assert not bench.batcher.works
    with pytest.raises(Unavailable):
        bench.submit()


def test_a_run_that_hangs_shows_and_does_not_hold_up_the_end() -> None:
    bench = Bench()
    bench.engine.gate.clear()
    bench.batcher.start()
    assert bench.batcher.running_s == 0
    hanging = bench.submit()
    assert bench.engine.entered.wait(PATIENCE)
    waiting = bench.submit()
    bench.clock.now += 70
    assert bench.batcher.running_s == 70
    assert not bench.batcher.close(timeout_s=0)
    assert isinstance(waiting.exception(0), Unavailable)
    bench.engine.gate.set()
    assert hanging.result(PATIENCE)


def test_the_worker_outlives_failures_and_drains_at_the_end() -> None:
    bench = Bench(engine=FakeEngine(breaks=lambda image: image[0, 0, 0] == 13))
    bench.batcher.start()
    assert isinstance(bench.submit(13).exception(PATIENCE), EngineFailure)
    bench.engine.entered.clear()
    bench.engine.gate.clear()
    replies = [bench.submit() for _ in range(4)]
    assert bench.engine.entered.wait(PATIENCE)
    bench.engine.gate.set()
    assert bench.batcher.close()
    assert all(reply.done() and not reply.exception() for reply in replies)
    with pytest.raises(Unavailable):
        bench.submit()


def test_timings_come_from_the_engine_and_batches_are_observed() -> None:
    observed: list[tuple[int, float]] = []
    clock = Clock()
    engine = FakeEngine(breaks=lambda image: clock.pass_by(7))
    batcher = Batcher(BOUNDS, clock, lambda images, seconds: observed.append((images, seconds)))
    replies = batcher.submit_all([image(), image()], SegmentParams(engine, 0.5))
    batcher.step()
    assert replies[0].result(0).engine_s == pytest.approx(0.003)
    assert observed == [(2, 14)]


def test_every_turn_is_observed_also_of_what_nobody_waits_for_any_more() -> None:
    observed: list[tuple[int, float]] = []
    clock = Clock()
    engine = FakeEngine(turn_pixels=256, breaks=lambda image: clock.pass_by(7))
    batcher = Batcher(BOUNDS, clock, lambda images, seconds: observed.append((images, seconds)))
    for deadline, turns in ((math.inf, 4), (clock.now + 40, 2)):
        large = batcher.submit(image(side=32), SegmentParams(engine, 0.5), deadline)
        assert [batcher.step() for _ in range(turns)] == [1] * turns
        assert batcher.step() == 0
    assert isinstance(large.exception(0), DeadlinePassed)
    assert observed == [(0, 7), (0, 7), (0, 7), (1, 7), (0, 7), (0, 7)]
    assert batcher.finished == 1
