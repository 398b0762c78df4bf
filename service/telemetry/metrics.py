"""Every Prometheus series of the service, declared once. One registry per application, so that tests stand alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from service import logs, problems
from service.telemetry.energy import Monitor

STAGES = ("decode", "queue", "engine", "encode")
BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # seconds
BATCHES = (1, 2, 4, 8, 16, 32, 64)  # images
ENERGY_LABELS = ("source", "boundary", "device")

disable_created_metrics()  # type: ignore[no-untyped-call]  # `_created`, beside every counter, tells nobody anything

Read = Callable[[], float]


class ModelInfo(NamedTuple):
    """A model in the metrics."""

    name: str
    family: str
    device: str
    kernel: str


class Metrics:
    """The series by name: `metrics.images.inc()`. Labels hold only what the server chooses, never a client's text.

    `registry` has what is counted, `gauges` what is looked up when somebody asks. Of several processes (`count_in`),
    each counts in files of `folder`, and tells the sum of all.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self.registry = CollectorRegistry()
        self.gauges = CollectorRegistry()
        self.requests = Counter(
            "mbunet_requests",
            "Requests answered, by route and outcome: ok, refused (4xx), failed (5xx), cancelled (the client left).",
            ["route", "outcome"],
            registry=self.registry,
        )
        self.refusals = Counter(
            "mbunet_refusals", "Problem documents sent, by reason.", ["reason"], registry=self.registry
        )
        for problem in problems.tree():  # the first of a reason is an increase, which nothing to one is not
            self.refusals.labels(problem.reason())
        self.images = Counter("mbunet_images", "Images segmented and answered.", registry=self.registry)
        self.stage_seconds = Histogram(
            "mbunet_stage_seconds", "Seconds per image and stage.", ["stage"], buckets=BUCKETS, registry=self.registry
        )
        self._stages = {stage: self.stage_seconds.labels(stage) for stage in STAGES}
        self.batch_images = Histogram(
            "mbunet_batch_images",
            "Images per run of an engine that came to its end.",
            buckets=BATCHES,
            registry=self.registry,
        )
        self.engine_seconds = Counter(
            "mbunet_engine_busy_seconds", "Seconds in which an engine was at work.", registry=self.registry
        )
        self.frames = Counter(
            "mbunet_stream_frames",
            "Frames that came by websocket: answered, dropped (a newer one came) or refused.",
            ["outcome"],
            registry=self.registry,
        )
        self.reloads = Counter(
            "mbunet_reloads", "Reloads of the model files: ok, or failed.", ["outcome"], registry=self.registry
        )

    def observe(self, seconds: dict[str, float]) -> None:
        """Count one answered image and its `seconds` by stage."""
        self.images.inc()
        for stage, value in seconds.items():
            self._stages[stage].observe(value)

    def observe_turn(self, images: int, seconds: float) -> None:
        """Count one turn of an engine, which ends a run of so many images, or of 0 none."""
        self.engine_seconds.inc(seconds)
        if images:
            self.batch_images.observe(images)

    def show_process(self) -> None:
        """Tell of this process and its log."""
        ProcessCollector(registry=self.gauges)
        self.gauges.register(LogCollector(logs.dropped))

    def show_processes(self, pids: Callable[[], Mapping[str, int]], log_dropped: Callable[[], int]) -> None:
        """Tell of all processes, by their names, and of their logs."""
        self.gauges.register(ProcessesCollector(pids))
        self.gauges.register(LogCollector(log_dropped))

    def show_load(self, queue: Read, memory: Read, memory_limit: int, streams: Read) -> None:
        """Tell of images that wait, bytes that requests hold, and websockets."""
        for name, meaning, read in (
            ("mbunet_queue_images", "Images waiting for an engine.", queue),
            ("mbunet_memory_bytes", "Bytes that requests hold: bodies, pixels, answers.", memory),
            ("mbunet_memory_limit_bytes", "Bytes that requests may hold in all.", lambda: memory_limit),
            ("mbunet_streams", "Websockets open.", streams),
        ):
            self.gauges.register(GaugeCollector(name, meaning, read))

    def show_models(self, models: Callable[[], Iterable[ModelInfo]]) -> None:
        """Tell of the models served at the time."""
        self.gauges.register(ModelCollector(models))

    def show_energy(self, monitor: Monitor, images: Callable[[], int]) -> None:
        """Add the energy series; without a meter there are none."""
        self.gauges.register(EnergyCollector(monitor, images))

    def text(self) -> bytes:
        """The exposition, in Prometheus' text format."""
        counts = self.registry
        if self._folder:
            counts = CollectorRegistry()
            MultiProcessCollector(counts, str(self._folder))  # type: ignore[no-untyped-call]
        return generate_latest(counts) + self.gauges_text()

    def gauges_text(self) -> bytes:
        """That part of it that is looked up."""
        return generate_latest(self.gauges)


def count_in(folder: Path, process: str) -> None:
    """Let all metrics of this process that are made from now on be counted in files of `folder`.

    `process` is its place among the others, which it may have taken over: its counts go on where they were.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(partial(str, process))  # type: ignore[no-untyped-call]


class GaugeCollector(Collector):
    """A number that is read when somebody asks."""

    def __init__(self, name: str, meaning: str, read: Read) -> None:
        self._name = name
        self._meaning = meaning
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """The series, for the registry."""
        yield GaugeMetricFamily(self._name, self._meaning, self._read())


class ModelCollector(Collector):
    """Which models there are."""

    def __init__(self, models: Callable[[], Iterable[ModelInfo]]) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """The series, for the registry."""
        info = GaugeMetricFamily("mbunet_model_info", "The model served; always 1.", labels=ModelInfo._fields)
        for model in self._models():
            info.add_metric(model, 1)
        yield info


class ProcessesCollector(Collector):
    """What ProcessCollector tells of one process, of several, with a label more."""

    def __init__(self, pids: Callable[[], Mapping[str, int]]) -> None:
        self._pids = pids

    def collect(self) -> Iterator[Metric]:
        """The series, for the registry."""
        families: dict[str, Metric] = {}
        for process, pid in self._pids().items():
            for family in ProcessCollector(pid=partial(int, pid), registry=None).collect():
                whole = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                whole.samples += [sample._replace(labels={"process": process}) for sample in family.samples]
        yield from families.values()


class LogCollector(Collector):
    """What the log has lost."""

    def __init__(self, dropped: Callable[[], int]) -> None:
        self._dropped = dropped

    def collect(self) -> Iterator[Metric]:
        """The series, for the registry."""
        yield CounterMetricFamily("mbunet_log_dropped", "Lines of the log that could not be written.", self._dropped())


class EnergyCollector(Collector):
    """What the monitor knows at the moment of the scrape. What it does not know is absent, not zero."""

    def __init__(self, monitor: Monitor, images: Callable[[], int]) -> None:
        self._monitor = monitor
        self._images = images

    def collect(self) -> Iterator[Metric]:
        """The series, for the registry."""
        monitor, meter = self._monitor, self._monitor.meter
        joules = CounterMetricFamily(
            "mbunet_energy_joules", "Joules used since the start, by rail (boundary).", labels=ENERGY_LABELS
        )
        for rail, value in monitor.rails.items():
            joules.add_metric([meter.source, rail, meter.device], value)
        yield joules
        if not meter.total:
            return
        labels = [meter.source, monitor.boundary, meter.device]
        total = CounterMetricFamily(
            "mbunet_energy_images", "Images whose energy the boundary covers.", labels=ENERGY_LABELS
        )
        total.add_metric(labels, self._images())
        yield total
        for name, meaning, known in (
            ("mbunet_image_joules", "Joules per image over the last window with images.", monitor.image_joules),
            ("mbunet_idle_watts", "Watts while no engine is at work.", monitor.idle_watts),
        ):
            gauge = GaugeMetricFamily(name, meaning, labels=ENERGY_LABELS)
            if known is not None:
                gauge.add_metric(labels, known)
            yield gauge
