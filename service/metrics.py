"""Every Prometheus series of the service, declared once. One registry per application, so that tests stand alone."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

STAGES = ("decode", "queue", "engine", "encode")
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # seconds


class Metrics:
    """The series by name: `metrics.images.inc()`. Labels hold only what the server chooses, never a client's text."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "mbunet_requests",
            "Requests answered, by route and outcome: ok, refused (4xx), failed (5xx), departed.",
            ["route", "outcome"],
            registry=self.registry,
        )
        self.refusals = Counter(
            "mbunet_refusals", "Problem documents sent, by reason.", ["reason"], registry=self.registry
        )
        self.images = Counter("mbunet_images", "Images segmented and answered.", registry=self.registry)
        self.stage_seconds = Histogram(
            "mbunet_stage_seconds", "Seconds per image and stage.", ["stage"], buckets=BUCKETS, registry=self.registry
        )
        self.model_info = Gauge(
            "mbunet_model_info",
            "The model served; always 1.",
            ["name", "family", "device", "kernel"],
            registry=self.registry,
        )

    def observe(self, seconds: dict[str, float]) -> None:
        """Count one answered image and its `seconds` by stage."""
        self.images.inc()
        for stage, value in seconds.items():
            self.stage_seconds.labels(stage).observe(value)

    def text(self) -> bytes:
        """The exposition, in Prometheus' text format."""
        return generate_latest(self.registry)
