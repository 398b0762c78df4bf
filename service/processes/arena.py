"""The shared memory of one front end, and who has which part of it.

A part is taken for an array and is free again when no array looks into it any more, by whatever way the last one goes:
an answer, a cancellation, an error. The first part that is large enough is taken, so that those most lately used, which
caches still hold, are used again.
"""

from __future__ import annotations

import bisect
import math
import mmap
import os
import threading
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.processes import memory

KEPT = 64 << 20  # bytes at the arena's beginning that stay resident


class NoPart(MemoryError):  # noqa: N818  (as its base)
    """The arena has no part so large."""


class Part:
    """`size` bytes from `offset` on, until no array looks into them."""

    def __init__(self, arena: Arena, offset: int, size: int) -> None:
        self.arena = arena
        self.offset = offset
        self.size = size
        self.__array_interface__ = {
            "version": 3,
            "shape": (size,),
            "typestr": "|u1",
            "data": (arena.address + offset, False),
        }

    def array(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """An array at its beginning, which keeps it."""
        return np.asarray(self)[: math.prod(shape)].reshape(shape)

    def __del__(self) -> None:
        self.arena.free(self.offset, self.size)


class Arena:
    """`size` bytes, of which only those are resident that are used, and `KEPT` of those that were."""

    def __init__(self, size: int) -> None:
        self.descriptor = memory.create(-(-size // mmap.PAGESIZE) * mmap.PAGESIZE)
        self._map = memory.attach(self.descriptor)
        self._bytes = np.frombuffer(self._map, np.uint8)
        self.address: int = self._bytes.ctypes.data
        self._offsets = [0]  # of free ranges, ascending; no two touch
        self._sizes = [len(self._bytes)]
        self._freed: deque[tuple[int, int]] = deque()  # (offset, size), not yet among the free ranges
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """Bytes of all parts that are taken."""
        with self._lock:
            self._gather()
            return len(self._bytes) - sum(self._sizes)

    def take(self, size: int) -> Part:
        """A part of at least so many bytes; raises NoPart."""
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        with self._lock:
            self._gather()
            for i, free in enumerate(self._sizes):
                if free >= size:
                    offset = self._offsets[i]
                    if free == size:
                        del self._offsets[i], self._sizes[i]
                    else:
                        self._offsets[i] += size
                        self._sizes[i] -= size
                    return Part(self, offset, size)
        raise NoPart(f"{size} bytes of shared memory")

    def free(self, offset: int, size: int) -> None:
        """Nobody uses this part any more. The garbage collector may say so in the middle of anything, `take` too."""
        if offset + size > KEPT:
            begin = max(offset, KEPT)
            self._map.madvise(mmap.MADV_REMOVE, begin, offset + size - begin)
        self._freed.append((offset, size))

    def close(self) -> None:
        """Let go of the descriptor; parts that are taken stay as they are."""
        os.close(self.descriptor)

    def _gather(self) -> None:
        """Count what was freed among the free ranges."""
        while self._freed:
            offset, size = self._freed.popleft()
            i = bisect.bisect(self._offsets, offset)
            self._offsets.insert(i, offset)
            self._sizes.insert(i, size)
            self._join(i)
            if i:
                self._join(i - 1)

    def _join(self, i: int) -> None:
        """One free range of the `i`th and the next, where they touch."""
        if i + 1 < len(self._offsets) and self._offsets[i] + self._sizes[i] == self._offsets[i + 1]:
            self._sizes[i] += self._sizes[i + 1]
            del self._offsets[i + 1], self._sizes[i + 1]


def part_of(array: NDArray[Any], arena: Arena) -> Part | None:
    """The part of `arena` that holds `array` from its first byte on, gapless."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if not isinstance(owner, Part) or owner.arena is not arena or not array.flags.c_contiguous:
        return None
    return owner if array.ctypes.data == arena.address + owner.offset else None
