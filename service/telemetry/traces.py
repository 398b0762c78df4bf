"""OpenTelemetry traces, of the extra `otel`: a span for every request, and below it one for every stage of an image.

Off, and neither SDK nor exporter imported, unless OTEL_EXPORTER_OTLP_ENDPOINT says where spans go (OTLP over HTTP). All
other OTEL_* variables mean what that project says; `traceparent` is honoured. Spans hold no more than the log does.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.core.batcher import log

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
UNTRACED = ("/healthz", "/readyz", "/metrics", "/v2/health")  # asked every few seconds, and all the same
FLUSH_S = 2.0  # for the last spans when the server stops; a collector that is gone must not keep it


def from_environment() -> Traces | None:
    """Spans go to where the environment says; None where it says nothing, or the extra is not installed."""
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        log.warning("no traces, although %s is set: %s; pip install 'mbunet[otel]'", ENDPOINTS[0], error)
        return None
    resource = Resource({"service.name": "mbunet"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Traces(provider)


class Traces:
    """The spans of one application."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.trace = trace
        self.propagator = TraceContextTextMapPropagator()
        self.tracer = provider.get_tracer("mbunet")
        self._provider = provider

    def stages(self, seconds: Mapping[str, float]) -> None:
        """A span for every stage of an image that is done just now; below the request's, if that is recorded."""
        if not self.trace.get_current_span().is_recording():
            return
        at = time.time_ns() - round(1e9 * sum(seconds.values()))
        for stage, value in seconds.items():
            span = self.tracer.start_span(stage, start_time=at)
            at += round(1e9 * value)
            span.end(at)

    def stop(self) -> None:
        """Send what is left, for at most FLUSH_S."""
        flush = threading.Thread(target=self._provider.shutdown, daemon=True)
        flush.start()
        flush.join(FLUSH_S)


class Tracing:
    """ASGI middleware, round the envelope: the request's span, and its trace id for the log."""

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
