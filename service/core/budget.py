"""Bytes of memory for all requests together, counted before they are allocated.

What a request holds is a `Holding`: the bytes of its body as they arrive, then what decoding, running and encoding its
image will take at most, then its answer until the client has taken it. **Nothing is allocated that finds no room: large
requests share three quarters of the budget, and the last quarter is kept for small ones**, so that these are not
refused for what others hold.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType

from engine import control_groups
from service.core.tally import Tally
from service.problems import MemoryFull, TooCostly

SMALL = 32  # that many small requests fill the budget
LARGE_SHARE = 0.75
TRIM_BYTES = 64 << 20  # after a load of as many bytes, what it has left is given back to the system


class Budget:
    """`size` bytes. `after` says how many seconds later a refused one should come again; `idle` is called when all that
    this process held is free again, after a load that was worth it. `tally` is what several processes have in common.
    """

    def __init__(
        self,
        size: int,
        after: Callable[[], int] = lambda: 1,
        idle: Callable[[], object] = lambda: None,
        tally: Tally | None = None,
    ) -> None:
        self.size = size
        self._after = after
        self._idle = idle
        self._tally = tally or Tally()
        self._most = 0  # held by this process since it was idle

    @property
    def held(self) -> int:
        """Bytes held by all requests."""
        return self._tally.total

    def holding(self) -> Holding:
        """Nothing yet, for one request."""
        return Holding(self)

    def change(self, had: int, wanted: int) -> None:
        """One request holds `wanted` bytes in place of `had`. Raises MemoryFull, and TooCostly for what never fits."""
        most = self.size if wanted * SMALL <= self.size else int(LARGE_SHARE * self.size)
        fits = self._tally.add(wanted - had, most)
        own = self._tally.own
        self._most = max(self._most, own)
        if not own and self._most >= TRIM_BYTES:
            self._most = 0
            self._idle()
        if not fits and wanted > most:
            raise TooCostly(f"this takes {wanted} bytes of memory; the limit is {most}", limit=most)
        if not fits:
            after = {"Retry-After": str(self._after())}
            raise MemoryFull(f"this takes {wanted} bytes of memory, which others have at present", headers=after)


class Holding:
    """What one request holds. Everybody who works for it uses it as a context, and the last to leave frees it all."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._size = 0
        self._users = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Holding:
        with self._lock:
            self._users += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._change(0)

    def grow(self, size: int) -> None:
        """Hold so many bytes more. Raises MemoryFull or TooCostly."""
        with self._lock:
            self._change(self._size + size)

    def require(self, size: int) -> None:
        """Hold so many bytes at least. Raises MemoryFull or TooCostly."""
        with self._lock:
            self._change(max(self._size, size))

    def hold(self, size: int) -> None:
        """Hold so many bytes. Raises MemoryFull or TooCostly."""
        with self._lock:
            self._change(size)

    def _change(self, size: int) -> None:
        self._budget.change(self._size, size)
        self._size = size


def default_size() -> int:
    """Half of the memory that this process may use: by its control group, else of the machine."""
    limits = control_groups.limits("memory", ("memory.limit_in_bytes",), "memory.max")
    return min([_machine(), *(size for (size,) in limits)]) // 2


def _machine() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
