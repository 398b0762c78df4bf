"""`mbunet serve`: listen, load, serve until SIGTERM, drain, exit 0."""

from __future__ import annotations

import math
import signal
import socket
import sys

from service.settings import Settings


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or Ctrl-C; returns 0. Raises OSError when the address is taken, EngineError for the model.

    The socket listens before anything heavy is imported, so early clients wait instead of being refused.
    """
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn drains first, then raises the signal again for us
        signal.signal(number, lambda *_: sys.exit(0))
    with listen(settings) as listener:
        import uvicorn

        from engine.runtime import Engine
        from service.app import create_app

        with Engine.load(settings.model, settings.device, settings.threads, settings.kernel) as engine:
            print(greeting(engine.model.name, engine.device, engine.kernel, listener), flush=True)
            drain_s = math.ceil(settings.timeout_ms / 1000)
            config = uvicorn.Config(create_app(engine, settings), timeout_graceful_shutdown=drain_s)
            uvicorn.Server(config).run([listener])
    return 0


def listen(settings: Settings) -> socket.socket:
    """A listening socket; raises OSError that names the address."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=2048)
    except OSError as error:
        raise OSError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from error
    # Connections inherit this. asyncio sets it only on sockets that name their protocol, which these do not; without
    # it an answer in two packets waits 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def greeting(name: str, device: str, kernel: str, listener: socket.socket) -> str:
    """What a person at the terminal needs: where the server is, and two commands to copy."""
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}".replace("//0.0.0.0", "//localhost")
    return f"""\
serving {name} on {device} ({kernel}) at {address}  (a page to try it; {address}/docs explains)

  curl -H 'Content-Type: image/png' --data-binary @IMAGE {address}/segment -o mask.png
  curl -F image=@IMAGE {address}/segment -o mask.png
"""
