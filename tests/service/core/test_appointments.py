"""Those who are refused find room when they come as they were told."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable

import pytest

from service.core.appointments import MOST_S, Appointments

PLACES = 16
IMAGE_S = 0.009
LATENCY_S = (0.002, 0.02)


def retries(clients: int, again: bool, seconds: float = 30.0) -> tuple[int, int, int]:
    """(images served, tries that were made when told, those of them that were let in) of a queue before an engine.

    All clients begin at once; who is served comes again at once, or never.
    """
    rng = random.Random(0)
    appointments = Appointments(PLACES)
    waiting: deque[int] = deque()
    events: list[tuple[float, int, Callable[[float], None]]] = []
    numbers = itertools.count()
    running: list[int] = []
    served = tries = admitted = 0

    def later(time: float, event: Callable[[float], None]) -> None:
        heapq.heappush(events, (time + rng.uniform(*LATENCY_S), next(numbers), event))

    def ask(now: float, told: bool = False) -> None:
        nonlocal tries, admitted
        tries += told
        if appointments.admit(now, len(waiting), 1, PLACES * IMAGE_S):
            admitted += told
            waiting.append(0)
            run(now)
        else:
            after = appointments.make(now, 1, (len(waiting) + len(running)) * IMAGE_S, PLACES * IMAGE_S)
            later(now + after, lambda at: ask(at, told=True))

    def run(now: float) -> None:
        if waiting and not running:
            running.extend(waiting.popleft() for _ in range(min(8, len(waiting))))
            heapq.heappush(events, (now + len(running) * IMAGE_S, next(numbers), done))

    def done(now: float) -> None:
        nonlocal served
        served += len(running)
        for _ in running:
            if again:
                later(now, ask)
        running.clear()
        run(now)

    for _ in range(clients):
        later(0.0, ask)
    while events and events[0][0] < seconds:
        now, _, event = heapq.heappop(events)
        event(now)
    return served, tries, admitted


def test_a_crowd_is_served_at_the_second_try() -> None:
    served, tries, admitted = retries(100, again=False)
    assert served == 100
    assert tries == admitted > 50


@pytest.mark.parametrize("clients", [40, 100, 300])
def test_a_crowd_that_always_comes_again_is_served_at_the_second_try_and_keeps_the_engine_busy(clients: int) -> None:
    served, tries, admitted = retries(clients, again=True)
    assert admitted >= 0.9 * tries > 90
    assert served >= 0.9 * 30 / IMAGE_S


def test_nobody_is_sent_further_than_a_minute_ahead() -> None:
    appointments = Appointments(1)
    after = [appointments.make(0.0, 1, 0.0, 0.0) for _ in range(MOST_S + 10)]
    assert after == [*range(1, MOST_S), *[MOST_S] * 11]
    assert appointments.make(0.0, 1, 200.5, 0.0) == 201


def test_those_who_do_not_come_keep_their_place_for_a_second() -> None:
    appointments = Appointments(1)
    assert appointments.make(0.0, 1, 0.0, 0.0) == 1
    assert appointments.admit(0.5, 0, 1, 0.0)  # that is not the time yet
    assert not appointments.admit(0.95, 0, 1, 0.0)
    assert appointments.admit(2.1, 0, 1, 0.0)
