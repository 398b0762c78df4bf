"""What a pool's threads leave behind."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from service.core.threads import CodecThreads
from service.problems import Unavailable, let_go
from tests.service.fakes import PATIENCE


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("in_place", [False, True])
def test_what_failed_is_gone_when_its_error_is_let_go(without_collector: None, in_place: bool) -> None:
    """Though work has raised it once more: who waits for a failed future would else keep all that work knew."""
    threads = CodecThreads(1)

    def fail() -> weakref.ref[Future[int]]:
        first: Future[int] = Future()
        last = threads.after(first, lambda done: done.result(), math.inf, in_place=lambda: in_place)
        given = [first]
        threads.submit(lambda: given.pop().set_exception(Unavailable("gone"))).result(PATIENCE)
        let_go(last.exception(PATIENCE))
        return weakref.ref(first)

    failed = fail()
    threads.stop(wait=True)  # so that its threads have left the frames too
    assert failed() is None
