"""What supervisors and Prometheus ask."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from service.api.openapi import problem_responses
from service.api.running import Running

router = APIRouter(tags=["operation"])


@router.get("/healthz", responses=problem_responses(503))
async def healthz(service: Running) -> JSONResponse:
    """200 while the process can work at all; otherwise a supervisor should restart it."""
    service.lifecycle.require_alive()
    return JSONResponse({"status": "alive"})


@router.get("/readyz", responses=problem_responses(503))
async def readyz(service: Running) -> JSONResponse:
    """200 when warmed up and not draining."""
    service.lifecycle.require_ready()
    return JSONResponse({"status": "ready"})


@router.get("/metrics", response_class=Response)
async def metrics(service: Running) -> Response:
    """Prometheus' text format."""
    return Response(await service.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})
