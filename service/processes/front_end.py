"""The process of one front end: the application, with a queue that is elsewhere."""

from __future__ import annotations

import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import uvicorn

from engine import cores
from service import server
from service.app import application
from service.core.allocator import trim
from service.core.budget import Budget, default_size
from service.core.models import Models
from service.core.pipeline import Pipeline
from service.core.readiness import Readiness, State
from service.core.service import Service
from service.core.threads import CodecThreads
from service.processes import messages
from service.processes.arena import KEPT
from service.processes.board import STATES
from service.processes.child import CANNOT_START, Child
from service.processes.client import EngineClient
from service.processes.table import SharedTally
from service.settings import Settings
from service.telemetry import traces
from service.telemetry.metrics import Metrics, count_in


class RemoteReadiness(Readiness):
    """By what the engine process tells, or by its absence. `ended` is called when the front end has."""

    def __init__(self, client: EngineClient, settings: Settings, ended: Callable[[], None]) -> None:
        self._client = client
        self._hang_s = settings.hang_ms / 1000
        self._ended = ended
        self._stopped = False

    @property
    def state(self) -> State:
        """See `Readiness`. What does not return, or is absent, for too long is for whoever watches the supervisor."""
        if self._stopped:
            return "draining"
        notice = self._client.notice
        if notice is None:
            return "failed" if self._client.absent_s > self._hang_s else "loading"
        state = STATES[notice.state]
        hangs = notice.turn_since and time.monotonic() - notice.turn_since > self._hang_s
        return "hanging" if state == "ready" and hangs else state

    async def require_room(self) -> None:
        """See `Readiness`."""
        self.require_ready()
        await self._client.require_room()

    def stop(self) -> None:
        """See `Readiness`."""
        self._stopped = True
        self._ended()


@dataclass(frozen=True)
class FrontEndService(Service):
    """The service without its engines."""

    client: EngineClient

    async def exposition(self) -> bytes:
        """The series of all processes."""
        return self.metrics.text() + await self.client.exposition()


def run(child: Child) -> int:
    """Serve until the line to the supervisor ends, or only that to the engine process; answer what is accepted."""

    def end() -> None:
        """Answer what has been accepted: nothing, before there is a model."""
        serving.should_exit = True
        if not client.connected.is_set():
            os._exit(0)

    orders, settings = child.orders, child.orders.settings
    count_in(orders.counts, orders.name)
    memory_bytes = settings.memory_bytes or default_size()
    models, workers = Models([]), child.table.front_ends
    client = EngineClient(models, 2 * memory_bytes + KEPT, max(1, settings.queue_images // workers), end)
    spans = traces.from_environment()
    service = assemble(child, client, models, memory_bytes, workers, spans)
    config = uvicorn.Config(application(service, spans), **server.options(settings))
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        print(f"mbunet: {error}", file=sys.stderr)
        return CANNOT_START
    serving = uvicorn.Server(config)
    threading.Thread(target=_obey, args=(child.line, client, end), name="supervisor", daemon=True).start()
    client.connected.wait()  # until there is a model, clients wait in the queue of the port
    server.settle()
    serving.run([socket.socket(fileno=child.descriptors[0])])
    return 0


def _obey(line: socket.socket, client: EngineClient, end: Callable[[], None]) -> None:
    """Every line from the supervisor leads to a new engine process; when there are no more, it is time to end."""
    while True:
        packet, descriptors = messages.receive(line)
        if not packet:
            break
        client.attach(socket.socket(fileno=descriptors[0]))
    end()


def assemble(
    child: Child,
    client: EngineClient,
    models: Models,
    memory_bytes: int,
    workers: int,
    spans: traces.Traces | None,
) -> FrontEndService:
    """The parts of the service that are here, and those of the engine process behind `client`."""

    def ended() -> None:
        if spans:
            spans.stop()
        threads.stop()

    settings, table, row = child.orders.settings, child.table, child.orders.row
    metrics = Metrics(child.orders.counts)
    threads = CodecThreads(max(2, -(-cores.available() // workers)))
    budget = Budget(memory_bytes, client.after_s, lambda: threads.submit(trim), SharedTally(table, row, "memory"))
    streams = SharedTally(table, row, "streams")
    metrics.show_processes(lambda: table.pids, lambda: sum(each.log_dropped for each in table.rows))
    metrics.show_load(lambda: _waiting(client), lambda: budget.held, budget.size, lambda: streams.total)
    return FrontEndService(
        settings,
        time.monotonic,
        metrics,
        models,
        threads,
        budget,
        streams,
        Pipeline(client, threads, budget, settings, metrics, spans),
        RemoteReadiness(client, settings, ended),
        lambda: client.image_joules,
        client,
    )


def _waiting(client: EngineClient) -> int:
    notice = client.notice
    return notice.waiting if notice else 0
