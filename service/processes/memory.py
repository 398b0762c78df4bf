"""Memory that processes share: anonymous, handed on as descriptors, gone with the last who has it."""

from __future__ import annotations

import fcntl
import mmap
import os

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW  # a mapping of what has shrunk would end who reads it


def create(size: int) -> int:
    """A descriptor of so many bytes, all 0; they take memory when they are first written."""
    descriptor = os.memfd_create("mbunet", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
    return descriptor


def attach(descriptor: int) -> mmap.mmap:
    """All of it, mapped; raises ValueError where its size is not sealed."""
    if fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & SEALS != SEALS:
        raise ValueError("shared memory whose size may change")
    return mmap.mmap(descriptor, os.fstat(descriptor).st_size)


def adopt(descriptor: int) -> mmap.mmap:
    """As `attach`; the descriptor is closed."""
    try:
        return attach(descriptor)
    finally:
        os.close(descriptor)
