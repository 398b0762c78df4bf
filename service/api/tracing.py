"""A span round every request, where traces are wanted."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.telemetry.traces import Traces

UNTRACED = ("/healthz", "/readyz", "/metrics", "/v2/health")  # asked every few seconds, and all the same


class Tracing:
    """ASGI middleware, round the access log: the request's span, and its trace id for the log."""

    def __init__(self, app: ASGIApp, traces: Traces) -> None:
        self._app = app
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(UNTRACED):
            await self._app(scope, receive, send)
            return
        traces, method = self._traces, scope["method"]
        status = 0  # none sent yet

        async def observed(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        parent = traces.propagator.extract(dict(Headers(scope=scope)))
        with traces.tracer.start_as_current_span(method, parent, traces.trace.SpanKind.SERVER) as span:
            trace_id = traces.trace.format_trace_id(span.get_span_context().trace_id)
            scope.setdefault("state", {})["trace_id"] = trace_id
            await self._app(scope, receive, observed)
            route = getattr(scope.get("route"), "path", "")
            span.update_name(f"{method} {route}".strip())
            known = {"http.request.method": method, "http.route": route, "http.response.status_code": status}
            span.set_attributes({name: value for name, value in known.items() if value})
            span.set_attribute("mbunet.request_id", scope["state"]["request_id"])
            if status >= 500:
                span.set_status(traces.trace.StatusCode.ERROR)
