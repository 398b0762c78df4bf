"""The routes: what is read from a request, what is sent back. Nothing is computed here."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import ClientDisconnect

from service import problems
from service.api import query, upload
from service.codec.encoders import ENCODERS, Encoder
from service.core.batcher import Engine
from service.core.pipeline import RETRY, Answer, Service
from service.problems import DeadlinePassed, Problem, Unavailable

T = TypeVar("T")


class Direct(APIRoute):
    """A route that FastAPI documents but does not run: its endpoint takes the request and gives the response.

    What FastAPI does for parameters that an endpoint does not have costs a tenth of a millisecond right after a run
    of the engine, when no cache holds the code.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The endpoint itself."""
        return self.endpoint


router = APIRouter()
images = APIRouter(route_class=Direct, tags=["segmentation"])

PAGES = Path(__file__).parent / "pages"
PAGE_HEADERS = {"Content-Security-Policy": "default-src 'self' 'unsafe-inline'; img-src 'self' blob: data:"}


async def running_service(request: Request) -> Service:
    """The service of this application."""
    service: Service = request.app.state.service
    return service


Running = Annotated[Service, Depends(running_service)]


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems of these statuses (of all, where none is given) as OpenAPI responses."""
    grouped: dict[int | str, dict[str, Any]] = {}
    for problem in problems.tree():
        if statuses and problem.status not in statuses:
            continue
        entry = grouped.setdefault(problem.status, {"description": "", "content": {problems.MEDIA_TYPE: {}}})
        entry["description"] += ("; " if entry["description"] else "") + problem.title
    return grouped


BYTES = {"type": "string", "format": "binary"}
FORMS = {
    "type": "object",
    "required": [upload.FIELD],
    "properties": {upload.FIELD: {"type": "array", "items": BYTES}},
}
FORM = {"type": "object", "required": [upload.FIELD], "properties": {upload.FIELD: BYTES}}
SEGMENT_BODY = {
    "parameters": query.documented(),
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": BYTES},
            "application/octet-stream": {"schema": BYTES},
            "multipart/form-data": {"schema": FORM},
        },
    },
}
BATCH_BODY = {
    "parameters": query.documented(),
    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FORMS}}},
}
SEGMENT_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The mask, of the image's displayed size",
        "content": {encoder.media_type: {} for encoder in ENCODERS.values()},
    },
    **documented(),
}


@images.post("/segment", response_class=Response, responses=SEGMENT_ANSWERS, openapi_extra=SEGMENT_BODY)
async def segment(request: Request) -> Response:
    """Segment one image (the body itself, or the form field `image`): 0/255 for one class, else class indices."""
    service = await running_service(request)
    wanted = query.wish(request.query_params, accept(request), service)
    service.require_ready()
    data = await upload.image(request, service.settings)
    answer = await in_time(request, service.segment(data, wanted), wanted.seconds)
    request.state.log |= {"model": wanted.engine.model.name, "bytes": len(data)} | milliseconds(answer)
    timing = ", ".join(f"{stage};dur={value:.2f}" for stage, value in milliseconds(answer).items())
    headers = {"Server-Timing": timing} | joules_header(service)
    return Response(answer.body, media_type=wanted.encoder.media_type, headers=headers)


@images.post(
    "/segment/batch",
    responses={200: {"description": "An item for every image, in their order"}, **documented()},
    openapi_extra=BATCH_BODY,
)
async def segment_batch(request: Request) -> Response:
    """Segment the images of a form's fields `image`: all are taken, or none; then each has a status of its own.

    An item is `{"status": 200, "media_type", "ms", "data"}`, where `data` is base64, or `result` instead where the
    format is JSON; or it is the problem document of that image alone.
    """
    service = await running_service(request)
    wanted = query.wish(request.query_params, "", service)
    service.require_ready()
    bodies = await upload.images(request, service.settings)
    answers = await in_time(request, service.segment_all(bodies, wanted), wanted.seconds)
    request.state.log |= {"model": wanted.engine.model.name, "images": len(bodies), "bytes": sum(map(len, bodies))}

    def response() -> Response:
        items = [_item(answer, wanted.encoder, request.state.request_id) for answer in answers]
        return JSONResponse({"model": wanted.engine.model.name, "items": items}, headers=joules_header(service))

    return await service.off_the_loop(response)


def _item(answer: Answer | Problem, encoder: Encoder, request_id: str) -> dict[str, Any]:
    if isinstance(answer, Problem):
        return answer.document(request_id)
    item = {"status": 200, "media_type": encoder.media_type, "ms": milliseconds(answer)}
    if encoder.media_type.endswith("json"):
        return item | {"result": json.loads(answer.body)}
    return item | {"data": base64.b64encode(answer.body).decode()}


def accept(request: Request) -> str:
    """The Accept headers as one."""
    return ",".join(request.headers.getlist("accept"))


def milliseconds(answer: Answer) -> dict[str, float]:
    """Milliseconds by stage."""
    return {stage: round(1000 * value, 3) for stage, value in answer.seconds.items()}


def joules_header(service: Service) -> dict[str, str]:
    """What an image costs at present, where that can be read."""
    joules = service.image_joules
    return {} if joules is None else {"X-Joules-Per-Image": f"{joules:.4g}"}


async def in_time(request: Request, work: Coroutine[Any, Any, T], seconds: float) -> T:
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


@router.get("/models", responses=documented(401, 403), tags=["models"])
async def models(service: Running) -> list[dict[str, Any]]:
    """The models that are served."""
    return [_describe(engine) for engine in service.engines.values()]


@router.get("/models/{name}", responses=documented(401, 403, 404, 422), tags=["models"])
async def model(name: str, service: Running) -> dict[str, Any]:
    """One model: classes, threshold, preprocessing and provenance."""
    return _describe(service.engine(name))


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


@router.get("/healthz", responses=documented(503), tags=["operation"])
async def healthz(service: Running) -> JSONResponse:
    """200 while the process can work at all; otherwise a supervisor should restart it."""
    if service.state in ("failed", "hanging"):
        raise Unavailable(f"the server is {service.state}: its engine failed on its first image, or does not return")
    return JSONResponse({"status": "alive"})


@router.get("/readyz", responses=documented(503), tags=["operation"])
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
