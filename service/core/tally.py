"""A number that several add to, and that may not pass a limit."""

from __future__ import annotations

import math
import threading


class Tally:
    """The number of one process. (Of several: `service.processes.table`.) `own` is the part of this process."""

    def __init__(self) -> None:
        self.own = 0
        self._lock = threading.Lock()

    @property
    def total(self) -> int:
        """The parts of all."""
        return self.own

    def add(self, by: int, most: float = math.inf) -> bool:
        """Whether so many more, or fewer, are there now: not where they would be more than `most` in all."""
        with self._lock:
            if by > 0 and self.total + by > most:
                return False
            self.own += by
            return True
