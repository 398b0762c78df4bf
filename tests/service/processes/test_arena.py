"""The shared memory of a front end: parts come and go with the arrays that look into them."""

from __future__ import annotations

import itertools
import os
import random
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import pytest

from service.processes import arena as module
from service.processes import memory
from service.processes.arena import KEPT, Arena, NoPart, part_of

PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def arena() -> Arena:
    return Arena(16 * PAGE)


def test_a_part_is_free_when_no_array_looks_into_it(arena: Arena) -> None:
    image = arena.take(100).array((2, 5, 10))
    corner = image[1:, ::2].T
    assert arena.used == PAGE
    del image
    assert arena.used == PAGE
    del corner
    assert arena.used == 0


def test_what_does_not_fit_is_refused_and_takes_nothing(arena: Arena) -> None:
    held = [arena.take(8 * PAGE), arena.take(7 * PAGE)]
    with pytest.raises(NoPart):
        arena.take(PAGE + 1)
    assert arena.used == 15 * PAGE
    del held
    assert arena.take(16 * PAGE).offset == 0  # one range again


def test_parts_never_overlap_and_all_comes_back(arena: Arena) -> None:
    rng = random.Random(0)
    held: dict[int, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] = {}
    for turn in range(2000):
        if rng.random() < 0.5 and held:
            number = rng.choice(list(held))
            assert (held.pop(number) == number % 251).all()
        else:
            try:
                held[turn] = arena.take(rng.randrange(1, 5 * PAGE)).array((rng.randrange(1, 99),))
            except NoPart:
                continue
            held[turn][:] = turn % 251
    assert all((array == number % 251).all() for number, array in held.items())
    held.clear()
    assert arena.take(16 * PAGE).offset == 0


def interrupted(work: Callable[[], None], moment: int, by: Callable[[], None]) -> None:
    """Do `work`, and `by` in the middle of it: after so many steps of the arena's own code."""
    steps, before = itertools.count(), sys.gettrace()

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename != module.__file__:
            return None
        frame.f_trace_opcodes = True
        if next(steps) == moment:
            by()
        return trace

    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)


def test_the_garbage_collector_may_free_a_part_in_the_middle_of_anything(arena: Arena) -> None:
    def work() -> None:
        del parts[1::2]
        parts.extend([arena.take(2 * PAGE), arena.take(PAGE)])
        del parts[0]

    for moment in itertools.count():
        parts = [arena.take(PAGE) for _ in range(8)]
        garbage = [parts.pop(3)]
        interrupted(work, moment, garbage.clear)
        taken = sorted((part.offset, part.offset + part.size) for part in parts + garbage)
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(taken))
        assert arena.used == sum(end - begin for begin, end in taken)
        if garbage:  # the work was done before
            break
        parts.clear()
        assert arena.take(16 * PAGE).offset == 0
    assert moment > 100


def test_the_part_of_an_array_is_known_only_where_it_begins_there(arena: Arena) -> None:
    part = arena.take(PAGE)
    image = part.array((8, 8, 3))
    assert part_of(image, arena) is part
    assert part_of(image[:4], arena) is part
    others: list[Callable[[], object]] = [
        lambda: part_of(image[1:], arena),
        lambda: part_of(image[:, :4], arena),
        lambda: part_of(image, Arena(PAGE)),
        lambda: part_of(image.copy(), arena),
    ]
    assert not any(other() for other in others)


def test_what_was_large_is_given_back_to_the_system() -> None:
    arena = Arena(2 * KEPT)
    part = arena.take(KEPT + 64 * PAGE)
    part.array((part.size,))[:] = 1
    blocks = os.fstat(arena.descriptor).st_blocks
    del part
    assert os.fstat(arena.descriptor).st_blocks <= blocks - 64 * PAGE // 512
    assert arena.used == 0


def test_memory_whose_size_may_change_is_not_mapped() -> None:
    descriptor = os.memfd_create("test")
    os.ftruncate(descriptor, PAGE)
    with pytest.raises(ValueError, match="may change"):
        memory.adopt(descriptor)
    with pytest.raises(OSError, match=r"."):  # it is closed all the same
        os.fstat(descriptor)


def test_its_own_memory_can_not_shrink(arena: Arena) -> None:
    with pytest.raises(PermissionError):
        os.ftruncate(arena.descriptor, PAGE)
