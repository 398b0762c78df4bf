"""What the C library does with freed memory in training: it keeps it, as the next step wants blocks of the same sizes.

By itself glibc gives every block of more than 32 MiB back, and what is free at the heap's end too. Every page that is
asked for again has to be cleared first: half of the time of a step of bits on a CPU.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
NEVER = -1  # as a threshold of trimming


def keep() -> None:
    """From now on, in this process, where the C library can."""
    change = getattr(ctypes.CDLL(None), "mallopt", None)
    if change:
        change(M_MMAP_MAX, 0)  # no block has pages of its own
        change(M_TRIM_THRESHOLD, NEVER)
