"""The models that are served, as front ends know them: all but their weights."""

from __future__ import annotations

import itertools
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.model import Model
from service.core.engine import Engine
from service.processes import memory

_numbers = itertools.count()


@dataclass(frozen=True)
class Entry:
    """One engine: the number by which front ends name it, its model without weights, where and by what it runs."""

    number: int
    model: Model
    device: str
    bus: str
    kernel: str


class Catalog:
    """Engines of the engine process, numbered; `descriptor` is of a memory with their entries."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.engines = {next(_numbers): engine for engine in engines}
        entries = [
            Entry(number, replace(engine.model, tensors={}), engine.device, engine.bus, engine.kernel)
            for number, engine in self.engines.items()
        ]
        written = pickle.dumps(entries)
        self.descriptor = memory.create(len(written))
        with memory.attach(self.descriptor) as shared:
            shared[:] = written

    def __del__(self) -> None:
        os.close(self.descriptor)


def read(descriptor: int) -> list[Entry]:
    """The entries. Only what the engine process has written is read so: it never reads from a front end like this."""
    with memory.adopt(descriptor) as shared:
        entries: list[Entry] = pickle.loads(shared[:])
    return entries
