"""How many cores a process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

from engine import control_groups
from engine.control_groups import OWN, ROOT

TIME = ("cpu.cfs_quota_us", "cpu.cfs_period_us")  # of computing, in so much on the wall


def available(own: Path = OWN, root: Path = ROOT) -> int:
    """Those that it may run on, but no more than its control group, or one above it, has time for (docker --cpus)."""
    able = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares = control_groups.limits("cpu", TIME, "cpu.max", own, root)
    return max(1, min([able, *(math.ceil(share[0] / share[1]) for share in shares if len(share) == 2)]))
