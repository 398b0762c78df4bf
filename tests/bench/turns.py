"""Contenders take turns, each in a process of its own. Not in __main__, which a spawned process cannot import from."""

from __future__ import annotations

import multiprocessing
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from tests.bench.contenders import Call, Contender

PAUSE = 0.1  # seconds between two turns: the last contender's threads go to sleep
TURN = 0.2  # seconds that a turn lasts at least: fast contenders run several times


def measure(contenders: Sequence[Contender], rounds: int) -> list[list[float]]:
    """Seconds of every run of every contender in `rounds` rounds, in which they take turns; one more warms up."""
    times: list[list[float]] = [[] for _ in contenders]
    with started(contenders) as pipes:
        for turn in range(-1, rounds):
            for pipe, seconds in zip(pipes, times, strict=True):
                time.sleep(PAUSE)
                pipe.send("run")
                took = pipe.recv()
                if turn >= 0:
                    seconds += took
    return times


def measure_memory(contenders: Sequence[Contender]) -> list[tuple[int, int]]:
    """(idle, added) bytes of each: resident when ready to run, and what its first image adds to that at most."""
    with started(contenders) as pipes:
        for pipe in pipes:
            pipe.send("memory")
        return [pipe.recv() for pipe in pipes]


def prepare(contenders: Sequence[Contender]) -> None:
    """Make the files that contenders read, so that no later run has to; in another process, which gives all back."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        pool.map(make_file, contenders, chunksize=1)


def make_file(contender: Contender) -> None:
    """What `prepare` does for one contender."""
    from tests.bench import peers

    if contender.kind in ("openvino", "onnxruntime"):
        peers.prepared(contender)


@contextmanager
def started(contenders: Sequence[Contender]) -> Iterator[list[Connection]]:
    """A pipe to each contender's process, ready to run."""
    context = multiprocessing.get_context("spawn")
    pipes, workers = [], []
    try:
        for contender in contenders:
            ours, theirs = context.Pipe()
            worker = context.Process(target=work, args=(contender, theirs), daemon=True)
            worker.start()
            theirs.close()  # so that a contender that fails is noticed: recv raises EOFError
            pipes.append(ours)
            workers.append(worker)
        for pipe in pipes:
            pipe.recv()
        yield pipes
    finally:
        for pipe, worker in zip(pipes, workers, strict=True):
            pipe.close()
            worker.join()


def work(contender: Contender, pipe: Connection) -> None:
    """One contender's process: does what it is told until the pipe closes, and answers with the figures."""
    call = contender.prepare()
    pipe.send("ready")
    while (order := _next(pipe)) is not None:
        if order == "memory":
            idle = _memory("VmRSS")
            _forget_peak()
            call()
            pipe.send((idle, _memory("VmHWM") - idle))
        else:
            pipe.send(turn(call))


def turn(call: Call) -> list[float]:
    """Seconds of every run of one turn."""
    seconds: list[float] = []
    while sum(seconds) < TURN:
        before = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - before)
    return seconds


def _next(pipe: Connection) -> str | None:
    try:
        order: str = pipe.recv()
    except EOFError:
        return None
    return order


def _memory(field: str) -> int:
    """A figure of this process in bytes."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")
