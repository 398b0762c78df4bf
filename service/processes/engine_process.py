"""The process of what is resident: loads the models, then serves its queue to every front end that it is told of."""

from __future__ import annotations

import pkgutil
import queue
import shutil
import signal
import socket
import sys
from typing import TYPE_CHECKING

from engine.runtime import EngineError
from service.core import resident
from service.processes import messages
from service.processes.child import CANNOT_START, LINE, RELOAD, WHAT, Child
from service.processes.host import Host
from service.server import Hangups, described, reloading, settle
from service.telemetry.metrics import Metrics, count_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.core.engine import Engine


def run(child: Child) -> int:
    """Serve until the line to the supervisor ends and then those to all front ends."""
    orders, settings = child.orders, child.orders.settings
    count_in(orders.counts, orders.name)
    metrics = Metrics()

    def load() -> Sequence[Engine]:
        engines: Sequence[Engine] = pkgutil.resolve_name(orders.load)(settings)
        return engines

    try:
        engines = load()
    except (EngineError, ValueError) as error:
        print(f"mbunet: {error}", file=sys.stderr)
        return CANNOT_START
    host = Host(metrics.gauges_text)
    its = resident.assemble(
        engines, settings, metrics, load=load, changed=host.changed, began=host.began, turned=host.publish
    )
    host.open(its)
    if orders.greeting:
        print(orders.greeting.replace(WHAT, described(engines)), flush=True)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # from now on others depend on it
    its.lifecycle.start()
    settle()
    hangups: Hangups = queue.SimpleQueue()
    with reloading(hangups, its.models.reload):
        while True:
            packet, descriptors = messages.receive(child.line)
            if packet == RELOAD:
                hangups.put(True)
            elif packet == LINE:
                host.serve(socket.socket(fileno=descriptors[0]))
            elif not packet:
                break
    host.wait(settings.drain_ms / 1000)
    its.lifecycle.stop()
    shutil.rmtree(orders.counts, ignore_errors=True)  # if the supervisor is dead, who else should do it
    return 0
