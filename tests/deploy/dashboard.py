"""The Grafana dashboard and the alert rules as Python sees them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/mbunet.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]


@dataclass(frozen=True)
class Query:
    """One query of one panel; `legend` is a template such as "{{stage}}"."""

    panel: str
    unit: str
    expression: str
    legend: str


def queries(rate_interval: str = "20s") -> list[Query]:
    """Every query of the dashboard. `rate_interval` stands for Grafana's variable: four times that between scrapes."""
    found = []
    for panel in PANELS:
        unit = panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", rate_interval)
            assert "$" not in expression, expression
            found.append(Query(panel["title"], unit, expression, target["legendFormat"]))
    return found


def alerts() -> dict[str, str]:
    """The expression of every alert by its name."""
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}
