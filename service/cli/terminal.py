"""What the command line draws: a progress bar on stderr and tables of text."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

BAR = 30  # characters


def progress(items: Iterable[T], unit: str) -> Iterator[T]:
    """The same items, with a bar and a rate on stderr; where that is no terminal, only the last line."""
    total, started = len(items) if isinstance(items, Sized) else 0, time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        if done == total or sys.stderr.isatty():
            filled = BAR * done // total if total else 0
            rate = done / max(time.monotonic() - started, 1e-9)
            line = f"{'#' * filled:.<{BAR}} {done}/{total} {unit}s, {rate:.1f}/s"
            print(line, end="\n" if done == total else "\r", file=sys.stderr, flush=True)


def seconds_since_start() -> float:
    """How long this process has been there: starting Python and what is imported takes seconds too."""
    ticks = float(Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """`rows` as columns, as wide as they must be, under the keys of the first."""
    if not rows:
        return "(nothing)"
    lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join("  ".join(line).rstrip() for line in padded)
