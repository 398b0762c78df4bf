"""Memory that a process has freed is the system's again."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

PROGRAM = """
import re
from pathlib import Path
import numpy as np
from service.core import allocator

def resident():
    return 1024 * int(re.findall(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[0])

{first}
del (learnt := [np.ones(2**24, np.uint8)])[:]  # which glibc remembers
before = resident()
blocks = [np.ones(2**23, np.uint8) for _ in range(9)]
del blocks[:8]
{last}
print(resident() - before)
"""


def left(first: str = "", last: str = "") -> int:
    """Bytes, of nine blocks of which the last is still there."""
    command = [sys.executable, "-c", PROGRAM.format(first=first, last=last)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc's")
def test_large_blocks_are_given_back() -> None:
    assert left() > 6 * 2**23  # the comparison can fail
    assert left(first="allocator.give_large_back()") < 2 * 2**23
    assert left(last="allocator.trim()") < 2 * 2**23
