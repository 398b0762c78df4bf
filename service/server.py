"""`mbunet serve`: listen, load, serve until SIGTERM, drain, exit 0."""

from __future__ import annotations

import gc
import math
import os
import pkgutil
import queue
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service import logs
from service.core import allocator
from service.settings import LAST_SHARE, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.core.engine import Engine


Hangups = queue.SimpleQueue[bool]
"""True for every SIGHUP, False for the end. Its `put` may be called by a handler of signals, even within itself."""

LOAD = "service.core.engine:load_all"
RELOAD_S = 1.0  # seconds that the end waits for a reload


def serve(settings: Settings, load: str = LOAD) -> int:
    """Serve until SIGTERM or Ctrl-C; returns 0.

    `load`, "module:function", gives the engines for settings. Raises OSError when the address is taken or the
    certificate cannot be read, and EngineError for the model. The socket listens before anything heavy is imported, so
    early clients wait instead of being refused. SIGHUP loads the model files anew.
    """
    hangups: Hangups = queue.SimpleQueue()
    signal.signal(signal.SIGHUP, lambda *_: hangups.put(True))
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn drains first, then raises the signal again for us
        signal.signal(number, lambda *_: sys.exit(0))
    occupy_standard_streams()
    allocator.give_large_back()
    require_certificate(settings)
    with listen(settings) as listener:
        import uvicorn

        from service.app import create_app
        from service.telemetry import traces

        get = partial(pkgutil.resolve_name(load), settings)
        engines: Sequence[Engine] = get()
        logs.configure()
        app = create_app(engines, settings, load=get, traces=traces.from_environment())
        settle()
        print(greeting(described(engines), listener, bool(settings.tls_certificate)), flush=True)
        with reloading(hangups, app.state.service.models.reload):
            uvicorn.Server(uvicorn.Config(app, **options(settings))).run([listener])
    return 0


def settle() -> None:
    """All is loaded and stays: to look through it again and again would hold everybody up."""
    gc.collect()
    gc.freeze()


@contextmanager
def reloading(hangups: Hangups, reload: Callable[[], object]) -> Iterator[None]:
    """`reload` in a thread after every hangup: one at a time, and once for all that have come meanwhile."""

    def newest() -> bool:
        asked = hangups.get()
        while asked and not hangups.empty():
            asked = hangups.get()
        return asked

    def work() -> None:
        while newest():
            reload()

    thread = threading.Thread(target=work, name="reload", daemon=True)
    thread.start()
    try:
        yield
    finally:
        hangups.put(False)
        thread.join(RELOAD_S)


def require_certificate(settings: Settings) -> None:
    """Raise OSError where a file of the certificate cannot be read."""
    for file in filter(None, (settings.tls_certificate, settings.tls_key)):
        Path(file).read_bytes()  # whose error names the file; the ssl module's does not


def occupy_standard_streams() -> None:
    """Open what of stdin, stdout and stderr is closed: a socket in such a place would be taken for it."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= logs.STDERR:
        pass
    os.close(descriptor)


def options(settings: Settings) -> dict[str, Any]:
    """What uvicorn is told."""
    from service.api.http_limits import BoundedHttp
    from service.api.websocket_limits import BoundedWebSocket

    return {
        "timeout_graceful_shutdown": math.ceil((1 - LAST_SHARE) * settings.drain_ms / 1000),
        "timeout_keep_alive": settings.keep_alive_ms / 1000,
        "http": partial(BoundedHttp, stall_s=settings.stall_ms / 1000, upload_s=settings.upload_ms / 1000),
        "loop": "uvloop",
        "ws": partial(BoundedWebSocket, upload_s=settings.upload_ms / 1000, stall_ms=settings.stall_ms),
        "ws_max_size": settings.max_body_bytes,
        "ws_per_message_deflate": False,  # images are compressed, and this would be done in the event loop
        "ws_ping_timeout": None,  # a ping waits behind the answer: who takes that slowly is not dead (BoundedWebSocket)
        "ws_max_queue": 2,  # a frame that nobody takes stays with the client
        "ssl_certfile": settings.tls_certificate or None,
        "ssl_keyfile": settings.tls_key or None,
        "proxy_headers": False,  # nobody here asks where a request came from
        "access_log": False,  # our own has one line a request
        "log_config": None,
    }


def listen(settings: Settings, shared: bool = False) -> socket.socket:
    """A listening socket; raises OSError that names the address. One that is `shared` admits others beside it."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    both = settings.host == "::" and socket.has_dualstack_ipv6()  # IPv4 comes in as ::ffff:a.b.c.d
    try:
        address = (settings.host, settings.port)
        listener = socket.create_server(address, family=family, backlog=2048, dualstack_ipv6=both, reuse_port=shared)
    except OSError as error:
        raise OSError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from error
    # Connections inherit this, and not every event loop sets it by itself: without it an answer in two packets waits
    # 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def described(engines: Sequence[Engine]) -> str:
    """Which models run where and by what, in order."""
    return ", ".join(f"{engine.model.name} on {engine.device} ({engine.kernel})" for engine in engines)


def greeting(what: str, listener: socket.socket, secure: bool = False) -> str:
    """What a person at the terminal needs: where `what` is served, and two commands to copy."""
    host, port = listener.getsockname()[:2]
    scheme = "https" if secure else "http"
    name = "localhost" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    address = f"{scheme}://{name}:{port}"
    return f"""\
serving {what} at {address}  (a page to try it; {address}/docs explains)

  curl -H 'Content-Type: image/png' --data-binary @IMAGE {address}/segment -o mask.png
  curl -F image=@IMAGE {address}/segment -o mask.png
"""
