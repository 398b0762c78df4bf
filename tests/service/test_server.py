"""The process: its signals at any moment, its descriptors, and a stderr that nobody reads."""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from service.app import create_app
from service.server import Hangups, greeting, listen, options, reloading
from service.settings import Settings
from tests.service.fakes import PATIENCE, FakeEngine, serving
from tests.service.test_app import connection, received

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


def test_every_interface_of_ipv6_is_every_one_of_ipv4_too() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this system has no sockets for both")
    with listen(Settings(host="::", port=0)) as listener:
        port = listener.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port), PATIENCE) as asking, listener.accept()[0] as taken:
                taken.sendall(b"x")
                assert asking.recv(1) == b"x"
        assert f"http://localhost:{port}" in greeting("a model", listener)


def test_connections_are_kept_for_longer_than_proxies_keep_theirs() -> None:
    assert options(Settings())["timeout_keep_alive"] > 60


def test_a_connection_that_is_not_used_is_closed_after_its_time() -> None:
    with serving(create_app(FakeEngine(), Settings(keep_alive_ms=50))) as client, connection(client) as raw:
        raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = received(raw)  # until the server closes it
    assert answer.endswith(b'{"status":"alive"}')
