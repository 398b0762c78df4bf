"""The same batches, whoever makes them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest

from engine.train.data import augment, prefetch, samples

ROOT = Path(__file__).parents[4]


def sampler() -> samples.Sampler:
    rng = np.random.default_rng(0)
    sizes = ((40, 48), (33, 37), (64, 40))
    loaded = [(rng.integers(0, 256, (*size, 3), np.uint8), rng.integers(0, 2, size, np.uint8)) for size in sizes]
    return samples.Sampler(loaded, 3, 16, augment.crop, foreground=0.5)


def seeds(first: int = 0) -> Iterator[samples.Seed]:
    return ((5, step) for step in count(first))


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_the_batches_are_the_same_whatever_makes_them_and_wherever_it_begins(workers: int) -> None:
    make = sampler()
    expected = [make(seed) for seed in islice(seeds(), 20)]
    for first in (0, 7):
        found = list(prefetch.prefetch(make, islice(seeds(first), 20 - first), workers))
        assert len(found) == 20 - first
        for (pixels, labels), (own, theirs) in zip(found, expected[first:], strict=True):
            np.testing.assert_array_equal(pixels, own)
            np.testing.assert_array_equal(labels, theirs)


@pytest.mark.parametrize("workers", [0, 2])
def test_whoever_wants_no_more_ends_what_makes_them(workers: int) -> None:
    batches = prefetch.prefetch(sampler(), seeds(), workers)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    with pytest.raises(StopIteration):
        next(batches)


class Broken(samples.Sampler):
    def __call__(self, seed: samples.Seed) -> samples.Loaded:
        if seed[1] == 3:
            raise OSError("no such crop")
        return super().__call__(seed)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_is_raised_where_the_batch_is_asked_for(workers: int) -> None:
    noise = np.zeros((20, 20, 3), np.uint8)
    batches = prefetch.prefetch(Broken([(noise, noise[..., 0])], 1, 16, augment.window), seeds(), workers)
    assert len(list(islice(batches, 3))) == 3
    with pytest.raises(OSError, match="no such crop"):
        next(batches)


LEFT_ALONE = """
import os, signal
from tests.engine.train.data.test_prefetch import sampler, seeds
from engine.train.data import prefetch, samples
make = sampler()
batches = prefetch.prefetch(make, seeds(), 2)
next(batches)
signal.signal(signal.SIGINT, lambda *_: None)
os.killpg(0, signal.SIGINT)
for _ in range(10):
    next(batches)
print("goes on", flush=True)
os.kill(os.getpid(), 9)
"""


def test_processes_leave_ctrl_c_to_the_run_and_end_when_it_is_killed() -> None:
    """Ctrl-C reaches all of them, as a terminal sends it; whoever holds the pipe's other end is gone at its end."""
    code = [sys.executable, "-c", LEFT_ALONE]
    done = subprocess.run(code, stdout=subprocess.PIPE, text=True, timeout=60, start_new_session=True, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.rstrip().splitlines().count("goes on") == 1
