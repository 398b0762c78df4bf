"""A real Prometheus on the running service: every panel has data, every alert is evaluated. `make test-dashboard`."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy import live
from tests.deploy.dashboard import alerts
from tests.deploy.live import Day

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    if shutil.which("prometheus") is None:
        pytest.fail("prometheus is not installed")
    with live.watched(tmp_path_factory.mktemp("live")) as day:
        yield day


def test_the_load_was_answered_and_refused(day: Day) -> None:
    assert set(day.statuses) == {200, 400, 429}
    assert day.statuses[200] > 100


def test_every_query_of_the_dashboard_returns_data(day: Day) -> None:
    for panel, recorded in day.panels().items():
        for expression, series in recorded.items():
            points = [point for some in series.values() for point in some]
            assert len(points) >= 5, f"{panel}: {expression}"
            assert any(value for _, value in points), f"{panel}: {expression}"


def test_the_dashboard_counts_as_the_clients_do(day: Day) -> None:
    (images,) = day.prometheus.value("mbunet_images_total")
    (refused,) = day.prometheus.value('mbunet_refusals_total{reason="queue-full"}')
    (damaged,) = day.prometheus.value('mbunet_refusals_total{reason="not-an-image"}')
    assert (images, refused, damaged) == tuple(day.statuses[status] for status in (200, 429, 400))


def test_the_sensors_ten_watts_arrive(day: Day) -> None:
    (idle,) = day.prometheus.value("mbunet_idle_watts")
    assert idle == pytest.approx(10, rel=0.05)


def test_every_series_of_the_alerts_is_there(day: Day) -> None:
    for expression in alerts().values():
        for series in re.findall(r"\b(?:mbunet_\w+|up)\b", expression):
            assert day.prometheus.value(f"count({series})"), series


def test_every_alert_is_evaluated_and_only_the_refusals_raise_one(day: Day) -> None:
    states = live.firing(day.prometheus)
    assert {name for name, state in states.items() if state != "inactive"} == {"MbunetRefusing"}


def test_the_dashboard_can_be_drawn(day: Day, tmp_path: Path) -> None:
    live.draw(day, tmp_path / "dashboard.png")
    assert (tmp_path / "dashboard.png").stat().st_size > 50_000
