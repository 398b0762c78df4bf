"""When those who find the queue full should come again, so that they find room then.

Retry-After is whole seconds: told the same, all would come at once, and most be refused again. So each is given a time
of his own: no more than the queue has places within what it takes to empty four queues. And who comes without having
been sent away finds the places taken that will be needed within the next one and a half. Nobody is asked who he is: an
appointment that is due is kept by the next who comes.
"""

from __future__ import annotations

import bisect
import math

SPACE = 2.0  # queues, before and after an appointment, in which there are no more than the queue has places
KEPT = 1.5  # queues, for which places are kept
GRACE_S = 1.0  # for which an appointment holds after its time
LEAST_S = 0.1  # that a queue takes, while it is not known better
MOST_S = 60  # further ahead nobody is sent


class Appointments:
    """The times at which those who were sent away come again, of a queue with so many `places`."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._times: list[float] = []  # ascending

    @property
    def any(self) -> bool:
        """Whether there are some."""
        return bool(self._times)

    def admit(self, now: float, waiting: int, images: int, queue_s: float) -> bool:
        """Whether so many images may come in, while `waiting` are there and a full queue takes `queue_s`."""
        del self._times[: bisect.bisect_left(self._times, now - GRACE_S)]
        if self._times and self._times[0] <= now:
            del self._times[0]
            kept = 0
        else:
            kept = self._between(now, now + KEPT * max(queue_s, LEAST_S))
        return waiting + kept + images <= self._places

    def make(self, now: float, images: int, drain_s: float, queue_s: float) -> int:
        """Whole seconds after which so many should come again: `drain_s` or more."""
        space = SPACE * max(queue_s, LEAST_S)
        soonest = max(1, math.ceil(drain_s))
        for seconds in range(soonest, MOST_S):
            time = now + seconds
            taken = self._between(time - space, time + space)
            if not taken or taken + images <= self._places:
                for _ in range(images):
                    bisect.insort(self._times, time)
                return seconds
        return max(soonest, MOST_S)

    def _between(self, begin: float, end: float) -> int:
        return bisect.bisect_left(self._times, end) - bisect.bisect_right(self._times, begin)
