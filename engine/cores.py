"""How many cores a process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

OWN, ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def available(own: Path = OWN, root: Path = ROOT) -> int:
    """Those that it may run on, but no more than its control group, or one above it, has time for (docker --cpus)."""
    able = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([able, *(math.ceil(share) for share in _shares(own, root))]))


def _shares(own: Path, root: Path) -> list[float]:
    """Cores' worth of time that its control groups have, of both versions of control groups."""
    found = []
    for line in own.read_text().splitlines() if own.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "cpu" if controllers else root
        folder = top / path.lstrip("/")
        for place in (place for place in (folder, *folder.parents) if place.is_relative_to(top)):
            quota, period = _quota(place, bool(controllers))
            found += [quota / period] if quota > 0 and period > 0 else []
    return found


def _quota(place: Path, first_version: bool) -> tuple[int, int]:
    """Microseconds of computing in microseconds on the wall; 0 where there is no limit."""
    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if first_version else ("cpu.max",)
    words = [word for name in names if (place / name).exists() for word in (place / name).read_text().split()]
    quota, period = (int(word) if word.isdecimal() else 0 for word in (*words, "", "")[:2])
    return quota, period
