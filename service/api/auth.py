"""Who may ask: the API key, where one is set, and the pages of which sites. Before anything of a body is read.

A page of another site shows by its Origin, unless that site's name suddenly leads to this machine ("DNS rebinding"):
then it is the server's own by all that the browser knows. So a server that listens on this machine only takes no name
but this machine's own, and those that the setting `origins` names.
"""

from __future__ import annotations

import base64
import hmac
import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import refusals
from service.problems import ForeignOrigin, Problem, WrongKey
from service.settings import Settings
from service.telemetry.metrics import Metrics

PROTECTED = ("/segment", "/stream", "/models", "/v2/models", "/v2/repository")  # health, metrics and pages are open
HOSTS = 16  # whose answer is remembered
WEBSOCKET_KEY = "key."  # a page cannot set a websocket's headers, but may offer the subprotocol "key.<the key>",
ENCODED_KEY = "key64."  # or of any key its UTF-8 as base64url: subprotocols have no "=", "/" and the like


class Auth:
    """ASGI middleware: 401 for a missing or wrong key, 403 for pages of other origins."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._key = settings.api_key.encode()
        self._origins = settings.allowed_origins
        self._hosts = {urlsplit(origin).netloc for origin in self._origins}
        self._local = _is_local(settings.host)
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and scope["path"].startswith(PROTECTED):
            refusal = self._refusal(Headers(scope=scope))
            if refusal:
                _note_route(scope)
                refusals.tell(refusal, scope["state"], self._metrics)
                await refusal.response(scope)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, headers: Headers) -> Problem | None:
        if self._key and not hmac.compare_digest(_key(headers), self._key):
            return WrongKey(
                "send the key as in: Authorization: Bearer KEY, or X-API-Key: KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )
        host = headers.get("host", "")
        if self._local and host and host not in self._hosts and not _names_local(host):
            return ForeignOrigin(f"here is no {host[:100]!r}; a proxy's own name belongs into the setting `origins`")
        origin = headers.get("origin")
        if origin and origin not in self._origins and _host(origin) != host:
            return ForeignOrigin(f"the server's setting `origins` does not hold {origin[:100]!r}")
        return None


def _note_route(scope: Scope) -> None:
    """What the request was for, to metrics, log and traces: it never comes to the router."""
    for route in scope["app"].routes:
        if route.matches(scope)[0] is not Match.NONE:
            scope["route"] = route
            return


def _is_local(name: str) -> bool:
    """Whether a host's name or address leads to this machine wherever it is resolved."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower().rpartition(".")[2] == "localhost"


@lru_cache(HOSTS)
def _names_local(host: str) -> bool:
    """The same of a header Host, which may have a port."""
    return _is_local(_name(host))


def _host(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _name(host: str) -> str:
    """The host without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _key(headers: Headers) -> bytes:
    """The key that is offered, as the very bytes that came."""
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return bearer.strip().encode("latin-1")
    offered = [text.strip() for text in headers.get("sec-websocket-protocol", "").split(",")]
    for text in offered:
        if text.startswith(ENCODED_KEY):
            return _decoded(text.removeprefix(ENCODED_KEY))
        if text.startswith(WEBSOCKET_KEY):
            return text.removeprefix(WEBSOCKET_KEY).encode("latin-1")
    return headers.get("x-api-key", "").encode("latin-1")


def _decoded(text: str) -> bytes:
    """Of base64url, without its padding; nothing where it is none."""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return b""
