"""How many threads torch should use now: all cores, or on a machine that others use too, one.

Threads of one convolution wait for each other. Where another process holds a core, they wait for it, and a step takes
ten times as long as one thread alone would need.
"""

from __future__ import annotations

import os
import time

import torch
from torch.nn import functional

TRIES = 10


def choose() -> int:
    """Let torch use as many threads as are fastest at this moment, and return how many."""
    times = {count: _seconds(count) for count in (1, len(os.sched_getaffinity(0)))}
    best = min(times, key=lambda count: times[count])
    torch.set_num_threads(best)
    return best


@torch.no_grad()
def _seconds(count: int) -> float:
    """What some convolutions take with `count` threads."""
    torch.set_num_threads(count)
    pixels, weights = torch.zeros(4, 32, 96, 96), torch.zeros(32, 32, 3, 3)
    functional.conv2d(pixels, weights)
    started = time.perf_counter()
    for _ in range(TRIES):
        functional.conv2d(pixels, weights)
    return time.perf_counter() - started
