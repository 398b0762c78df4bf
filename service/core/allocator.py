"""What the C library does with freed memory: large blocks go back to the system at once.

By itself glibc learns to keep blocks of up to 32 MiB, in an arena for every thread. Among what images of many sizes
leave there no gap fits the next, so that a process takes more than its requests were counted for.
"""

from __future__ import annotations

import ctypes

LARGE = 2**22  # bytes: from there on numpy asks for huge pages, of which there are few to be cleared again
KEPT = 2**25  # bytes that are free at the end of an arena and stay there: what sixteen requests hold by turns
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def give_large_back() -> None:
    """From now on, in this process, where the C library can."""
    change = getattr(ctypes.CDLL(None), "mallopt", None)
    if change:
        change(M_MMAP_THRESHOLD, LARGE)
        change(M_TRIM_THRESHOLD, KEPT)  # free memory at an arena's end; by itself it keeps twice the other, too


def trim() -> None:
    """Give all free memory back to the system, where the C library can."""
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release:
        release(0)
