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

from service.logs import log

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
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
        log.warning("no traces, although %s is set: %s; pip install -e '.[otel]'", ENDPOINTS[0], error)
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
