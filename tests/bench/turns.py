"""Contenders take turns, each in a process of its own. Not in __main__, which a spawned process cannot import from."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

from tests.bench.contenders import Contender

PAUSE = 0.1  # seconds between two runs: the last contender's threads go to sleep


def measure(contenders: Sequence[Contender], rounds: int) -> list[list[float]]:
    """Seconds of every contender in each of `rounds` rounds, in which they take turns; two more warm up."""
    context = multiprocessing.get_context("spawn")
    pipes, workers = [], []
    for contender in contenders:
        ours, theirs = context.Pipe()
        worker = context.Process(target=work, args=(contender, theirs), daemon=True)
        worker.start()
        theirs.close()  # so that a contender that fails is noticed: recv raises EOFError
        ours.recv()  # ready
        pipes.append(ours)
        workers.append(worker)
    times: list[list[float]] = [[] for _ in contenders]
    for turn in range(-2, rounds):
        for pipe, seconds in zip(pipes, times, strict=True):
            time.sleep(PAUSE)
            pipe.send(True)
            took = pipe.recv()
            if turn >= 0:
                seconds.append(took)
    for pipe, worker in zip(pipes, workers, strict=True):
        pipe.send(False)
        worker.join()
    return times


def work(contender: Contender, pipe: Connection) -> None:
    """One contender's process: runs when told to, answers with the seconds it took."""
    call = contender.prepare()
    pipe.send(True)
    while pipe.recv():
        started = time.perf_counter()
        call()
        pipe.send(time.perf_counter() - started)
