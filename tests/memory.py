"""Memory that some work takes at its peak, as the system sees it, in a process that does nothing else.

There every block of some size is a mapping of its own (glibc's M_MMAP_THRESHOLD, fixed), so that what is measured is
what the work asks for. By itself glibc keeps blocks of up to 32 MiB in heaps, and how these are cut when an array
comes differs from run to run by more than the smallest of what is measured.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOISE = 2**21  # bytes, of what else the process does meanwhile
OWN_MAPPING = 2**17  # bytes
CLEAR = Path("/proc/self/clear_refs")

needs_proc = pytest.mark.skipif(not CLEAR.exists(), reason="needs /proc to see its own memory")


def measured(module: str, arguments: str = "") -> dict[str, tuple[int, int]]:
    """What `measure(...)` of a module gives in a process of its own: bytes taken and bytes counted, by name."""
    program = f"import json; from {module} import measure; print(json.dumps(measure({arguments})))"
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(OWN_MAPPING), "MALLOC_TRIM_THRESHOLD_": str(OWN_MAPPING)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return {name: (took, counted) for name, (took, counted) in json.loads(done.stdout).items()}


def exceeding(found: dict[str, tuple[int, int]], share: float = 1.0) -> dict[str, tuple[int, int]]:
    """Those that took more than this share of what was counted."""
    return {name: (took, counted) for name, (took, counted) in found.items() if took > share * counted + NOISE}


def taken(work: Callable[[], object]) -> int:
    """Bytes that this process has more, at most, while it does `work`."""
    gc.collect()  # what is freed meanwhile, or free already, would hide what is taken
    ctypes.CDLL(None).malloc_trim(0)
    CLEAR.write_text("5")
    before = _most()
    work()
    return _most() - before


def resident_bytes() -> int:
    """Bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _most() -> int:
    """Bytes in memory, at most since the mark was cleared."""
    text = Path("/proc/self/status").read_text()
    line = next(line for line in text.splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])
