"""The threads that decode and encode: away from the event loop, and never in the engine's way."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import math
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from engine import cores

S = TypeVar("S")
T = TypeVar("T")


TINY_BYTES, SMALL_BYTES = 2**22, 2**25
LANES = (TINY_BYTES, SMALL_BYTES, math.inf)
"""Bytes of memory that work takes at most, of each lane, which has threads of its own."""

BRIEF_BYTES = 2**20
"""To copy no more bytes than these takes no longer than to have a thread do it."""


class CodecThreads:
    """A pool of `count` threads for every lane, by default one a core: small work never waits for large.

    `size` is how many bytes of memory some work takes.
    """

    def __init__(self, count: int | None = None) -> None:
        count = count or cores.available()
        self._pools = [ThreadPoolExecutor(count, f"codec-{lane}", yield_to_engine) for lane in range(len(LANES))]

    def submit(self, work: Callable[[], T], size: float = math.inf) -> Future[T]:
        """The result of `work`, done in a pool."""
        return self._pools[bisect.bisect_left(LANES, size)].submit(work)

    async def run(self, work: Callable[[], T], size: float = math.inf, in_place: bool = False) -> T:
        """The same, for a coroutine that waits for it; in its own thread where it is to be done `in_place`."""
        if in_place:
            return work()
        return await asyncio.wrap_future(self.submit(work, size))

    def after(
        self, first: Future[S], work: Callable[[Future[S]], T], size: float, in_place: Callable[[], bool]
    ) -> Future[T]:
        """The result of `work(first)`, begun once `first` is done, well or not: without a detour over the event loop.

        It is done in a pool, or where `first` is well and `in_place` then says so, in the very thread that has finished
        `first`; but never in the calling thread, which is the loop's. Cancelling it cancels `first`.

        Futures keep their callbacks, and exceptions the frames that they have passed through. What leads from there
        back to a future is let go when it has been used, else all that `work` knows waits for the garbage collector.
        """
        last: Future[T] = Future()
        todo = [(work, last)]
        caller = threading.get_ident()
        waiting = weakref.ref(first)

        def begin(done: Future[S]) -> None:
            used = [done]

            def finish() -> None:
                _finish(used.pop(), *todo.pop())

            if threading.get_ident() != caller and _is_well(done) and in_place():
                finish()
            else:
                self.submit(finish, size)

        first.add_done_callback(begin)
        last.add_done_callback(lambda _: (done := waiting()) and done.cancel())
        return last

    def stop(self, wait: bool = False) -> None:
        """Take nothing more."""
        for pool in self._pools:
            pool.shutdown(wait=wait)


def _is_well(done: Future[S]) -> bool:
    return not done.cancelled() and done.exception() is None


def _finish(first: Future[S], work: Callable[[Future[S]], T], last: Future[T]) -> None:
    if last.set_running_or_notify_cancel():
        try:
            last.set_result(work(first))
        except BaseException as error:
            last.set_exception(error)
    del first, work, last


def yield_to_engine() -> None:
    """Let this thread wake without preempting another, where the system has such a class and permits it."""
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
