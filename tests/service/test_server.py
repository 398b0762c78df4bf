"""The process: its signals at any moment, its descriptors, and a stderr that nobody reads."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

from service.server import Hangups, reloading
from tests.service.fakes import PATIENCE

ROOT = Path(__file__).parents[2]


def run(program: str, closed: tuple[int, ...] = ()) -> subprocess.CompletedProcess[bytes]:
    """Python runs `program` with some of its standard streams closed."""
    close = "".join(f" {number}>&-" for number in closed)
    command = ["sh", "-c", f'exec "$0" -c "$1"{close}', sys.executable, program]
    environment = os.environ | {"PYTHONPATH": "."}
    return subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, timeout=PATIENCE, env=environment)


def test_hangups_are_answered_one_at_a_time_and_the_last_is_never_lost() -> None:
    hangups: Hangups = queue.SimpleQueue()
    begun = threading.Semaphore(0)
    gate = threading.Semaphore(0)
    running: list[int] = []

    def reload() -> None:
        running.append(len(running))
        begun.release()
        assert gate.acquire(timeout=PATIENCE)

    with reloading(hangups, reload):
        hangups.put(True)
        assert begun.acquire(timeout=PATIENCE)
        for _ in range(5):
            hangups.put(True)
        assert running == [0]  # the first has not ended
        gate.release()
        assert begun.acquire(timeout=PATIENCE)
        assert running == [0, 1]
        assert hangups.empty()  # one for all five
        gate.release()


def test_a_hangup_while_the_server_starts_does_not_end_it() -> None:
    program = """if True:
    import os, signal, sys
    from service import server
    from service.settings import Settings

    def hang_up(settings):
        os.kill(os.getpid(), signal.SIGHUP)
        sys.exit(7)

    server.listen = hang_up  # the first thing that is done
    server.serve(Settings())"""
    assert run(program).returncode == 7


def test_closed_standard_streams_are_never_taken_by_sockets() -> None:
    program = """if True:
    import os, sys
    from service import server
    from service.settings import Settings

    def listen(settings):
        sys.exit(os.open(os.devnull, os.O_RDONLY))

    server.listen = listen
    server.serve(Settings())"""
    assert run(program, closed=(0, 1)).returncode == 3
    assert run(program).returncode == 3
