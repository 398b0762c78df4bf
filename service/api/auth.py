"""Who may ask: the API key, where one is set, and the pages of which sites. Before anything of a body is read."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.problems import ForeignOrigin, Problem, WrongKey
from service.settings import Settings
from service.telemetry.metrics import Metrics

PROTECTED = ("/segment", "/stream", "/models", "/v2/models", "/v2/repository")  # health, metrics and pages are open
WEBSOCKET_KEY = "key."  # a page cannot set a websocket's headers, but may offer the subprotocol "key.<the key>"


class Auth:
    """ASGI middleware: 401 for a missing or wrong key, 403 for pages of other origins."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._key = settings.api_key.encode()
        self._origins = settings.allowed_origins
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and scope["path"].startswith(PROTECTED):
            refusal = self._refusal(Headers(scope=scope))
            if refusal:
                self._metrics.refusals.labels(refusal.reason()).inc()
                await refusal.response(scope["state"]["request_id"], scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, headers: Headers) -> Problem | None:
        if self._key and not hmac.compare_digest(_key(headers), self._key):
            return WrongKey(
                "send the key as in: Authorization: Bearer KEY, or X-API-Key: KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )
        origin = headers.get("origin")
        if origin and origin not in self._origins and _host(origin) != headers.get("host"):
            return ForeignOrigin(f"the server's setting `origins` does not hold {origin[:100]!r}")
        return None


def _host(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _key(headers: Headers) -> bytes:
    """The key that is offered, as the very bytes that came."""
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return bearer.strip().encode("latin-1")
    offered = [text.strip() for text in headers.get("sec-websocket-protocol", "").split(",")]
    keys = [text.removeprefix(WEBSOCKET_KEY) for text in offered if text.startswith(WEBSOCKET_KEY)]
    return (keys or [headers.get("x-api-key", "")])[0].encode("latin-1")
