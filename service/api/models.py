"""GET /models: what is served."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from service.api.openapi import problem_responses
from service.api.running import Running
from service.core.engine import Engine

router = APIRouter(tags=["models"])


@router.get("/models", responses=problem_responses(401, 403))
async def models(service: Running) -> list[dict[str, Any]]:
    """The models that are served."""
    return [_describe(engine) for engine in service.models.engines]


@router.get("/models/{name}", responses=problem_responses(401, 403, 404, 422))
async def model(name: str, service: Running) -> dict[str, Any]:
    """One model: classes, threshold, preprocessing and provenance."""
    return _describe(service.models.engine(name))


def _describe(engine: Engine) -> dict[str, Any]:
    model = engine.model
    return {
        "name": model.name,
        "family": model.family,
        "device": engine.device,
        "kernel": engine.kernel,
        "classes": [{"name": entry.name, "color": entry.color} for entry in model.classes],
        "threshold": model.threshold,
        "preprocessing": asdict(model.preprocessing),
        "provenance": model.provenance,
    }
