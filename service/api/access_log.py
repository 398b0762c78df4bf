"""Round every request: its id, time and outcome, one line in the log, and a problem document instead of a crash."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import refusals
from service.api.timing import server_timing
from service.logs import log
from service.problems import BadParameter, EngineFailure, MethodNotAllowed, NotFound, Problem, let_go
from service.telemetry.metrics import Metrics

RawHeaders = Sequence[tuple[bytes, bytes]]
Handler = Callable[[Request, Any], Coroutine[Any, Any, Response]]

TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")  # W3C Trace Context
INTERNAL_ERROR = 1011  # RFC 6455, 7.4.1: the code of a WebSocket's end
REQUEST_ID = re.compile(r"[!-~]{1,128}")  # printable ASCII without spaces


class AccessLog:
    """ASGI middleware: X-Request-Id echoed or made, every outcome timed, counted and logged, nothing raised further."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        if scope.get("method") == "HEAD":  # as GET; the HTTP server leaves the body out
            scope = {**scope, "method": "GET"}
        started = time.perf_counter()
        given = Headers(scope=scope)
        request_id = _request_id(given.get("x-request-id", ""))
        state = scope.setdefault("state", {})
        state |= {"request_id": request_id, "log": {}}
        status = 0  # none sent yet

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "websocket.accept":
                status = 101
            elif message["type"] == "websocket.close":
                # 403: what the HTTP server makes of it before the handshake
                status = 500 if message.get("code") == INTERNAL_ERROR else status or 403
            elif message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
                total = server_timing({"total": 1e3 * (time.perf_counter() - started)})
                message["headers"] = _with_timing(message["headers"], total, request_id)
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            pass
        except Exception as error:
            log.exception("request failed", extra={"fields": {"request_id": request_id}})
            let_go(error)
            if not status:
                self._metrics.refusals.labels(EngineFailure.reason()).inc()
                failure = EngineFailure("an internal error; the server's log tells more under this request_id")
                await failure.response(scope)(scope, receive, send_with_id)
        finally:
            self._metrics.requests.labels(_route(scope), _outcome(status)).inc()
            _log_line(scope, given.get("traceparent", ""), status, time.perf_counter() - started)


def _with_timing(headers: RawHeaders, total: str, request_id: str) -> RawHeaders:
    """Headers of an answer, with its id, and with the time of the whole beside those of its stages."""
    timings = [value for name, value in headers if name == b"server-timing"]
    others = [header for header in headers if header[0] != b"server-timing"]
    timing = b", ".join([*timings, total.encode()])
    return [*others, (b"server-timing", timing), (b"x-request-id", request_id.encode())]


def _log_line(scope: Scope, traceparent: str, status: int, seconds: float) -> None:
    """One line a request. The client's own path and query stay out: a query may hold what is not the log's business."""
    state = scope["state"]
    fields = {"request_id": state["request_id"], "method": scope.get("method", "WEBSOCKET"), "route": _route(scope)}
    given = TRACE.fullmatch(traceparent)
    trace_id = state.get("trace_id") or (given and given[1])
    if trace_id:
        fields["trace_id"] = trace_id
    fields |= {"status": status, "outcome": _outcome(status), "ms": round(1e3 * seconds, 2)} | state["log"]
    log.info("request", extra={"fields": fields})


def handlers(metrics: Metrics) -> dict[int | type[Exception], Handler]:
    """Exception handlers for FastAPI: every error that a route or the router raises becomes a problem document."""

    async def problem(request: Request, error: Exception) -> Response:
        found = _as_problem(request, error)
        request.state.log["reason"] = found.reason()
        refusals.tell(found, request.scope["state"], metrics)
        let_go(error)
        return found.response(request.scope)

    return {Problem: problem, HTTPException: problem, RequestValidationError: problem}


def _as_problem(request: Request, error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        return BadParameter.of(error.errors())
    if isinstance(error, HTTPException) and error.status_code == 405:
        return MethodNotAllowed(f"{request.method} is not allowed on this path", headers=dict(error.headers or {}))
    return NotFound("no such path; /docs lists what there is")


def _request_id(given: str) -> str:
    return given if REQUEST_ID.fullmatch(given) else secrets.token_hex(16)


def _route(scope: Scope) -> str:
    """The route's template, never the client's own path: a label must not grow with what clients send."""
    return getattr(scope.get("route"), "path", "none")


def _outcome(status: int) -> str:
    if status == 0:
        return "cancelled"
    return "ok" if status < 400 else "refused" if status < 500 else "failed"
