"""Prometheus' own tool on the configuration, the alerts and every query of the dashboard."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.dashboard import PANELS, PROMETHEUS, alerts, queries

pytestmark = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, cwd=PROMETHEUS)


@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml"), ("test", "rules", "alerts.test.yml")],
    ids=" ".join,
)
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    done = promtool(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_alert_that_never_fires_is_caught(tmp_path: Path) -> None:
    text = (PROMETHEUS / "alerts.yml").read_text()
    (tmp_path / "alerts.yml").write_text(text.replace('up{job="mbunet"} == 0', 'up{job="mbunet"} == 2'))
    shutil.copy(PROMETHEUS / "alerts.test.yml", tmp_path)
    assert promtool("test", "rules", tmp_path / "alerts.test.yml").returncode != 0


def test_every_alert_has_a_test_in_which_it_fires() -> None:
    tests = yaml.safe_load((PROMETHEUS / "alerts.test.yml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case.get("exp_alerts")}
    assert fired == set(alerts())


def test_every_query_of_the_dashboard_parses(tmp_path: Path) -> None:
    rules = [{"record": f"panel:query:{i}", "expr": query.expression} for i, query in enumerate(queries())]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = promtool("check", "rules", tmp_path / "rules.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(rules) >= len(PANELS)
