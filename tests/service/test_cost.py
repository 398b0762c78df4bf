"""What one request can cost by the clock: `make test-cost`, on a machine that does nothing else.

The search changes costly files at random, keeps what costs more, and goes on for COST_SEARCH_S seconds. It says what it
has found.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest

from engine.images import ImageError
from service.codec.encoders import ENCODERS, Result
from service.problems import Problem
from service.settings import Settings
from tests.engine.images import test_claims
from tests.service.codec import test_memory
from tests.service.fakes import fake_model

pytestmark = pytest.mark.slow

CPU_S = 3.0
HELD_S = 0.05  # by one call that lets nobody else run
SIDE = 5776  # its square is nearly as many pixels as are taken
SEARCH_S = float(os.environ.get("COST_SEARCH_S", "60"))
LIMIT = Settings().max_pixels


@contextlib.contextmanager
def watched() -> Iterator[list[float]]:
    """The longest time for which another thread could not run, once it is over."""
    longest, stop = [0.0], threading.Event()

    def watch() -> None:
        last = time.perf_counter()
        while not stop.wait(0.001):
            now = time.perf_counter()
            longest[0] = max(longest[0], now - last - 0.001)
            last = now

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield longest
    finally:
        stop.set()
        thread.join()


def cpu_s(work: Callable[[], object]) -> float:
    """Seconds of this process; refusals count as well."""
    started = time.process_time()
    with contextlib.suppress(ImageError, Problem):
        work()
    return time.process_time() - started


@pytest.mark.parametrize("name", test_claims.corpus(16))
def test_decoding(name: str) -> None:
    file = test_claims.corpus(SIDE)[name]
    data = file.make()
    assert cpu_s(lambda: file.decode(data, LIMIT)) <= CPU_S


@pytest.mark.parametrize("mask", ["checkers", "dots", "lines", "noise"])
@pytest.mark.parametrize("name", sorted(set(ENCODERS) - {"objects"}))  # which so far has no bound but the deadline
def test_encoding(name: str, mask: str) -> None:
    for classes in (1, 6):
        for side in (SIDE, 1000):  # where polygons are refused, and where they are not
            rng = np.random.default_rng(0)
            image = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            logits = np.zeros((side, side, classes), np.int32)
            result = Result(fake_model(classes), image, test_memory.masks(classes, side)[mask], logits)
            with watched() as held:
                assert cpu_s(partial(encode, name, result)) <= CPU_S
            assert held[0] <= HELD_S


def encode(name: str, result: Result) -> None:
    for _ in ENCODERS[name].encode(result):
        pass


def test_a_search_finds_no_file_that_costs_more() -> None:
    rng = np.random.default_rng(0)
    pool = [(0.0, file.make(), file) for file in test_claims.corpus(1024).values()]
    end = time.monotonic() + SEARCH_S
    tried = 0
    while time.monotonic() < end:
        _, data, file = pool[rng.integers(len(pool))]
        changed = mutated(data, rng)
        pool.append((cpu_s(partial(file.decode, changed, LIMIT)), changed, file))
        pool = sorted(pool, key=lambda entry: -entry[0])[:64]
        tried += 1
    print(f"{tried} files; the worst took {pool[0][0]:.2f} s of CPU: {len(pool[0][1])} bytes")
    assert pool[0][0] <= CPU_S


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, often to extremes, or a stretch of the file repeated many times."""
    body = bytearray(data)
    for place in rng.integers(0, min(len(body), 4096), rng.integers(1, 5)):
        body[place] = int(rng.choice([0, 1, 127, 128, 255]))
    if rng.random() < 0.3:
        start, stop = sorted(rng.integers(0, min(len(body), 4096), 2))
        body[start:start] = bytes(body[start:stop]) * int(rng.integers(1, 1 << rng.integers(1, 16)))
    return bytes(body[: Settings().max_body_bytes])
