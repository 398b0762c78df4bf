"""What becomes of a problem besides its document, be it of a request, of an image among many or of a frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.logs import log
from service.problems import Problem, let_go
from service.telemetry.metrics import Metrics


def tell(problem: Problem, state: Mapping[str, Any], metrics: Metrics) -> None:
    """Count it, and log the cause of a fault of the server under the `request_id` of the request's state."""
    metrics.refusals.labels(problem.reason()).inc()
    if problem.status == 500:
        fields = {"request_id": state["request_id"]}
        log.error("request failed", exc_info=problem.__cause__ or problem, extra={"fields": fields})
    let_go(problem)
