"""Numbers that all processes add to, one row a process, in memory that they share.

A process writes its own row alone, and there is no lock, which one that dies might keep: it adds first and looks at the
sum then, so that of two who come at the same moment both may be refused. The supervisor clears the rows of the dead.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os

from service.core.tally import Tally
from service.processes import memory

SUPERVISOR, ENGINE, FRONT_ENDS = 0, 1, 2  # rows; of front ends the first


class Row(ctypes.Structure):
    """The numbers of one process."""

    pid: int
    memory: int
    streams: int
    log_dropped: int

    _fields_ = (
        ("pid", ctypes.c_int64),
        ("memory", ctypes.c_int64),  # bytes that its requests hold
        ("streams", ctypes.c_int64),  # websockets open
        ("log_dropped", ctypes.c_int64),  # lines that it could not write
    )


class Table:
    """One row a process."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        count = os.fstat(descriptor).st_size // ctypes.sizeof(Row)
        self._map: mmap.mmap = memory.attach(descriptor)
        self.rows: list[Row] = list((Row * count).from_buffer(self._map))

    @classmethod
    def of(cls, front_ends: int) -> Table:
        """A new one, for so many."""
        return cls(memory.create((FRONT_ENDS + front_ends) * ctypes.sizeof(Row)))

    @property
    def front_ends(self) -> int:
        """How many there are to be."""
        return len(self.rows) - FRONT_ENDS

    @property
    def pids(self) -> dict[str, int]:
        """Of the living, by name."""
        return {name(number): row.pid for number, row in enumerate(self.rows) if row.pid}

    def clear(self, row: int) -> None:
        """Its process is dead. Lines that it lost stay lost: the supervisor takes them over."""
        self.rows[SUPERVISOR].log_dropped += self.rows[row].log_dropped
        ctypes.memset(ctypes.addressof(self.rows[row]), 0, ctypes.sizeof(Row))


def name(row: int) -> str:
    """Of the process of a row."""
    return {SUPERVISOR: "supervisor", ENGINE: "engine"}.get(row, f"front-{row - FRONT_ENDS}")


class SharedTally(Tally):
    """One column of a table, for the process of one row."""

    def __init__(self, table: Table, row: int, column: str) -> None:
        super().__init__()
        self._table = table
        self._row = table.rows[row]
        self._column = column

    @property
    def total(self) -> int:
        """See `Tally`."""
        return sum(getattr(row, self._column) for row in self._table.rows)

    def add(self, by: int, most: float = math.inf) -> bool:
        """See `Tally`."""
        with self._lock:
            self.own += by
            setattr(self._row, self._column, self.own)
            fits = by <= 0 or self.total <= most
            if not fits:
                self.own -= by
                setattr(self._row, self._column, self.own)
            return fits
