"""Memory that a step has freed is there for the next one."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

PROGRAM = """
import re
from pathlib import Path
import numpy as np
from engine.train import allocator

def resident():
    return 1024 * int(re.findall(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[0])

{first}
before = resident()
blocks = [np.ones(2**26, np.uint8) for _ in range(3)]
del blocks
print(resident() - before)
"""


def left(first: str = "") -> int:
    """Bytes, of three blocks that are gone."""
    command = [sys.executable, "-c", PROGRAM.format(first=first)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc's")
def test_large_blocks_are_kept() -> None:
    assert left() < 2**26  # the comparison can fail
    assert left(first="allocator.keep()") > 2.5 * 2**26
