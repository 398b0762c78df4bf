"""Batches made ahead of their use: in a thread, or by processes. The same ones either way, in the same order."""

from __future__ import annotations

import ctypes
import mmap
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import islice
from multiprocessing import get_context

import numpy as np

from engine.train.data.samples import Loaded, Pixels, Sampler, Seed

DEPTH = 8  # batches ahead, in a thread
DEPTH_OF_EACH = 2  # batches ahead, of each process
PR_SET_PDEATHSIG = 1  # of Linux's prctl


def prefetch(sampler: Sampler, seeds: Iterable[Seed], workers: int = 0) -> Iterator[Loaded]:
    """The batch of each of `seeds`, made ahead by so many processes, or in a thread; an error there is raised here."""
    return by_processes(sampler, iter(seeds), workers) if workers else by_thread(sampler, iter(seeds))


def by_thread(sampler: Sampler, seeds: Iterator[Seed]) -> Iterator[Loaded]:
    """`prefetch` in one thread."""
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(sampler, seed) for seed in islice(seeds, DEPTH))
        while waiting:
            batch = waiting.popleft().result()
            waiting.extend(pool.submit(sampler, seed) for seed in islice(seeds, 1))
            yield batch


def by_processes(sampler: Sampler, seeds: Iterator[Seed], workers: int) -> Iterator[Loaded]:
    """`prefetch` by processes, forked: they share the images with this one, and write batches where it reads them."""
    slots = Slots(sampler, DEPTH_OF_EACH * workers)
    pool = ProcessPoolExecutor(workers, get_context("fork"), _begin, (sampler, slots))
    try:
        waiting = deque((i, pool.submit(_fill, i, seed)) for i, seed in enumerate(islice(seeds, slots.count)))
        while waiting:
            i, filled = waiting.popleft()
            filled.result()
            batch = slots.copy(i)
            waiting.extend((i, pool.submit(_fill, i, seed)) for seed in islice(seeds, 1))
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)


class Slots:
    """Memory for `count` batches that processes share with those they are forked from; it has no name and no file."""

    def __init__(self, sampler: Sampler, count: int) -> None:
        self.count = count
        self._pixels = _shared((count, sampler.batch, 3, sampler.side, sampler.side))
        self._labels = _shared((count, sampler.batch, sampler.side, sampler.side))

    def fill(self, i: int, batch: Loaded) -> None:
        """Write a batch."""
        self._pixels[i], self._labels[i] = batch

    def copy(self, i: int) -> Loaded:
        """A batch that has been written."""
        return self._pixels[i].copy(), self._labels[i].copy()


def _shared(shape: tuple[int, ...]) -> Pixels:
    return np.frombuffer(mmap.mmap(-1, int(np.prod(shape))), np.uint8).reshape(shape)


_own: tuple[Sampler, Slots]
"""What a process makes batches of, and where it writes them."""


def _begin(sampler: Sampler, slots: Slots) -> None:
    global _own
    _own = sampler, slots
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: whoever reads the batches decides
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # nobody reads them any more


def _fill(i: int, seed: Seed) -> None:
    sampler, slots = _own
    slots.fill(i, sampler(seed))
