"""What a request holds of the server's memory, from the first byte of its body to the last byte of its answer."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.core.budget import Budget, Holding

AT_ONCE = 1 << 16  # bytes of an answer that no client has to wait for


class Memory:
    """ASGI middleware: gives every request a holding."""

    def __init__(self, app: ASGIApp, budget: Budget) -> None:
        self._app = app
        self._budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        with self._budget.holding() as scope["state"]["memory"]:
            await self._app(scope, receive, send)


def held_by(connection: HTTPConnection) -> Holding:
    """What the request holds."""
    memory: Holding = connection.state.memory
    return memory


class PiecesResponse(Response):
    """A body in pieces, each sent when the client has taken what was sent before, and no sooner done than all is."""

    def __init__(self, pieces: Sequence[bytes | memoryview], media_type: str, headers: dict[str, str]) -> None:
        self._pieces = pieces
        super().__init__(None, 200, headers | {"Content-Length": str(sum(map(len, pieces)))}, media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if len(self._pieces) == 1 and len(self._pieces[0]) < AT_ONCE:
            await send({"type": "http.response.body", "body": self._pieces[0]})
            return
        for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
