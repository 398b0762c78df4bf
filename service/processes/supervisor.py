"""Starts the processes, watches them, starts the dead again, and passes signals on. It touches no image."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from service import logs
from service.logs import log
from service.processes import child, messages
from service.processes.child import CANNOT_START, Orders
from service.processes.messages import Lost
from service.processes.table import ENGINE, FRONT_ENDS, SUPERVISOR, Table, name
from service.server import LOAD, greeting, listen, occupy_standard_streams, require_certificate
from service.settings import LAST_SHARE, Settings

SHARED = Path("/dev/shm")
ABANDONED_S = 60.0  # after which a folder that nobody has locked has nobody
PAUSE_S = 1.0  # at least, between two starts of a process
GRACE_S = 5.0  # beyond the setting drain_ms, for those who should have ended by then
ENDINGS = (signal.SIGTERM, signal.SIGINT)
WATCHED = (*ENDINGS, signal.SIGHUP, signal.SIGCHLD)


class CannotStart(OSError):  # noqa: N818  (as its base)
    """One of the processes cannot start; it has said why."""


def serve(settings: Settings, load: str = LOAD) -> int:
    """Serve by `settings.front_ends` front ends and an engine process until SIGTERM or Ctrl-C; returns 0.

    `load`, "module:function", gives the engines for settings. Raises OSError as `server.serve`. Returns 1 where a
    process cannot start.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)  # they are waited for
    occupy_standard_streams()
    require_certificate(settings)
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(port) for port in listeners(settings)]
        folder = stack.enter_context(counting_folder(SHARED if os.access(SHARED, os.W_OK) else None))
        logs.configure()
        return Supervisor(settings, ports, folder, load).run()


def listeners(settings: Settings) -> list[socket.socket]:
    """A socket on the same port for every front end; raises OSError that names the address."""
    with listen(settings) as first:  # which admits none beside it: so no other server listens there
        port = first.getsockname()[1]
    return [listen(replace(settings, port=port), shared=True) for _ in range(settings.front_ends)]


@contextmanager
def counting_folder(where: Path | None) -> Iterator[str]:
    """A folder for counts. Those that servers have left whose processes were all killed at once are removed."""
    for folder in where.glob("mbunet-*") if where else ():
        with contextlib.suppress(OSError), locked(folder):
            if time.time() - folder.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(folder)
    counts = tempfile.TemporaryDirectory(prefix="mbunet-", dir=where, ignore_cleanup_errors=True)
    with counts as folder_name, locked(Path(folder_name)):
        yield folder_name


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """It has somebody. Raises OSError where it had before; the lock ends with the process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@dataclass
class Process:
    """One of them, through all its lives. `ports` are descriptors that it gets with its orders."""

    orders: Orders
    table: Table
    ports: Sequence[int] = ()
    started: float = -math.inf
    line: socket.socket | None = None
    running: subprocess.Popen[bytes] | None = None
    lives: int = 0

    def start(self) -> None:
        """Begin a life."""
        self.line, theirs = messages.pair()
        self.started = time.monotonic()
        self.lives += 1
        with theirs:
            command = child.command(theirs.fileno())
            self.running = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self.say(self.orders.packet(), [self.table.descriptor, *self.ports])

    def say(self, packet: bytes, descriptors: Sequence[int] = ()) -> None:
        """Tell it something; if it is dead, that will be seen."""
        if self.line:
            with contextlib.suppress(Lost):
                messages.send(self.line, packet, descriptors)

    def has_ended(self) -> bool:
        """Whether it has since the last time; then nothing of it is left."""
        if self.running is None or self.running.poll() is None:
            return False
        self.end()
        self.table.clear(self.orders.row)
        return True

    def end(self) -> None:
        """Nothing more will be said to it, which it takes as the order to end."""
        if self.line:
            self.line.close()
            self.line = None


class Supervisor:
    """All processes of one server."""

    def __init__(self, settings: Settings, ports: Sequence[socket.socket], folder: str, load: str) -> None:
        self._settings = settings
        self._ports = ports
        self._table = Table.of(len(ports))
        self._table.rows[SUPERVISOR].pid = os.getpid()
        text = greeting(child.WHAT, ports[0], bool(settings.tls_certificate))
        orders = Orders("service.processes.engine_process:run", ENGINE, settings, folder, load, text)
        self._engine = Process(orders, self._table)
        self._front_ends = [
            Process(
                Orders("service.processes.front_end:run", FRONT_ENDS + number, settings, folder),
                self._table,
                [port.fileno()],
            )
            for number, port in enumerate(ports)
        ]

    def run(self) -> int:
        """Until SIGTERM or Ctrl-C: 0; until a process cannot start: 1."""
        try:
            while True:
                self._start_what_is_due()
                number = self._wait(min(self._due(process) for process in self._all))
                if number in ENDINGS:
                    return 0
                if number == signal.SIGHUP:
                    self._engine.say(child.RELOAD)
                self._look_for_dead()
        except CannotStart:
            return 1
        finally:
            self._drain()

    @property
    def _all(self) -> list[Process]:
        return [self._engine, *self._front_ends]

    def _due(self, process: Process) -> float:
        """When it is to be started; never while it runs."""
        return math.inf if process.line else process.started + PAUSE_S

    def _start_what_is_due(self) -> None:
        due = [process for process in self._all if self._due(process) <= time.monotonic()]
        for process in due:
            process.start()
        for front_end in self._front_ends:
            if self._engine.line and front_end.line and (front_end in due or self._engine in due):
                self._connect(front_end)

    def _connect(self, front_end: Process) -> None:
        """A line between it and the engine process."""
        one, other = messages.pair()
        with one, other:
            self._engine.say(child.LINE, [one.fileno()])
            front_end.say(child.LINE, [other.fileno()])

    def _look_for_dead(self) -> None:
        for process in self._all:
            if process.line and process.has_ended():
                assert process.running
                status = process.running.returncode
                if status == CANNOT_START and process.lives == 1:
                    raise CannotStart
                log.error("%s has ended with %d and is started again", name(process.orders.row), status)

    def _wait(self, until: float) -> int | None:
        """The next signal; None where none comes in time."""
        left = max(0.0, until - time.monotonic())
        if left == math.inf:
            return signal.sigwaitinfo(WATCHED).si_signo
        found = signal.sigtimedwait(WATCHED, left)
        return found.si_signo if found else None

    def _drain(self) -> None:
        """Let front ends answer what they have accepted, then end the engine process."""
        for port in self._ports:
            port.close()
        self._end(self._front_ends, self._settings.drain_ms / 1000 + GRACE_S)
        self._end([self._engine], LAST_SHARE * self._settings.drain_ms / 1000 + GRACE_S)

    def _end(self, processes: Sequence[Process], timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        for process in processes:
            process.end()
            if process.running:
                process.running.terminate()  # for who does not listen yet
        for process in processes:
            if process.running:
                try:
                    process.running.wait(max(0.0, until - time.monotonic()))
                except subprocess.TimeoutExpired:
                    log.error("%s does not end", name(process.orders.row))
                    process.running.kill()
                    process.running.wait()
