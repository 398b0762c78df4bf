"""How far a run is: by the samples it has seen, or by the clock."""

from __future__ import annotations

import time
from collections.abc import Callable

from engine.train.config import Config

Clock = Callable[[], float]
"""Seconds since whenever."""


class Pace:
    """Progress of a run from 0 to 1: the share of its steps that it has done, or of its minutes that are gone.

    By the clock every step is worth its own seconds' share of what is left, so progress has no jumps and reaches 1 in
    time on a machine that becomes slower or faster meanwhile. `tail` are the seconds to keep for what follows the
    last step. `spent` are the seconds of the run so far, those before an interruption with them.
    """

    def __init__(self, config: Config, clock: Clock = time.monotonic) -> None:
        self.by_clock = 0.0
        self.spent = 0.0
        self.tail = 0.0
        self._config = config
        self._clock = clock
        self._since = clock()

    def progress(self, step: int) -> float:
        """How far a run is that has done `step` steps; 1 where nothing of the budget is left."""
        return self.by_clock if self._config.minutes else step / self._config.steps

    def now(self) -> float:
        """The clock's seconds."""
        return self._clock()

    def resume(self, by_clock: float, spent: float) -> None:
        """Go on from what a checkpoint says; the time between is not counted."""
        self.by_clock, self.spent, self._since = by_clock, spent, self._clock()

    def advance(self) -> float:
        """Count the time since the last call; returns its seconds."""
        now = self._clock()
        took, self._since = now - self._since, now
        left = 60 * self._config.minutes - self.tail - self.spent
        self.spent += took
        self.by_clock = self.by_clock + (1 - self.by_clock) * took / left if took < left else 1.0
        return took
