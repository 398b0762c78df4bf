"""What every process but the supervisor begins with: its orders, over the line to the supervisor."""

from __future__ import annotations

import contextlib
import json
import os
import pkgutil
import signal
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from service import logs
from service.core import allocator
from service.processes import messages
from service.processes.table import Row, Table, name
from service.settings import Settings

CANNOT_START = 3  # exit status: what has failed now would fail again
RELOAD, LINE = b"reload", b"line"  # packets from the supervisor; the second with a line to the other kind of process
WHAT = "{what}"  # in the greeting, where the engine is named


@dataclass(frozen=True)
class Orders:
    """What a process is to be. With them come the descriptors of the table and, for a front end, of its port."""

    role: str  # "module:function" that takes `Child`
    row: int  # of the table
    settings: Settings
    folder: str  # where processes count
    load: str = ""  # "module:function" that gives the engines for settings
    greeting: str = ""  # what is printed when they are loaded, with WHAT in it

    def packet(self) -> bytes:
        """As it goes over the line."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def of(cls, packet: bytes) -> Orders:
        """The same from there."""
        given: dict[str, Any] = json.loads(packet)
        return cls(**{**given, "settings": Settings(**given["settings"])})

    @property
    def name(self) -> str:
        """Unique among the processes."""
        return name(self.row)

    @property
    def counts(self) -> Path:
        """The folder."""
        return Path(self.folder)


@dataclass(frozen=True)
class Child:
    """A process: its orders, its line to the supervisor, and what came with them."""

    orders: Orders
    line: socket.socket
    table: Table
    descriptors: list[int]  # those that came beside the table's

    @property
    def row(self) -> Row:
        """Its own of the table."""
        return self.table.rows[self.orders.row]


def main(descriptor: int) -> int:
    """Follow the orders that come over the line; returns the exit status."""
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to all; the supervisor acts for all
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # it blocks them, to wait for them
    line = socket.socket(fileno=descriptor)
    packet, descriptors = messages.receive(line)
    if not packet:
        return 0
    child = Child(Orders.of(packet), line, Table(descriptors[0]), descriptors[1:])
    with contextlib.suppress(OSError):  # for whoever looks with ps or top
        Path("/proc/self/comm").write_text(f"mbunet-{child.orders.name}")
    allocator.give_large_back()
    row = child.row
    row.pid = os.getpid()
    logs.configure(lambda dropped: setattr(row, "log_dropped", dropped))
    status: int = pkgutil.resolve_name(child.orders.role)(child)
    return status


def command(descriptor: int) -> list[str]:
    """How to start one whose line is `descriptor`: with this program's own Python and module path."""
    program = f"import sys; sys.path[:] = {sys.path!r}; from service.processes import child"
    return [sys.executable, "-c", f"{program}; sys.exit(child.main({descriptor}))"]
