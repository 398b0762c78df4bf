"""Files that are written whole or not at all, and folders that one process at a time writes into."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PART = re.compile(r".+\.[0-9a-f]{32}\.part")


class BusyError(ValueError):
    """Another process writes into the folder; the message names it."""


def write(path: Path, data: bytes) -> None:
    """Write `data` to `path` as `written` does. Raises OSError."""
    with written(path) as file:
        file.write(data)


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """A new file beside `path` that takes its place at the end: whenever the machine stops, all of the file of before
    is there, or all of the new one. Nothing stays of what fails. Raises OSError."""
    part, file = _locked_part(path)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _locked_part(path: Path) -> tuple[Path, BinaryIO]:
    while True:
        part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
        file = part.open("x+b")
        with contextlib.suppress(OSError):  # a file system without locks, on which nothing counts as abandoned
            fcntl.flock(file, fcntl.LOCK_EX)
        if part.exists():
            return part, file
        file.close()  # it was taken for an abandoned one before it was locked


def remove_abandoned(folder: Path) -> None:
    """Remove what writers that were killed have left half written in `folder`; what another is writing stays."""
    for part in (part for part in folder.glob("*.part") if PART.fullmatch(part.name)):
        with contextlib.suppress(OSError), part.open("rb") as file:  # who holds it may end it meanwhile
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()


class Hold:
    """A folder that no other process holds, as long as this is there; children do not keep it, and leave it alone."""

    opened = -1

    def __init__(self, folder: Path) -> None:
        self.opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self.opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            said = f"another run is writing into {folder}: wait for it, or choose another output folder"
            raise BusyError(said) from None
        except OSError:
            pass  # a file system without locks

    def close(self) -> None:
        """Give the folder back; in a child, what it has inherited, while its parent holds on."""
        opened, self.opened = self.opened, -1
        if opened >= 0:
            os.close(opened)

    __del__ = close


_held: weakref.WeakValueDictionary[tuple[int, int], Hold] = weakref.WeakValueDictionary()


def hold(folder: Path) -> Hold:
    """The hold on `folder`, which this process may have already; raises BusyError where another process has it.

    What writers that were killed have left half written there is removed.
    """
    status = folder.stat()
    found = _held.get((status.st_dev, status.st_ino)) or Hold(folder)
    _held[status.st_dev, status.st_ino] = found
    remove_abandoned(folder)
    return found


def _forget() -> None:
    for found in list(_held.values()):
        found.close()
    _held.clear()


os.register_at_fork(after_in_child=_forget)
