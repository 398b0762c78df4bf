"""The memory of all requests together."""

from __future__ import annotations

import threading

import pytest

from engine import control_groups
from service.core import budget
from service.core.budget import Budget
from service.problems import MemoryFull, TooCostly

SIZE = 3200  # a hundred is small


def test_large_requests_leave_a_quarter_for_small_ones() -> None:
    held = Budget(SIZE, after=lambda: 7)
    with held.holding() as first, held.holding() as second, held.holding() as small:
        first.grow(2000)
        with pytest.raises(MemoryFull) as caught:
            second.grow(401)
        assert caught.value.headers == {"Retry-After": "7"}
        second.grow(400)
        small.grow(100)
        others = [held.holding() for _ in range(7)]
        for other in others:
            other.grow(100)
        with pytest.raises(MemoryFull):
            held.holding().grow(1)
        assert held.held == SIZE


def test_what_can_never_fit_says_so() -> None:
    with Budget(SIZE).holding() as holding:
        holding.grow(2400)
        with pytest.raises(TooCostly) as caught:
            holding.grow(1)
        assert caught.value.extra == {"limit": 2400}


def test_a_holding_is_free_when_the_last_who_works_for_it_leaves() -> None:
    held = Budget(SIZE)
    holding = held.holding()
    with holding:
        with holding:
            holding.grow(10)
        assert held.held == 10
        holding.require(5)
        assert held.held == 10
        holding.require(20)
        assert held.held == 20
        holding.hold(3)
        assert held.held == 3
    assert held.held == 0


def test_less_is_never_refused() -> None:
    held = Budget(SIZE)
    with held.holding() as first, held.holding() as second:
        first.grow(2400)
        second.grow(100)
        second.hold(90)
        first.hold(1000)
        assert held.held == 1090


def test_after_a_load_that_was_worth_it_memory_is_given_back() -> None:
    idle: list[int] = []
    held = Budget(10 * budget.TRIM_BYTES, idle=lambda: idle.append(held.held))
    for size in (budget.TRIM_BYTES - 1, budget.TRIM_BYTES, 1):
        with held.holding() as first, held.holding() as second:
            first.grow(size // 2)
            second.grow(size - size // 2)
    assert idle == [0]


def test_many_threads_never_hold_more_than_there_is() -> None:
    held = Budget(SIZE)
    most = []

    def work() -> None:
        for size in range(1, 400):
            with held.holding() as holding:
                try:
                    holding.grow(size * 7)
                except (MemoryFull, TooCostly):
                    continue
                most.append(held.held)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert held.held == 0
    assert 0 < max(most) <= SIZE


@pytest.mark.parametrize("limits", [[], [2**20], [2**60]])
def test_by_default_it_is_half_of_what_the_process_may_use(monkeypatch: pytest.MonkeyPatch, limits: list[int]) -> None:
    assert 0 < budget.default_size() <= budget._machine() // 2
    monkeypatch.setattr(control_groups, "limits", lambda *_: [[limit] for limit in limits])
    assert budget.default_size() == min([budget._machine(), *limits]) // 2
