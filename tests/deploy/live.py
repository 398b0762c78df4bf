"""A real Prometheus watches the running service under load; the dashboard is drawn from its own queries.

    python -m tests.deploy.live .github/images/dashboard.png

The service is `mbunet serve` itself. Only its energy sensor is not real: an INA3221 of files that always say 10 W, so
that the energy panels have something to show on any machine. The picture says so.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import yaml
from matplotlib.axes import Axes

from service.server import listen
from service.settings import Settings
from tests.deploy.dashboard import PANELS, PROMETHEUS, Query, alerts, queries

ROOT = Path(__file__).parents[2]
PATIENCE = 60  # seconds
SCRAPE_S = 1
RATE_INTERVAL = f"{4 * SCRAPE_S}s"
QUEUE_IMAGES = 12  # so few that the heaviest load is refused in part
SENSOR = {"name": "ina3221", "in1_label": "VDD_IN", "in1_input": "5000", "curr1_input": "2000"}  # mV, mA
SERVE = """
import sys
from pathlib import Path
from service import cli
from service.telemetry import energy
sensor = Path(sys.argv.pop())
energy.choose = lambda *_: energy.Ina3221Meter(sensor, "test")
sys.exit(cli.main(sys.argv[1:]))
"""
IMAGES = [path.read_bytes() for path in sorted((ROOT / "tests/data/nuclei/images").glob("*.png"))]

Series = dict[str, list[tuple[float, float]]]
"""(seconds, value) points by what the legend calls them."""


@dataclass(frozen=True)
class Phase:
    """So many clients, each sending the next image as soon as it has an answer, for so many seconds."""

    clients: int
    seconds: float
    damaged: bool = False  # every fifth image is cut short


DAY = (Phase(0, 14), Phase(1, 15), Phase(4, 15), Phase(32, 15), Phase(2, 10, damaged=True), Phase(0, 8))


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus, asked by its HTTP interface."""

    address: str

    def ask(self, path: str, **parameters: Any) -> Any:
        """The `data` of an answer; anything but success raises."""
        answer = httpx.get(f"{self.address}/api/v1/{path}", params=parameters, timeout=PATIENCE).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def value(self, expression: str) -> list[float]:
        """The present value of every series of an expression."""
        return [float(entry["value"][1]) for entry in self.ask("query", query=expression)["result"]]

    def series(self, query: Query, start: float, end: float) -> Series:
        """What a panel's query yields between two times, seconds counted from the start; only finite values."""
        found: Series = {}
        for entry in self.ask("query_range", query=query.expression, start=start, end=end, step=SCRAPE_S)["result"]:
            points = [(float(at) - start, float(value)) for at, value in entry["values"]]
            found[_legend(query, entry["metric"])] = [point for point in points if math.isfinite(point[1])]
        return {name: points for name, points in found.items() if points}


@dataclass(frozen=True)
class Day:
    """What Prometheus recorded while the phases ran."""

    prometheus: Prometheus
    start: float
    end: float
    statuses: dict[int, int]  # answers by status

    def panels(self) -> dict[str, dict[str, Series]]:
        """The series of every query, by panel and expression."""
        found: dict[str, dict[str, Series]] = {}
        for query in queries(RATE_INTERVAL):
            series = self.prometheus.series(query, self.start, self.end)
            found.setdefault(query.panel, {})[query.expression] = series
        return found


@contextmanager
def watched(folder: Path, model: str = "nuclei-small", phases: tuple[Phase, ...] = DAY) -> Iterator[Day]:
    """Run the phases against a service of `model` under the eyes of a Prometheus with the shipped rules."""
    with ExitStack() as stack:
        service = stack.enter_context(_service(folder, model))
        prometheus = stack.enter_context(_prometheus(folder, service))
        start, statuses = time.time(), dict[int, int]()
        for phase in phases:
            _load(service, phase, statuses)
        yield Day(prometheus, start, time.time(), statuses)


def draw(day: Day, path: Path) -> None:
    """The dashboard's panels in their order, drawn with matplotlib."""
    columns = 3
    figure, grid = plt.subplots(-(-len(PANELS) // columns), columns, figsize=(15, 13), layout="constrained")
    recorded = day.panels()
    for axes, panel in zip(grid.flat, PANELS, strict=True):
        _panel(axes, panel, recorded[panel["title"]])
        axes.set_xlim(0, day.end - day.start)
    loads = ", ".join(str(phase.clients) for phase in DAY)
    figure.suptitle(
        "mbunet: the Grafana dashboard's own queries, answered by a real Prometheus and drawn with matplotlib\n"
        f"clients over time: {loads} (the last ones send damaged files too); at most {QUEUE_IMAGES} images may wait\n"
        "power and energy come from a test sensor that says 10 W all the time: no measurement",
        fontsize=11,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _panel(axes: Axes, panel: dict[str, Any], recorded: dict[str, Series]) -> None:
    scale, unit = {
        "s": (1e3, "ms"),
        "percentunit": (100, "%"),
        "bytes": (1e-6, "MB"),
        "ops": (1, "per second"),
        "watt": (1, "W"),
        "joule": (1, "J"),
    }.get(panel["fieldConfig"]["defaults"]["unit"], (1, ""))
    for series in recorded.values():
        for name, points in sorted(series.items()):
            axes.plot([at for at, _ in points], [scale * value for _, value in points], label=name, linewidth=1.4)
    axes.set_title(f"{panel['title']}{f' ({unit})' if unit else ''}", fontsize=10, loc="left")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)


@contextmanager
def _service(folder: Path, model: str) -> Iterator[str]:
    """The address of `mbunet serve` with the test sensor."""
    sensor = folder / "hwmon"
    for name, text in SENSOR.items():
        (sensor / "hwmon1").mkdir(parents=True, exist_ok=True)
        (sensor / "hwmon1" / name).write_text(text)
    flags = ("--port", "0", "--model", model, "--queue-images", str(QUEUE_IMAGES), "--request-images", "1")
    command = [sys.executable, "-c", SERVE, "serve", *flags, str(sensor)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout
            address = re.search(r"http://[\d.:]+", process.stdout.readline())
            assert address
            _until(lambda: httpx.get(f"{address[0]}/readyz").status_code == 200)
            yield address[0]
        finally:
            process.terminate()


@contextmanager
def _prometheus(folder: Path, service: str) -> Iterator[Prometheus]:
    """A Prometheus with the shipped configuration, but for whom it asks and how often."""
    configuration = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"}
    configuration["rule_files"] = [str(PROMETHEUS / "alerts.yml")]
    (job,) = configuration["scrape_configs"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [service.removeprefix("http://")]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    with listen(Settings(port=0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = ("--config.file", "--storage.tsdb.path", "--web.listen-address", "--log.level")
    values = (str(folder / "prometheus.yml"), str(folder / "data"), address, "error")
    command = ["prometheus", *(f"{name}={value}" for name, value in zip(options, values, strict=True))]
    with subprocess.Popen(command) as process:
        try:
            prometheus = Prometheus(f"http://{address}")
            _until(lambda: httpx.get(f"{prometheus.address}/-/ready").status_code == 200)  # before that it answers 503
            _until(lambda: prometheus.value("up") == [1.0])
            yield prometheus
        finally:
            process.terminate()


def _load(service: str, phase: Phase, statuses: dict[int, int]) -> None:
    """Run one phase and count the answers."""
    end, lock = time.monotonic() + phase.seconds, threading.Lock()

    def client(number: int) -> None:
        with httpx.Client(timeout=PATIENCE) as http:
            sent = number
            while time.monotonic() < end:
                sent += 1
                body = IMAGES[sent % len(IMAGES)]
                body = body[: len(body) // 2] if phase.damaged and sent % 5 == 0 else body
                answer = http.post(f"{service}/segment", content=body, headers={"Content-Type": "image/png"})
                with lock:
                    statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
                if answer.status_code == 429:
                    time.sleep(0.1)  # far less than Retry-After asks for

    threads = [threading.Thread(target=client, args=(number,)) for number in range(phase.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    time.sleep(max(0.0, end - time.monotonic()))


def _until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if reached():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise TimeoutError


def _legend(query: Query, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), query.legend) or query.panel


def firing(prometheus: Prometheus) -> dict[str, str]:
    """The state of every alert: inactive, pending or firing. One that Prometheus cannot evaluate raises."""
    (group,) = prometheus.ask("rules", type="alert")["groups"]
    for rule in group["rules"]:
        assert rule["health"] == "ok", rule
    states = {rule["name"]: rule["state"] for rule in group["rules"]}
    assert set(states) == set(alerts())
    return states


def main() -> None:
    """Draw the dashboard into the file that is named."""
    (path,) = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder, watched(Path(folder)) as day:
        draw(day, Path(path))
        print(f"{path}: answers by status {day.statuses}")


if __name__ == "__main__":
    main()
