"""The routes: what is read from a request, what is sent back. Nothing is computed here."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect

from service import negotiate, problems, upload
from service.codec import ENCODERS
from service.problems import DeadlinePassed, NotFound, Unavailable
from service.service import RETRY, Service

T = TypeVar("T")
router = APIRouter()

PAGES = Path(__file__).parent / "pages"
PAGE_HEADERS = {"Content-Security-Policy": "default-src 'self' 'unsafe-inline'; img-src 'self' blob: data:"}


async def running_service(request: Request) -> Service:
    """The service of this application."""
    service: Service = request.app.state.service
    return service


Running = Annotated[Service, Depends(running_service)]


class SegmentQuery(BaseModel):
    """Query of POST /segment. An unknown parameter is refused: it would be a misspelt one."""

    model_config = ConfigDict(extra="forbid")

    threshold: float | None = Field(
        None, ge=0, le=1, allow_inf_nan=False, description="Probability at which a pixel is foreground."
    )
    format: str | None = Field(
        None,
        description="Format of the answer; goes before the Accept header.",
        json_schema_extra={"enum": list(ENCODERS)},
    )
    timeout_ms: int | None = Field(None, ge=1, description="Milliseconds from the end of the upload to the answer.")


def _documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems of these statuses (of all, where none is given) as OpenAPI responses."""
    grouped: dict[int | str, dict[str, Any]] = {}
    for problem in problems.tree():
        if statuses and problem.status not in statuses:
            continue
        entry = grouped.setdefault(problem.status, {"description": "", "content": {problems.MEDIA_TYPE: {}}})
        entry["description"] += ("; " if entry["description"] else "") + problem.title
    return grouped


BYTES = {"type": "string", "format": "binary"}
FORM = {"type": "object", "required": [upload.FIELD], "properties": {upload.FIELD: BYTES}}
SEGMENT_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": BYTES},
            "application/octet-stream": {"schema": BYTES},
            "multipart/form-data": {"schema": FORM},
        },
    }
}
SEGMENT_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The mask, of the image's displayed size",
        "content": {encoder.media_type: {} for encoder in ENCODERS.values()},
    },
    **_documented(),
}


@router.post(
    "/segment", response_class=Response, responses=SEGMENT_ANSWERS, openapi_extra=SEGMENT_BODY, tags=["segmentation"]
)
async def segment(request: Request, query: Annotated[SegmentQuery, Query()], service: Running) -> Response:
    """Segment one image (the body itself, or the form field `image`): 0/255 for one class, else class indices."""
    encoder = negotiate.choose(query.format, ",".join(request.headers.getlist("accept")))
    threshold = service.threshold(query.threshold)
    seconds = service.seconds_allowed(query.timeout_ms)
    service.require_ready()
    data = await upload.read(request, service.settings.max_body_bytes)
    work = service.segment(data, threshold, encoder, service.clock() + seconds)
    answer = await _in_time(request, work, seconds)
    timing = ", ".join(f"{stage};dur={1000 * value:.2f}" for stage, value in answer.seconds.items())
    return Response(answer.body, media_type=encoder.media_type, headers={"Server-Timing": timing})


async def _in_time(request: Request, work: Coroutine[Any, Any, T], seconds: float) -> T:
    """The result of `work`, which is cancelled when `seconds` have passed or the client has left."""
    task = asyncio.create_task(work)
    departure = asyncio.ensure_future(request.receive())  # the body is read: all that can still come is a disconnect
    try:
        done, _ = await asyncio.wait({task, departure}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task in done:
            return task.result()
        if departure in done:
            raise ClientDisconnect
        raise DeadlinePassed(f"there was no mask after {1000 * seconds:.0f} ms")
    finally:
        task.cancel()
        departure.cancel()


@router.get("/models", tags=["models"])
async def models(service: Running) -> list[dict[str, Any]]:
    """The models that are served."""
    return [_describe(service)]


@router.get("/models/{name}", responses=_documented(404, 422), tags=["models"])
async def model(name: str, service: Running) -> dict[str, Any]:
    """One model: classes, threshold, preprocessing and provenance."""
    if name != service.model.name:
        raise NotFound(f"there is no model of this name; there is {service.model.name}")
    return _describe(service)


def _describe(service: Service) -> dict[str, Any]:
    model = service.model
    return {
        "name": model.name,
        "family": model.family,
        "device": service.engine.device,
        "kernel": service.engine.kernel,
        "classes": [{"name": entry.name, "color": entry.color} for entry in model.classes],
        "threshold": model.threshold,
        "provenance": model.provenance,
    }


@router.get("/healthz", responses=_documented(503), tags=["operation"])
async def healthz(service: Running) -> JSONResponse:
    """200 while the process can work at all; otherwise a supervisor should restart it."""
    if service.state == "failed":
        raise Unavailable("the engine failed on its first image")
    return JSONResponse({"status": "alive"})


@router.get("/readyz", responses=_documented(503), tags=["operation"])
async def readyz(service: Running) -> JSONResponse:
    """200 when warmed up and not draining."""
    if service.state != "ready":
        raise Unavailable(f"the server is {service.state}", headers=RETRY)
    return JSONResponse({"status": "ready"})


@router.get("/metrics", response_class=Response, tags=["operation"])
async def metrics(service: Running) -> Response:
    """Prometheus' text format."""
    return Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
async def front_page() -> HTMLResponse:
    """A page to drop an image on."""
    return _page("index.html")


@router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
async def docs_page() -> HTMLResponse:
    """/openapi.json made readable, without anything from another host."""
    return _page("docs.html")


def _page(name: str) -> HTMLResponse:
    return HTMLResponse((PAGES / name).read_text(encoding="utf-8"), headers=PAGE_HEADERS)
