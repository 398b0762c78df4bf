"""The Open Inference Protocol v2 with the binary tensor extension, as Triton's and KServe's clients speak it."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from service.api import oip, upload
from service.api.oip import INPUT, OUTPUT, InferRequest
from service.api.routes import BYTES, Running, documented, in_time, joules_header
from service.codec.pixels import fitted_pixels
from service.core.batcher import Engine, Work
from service.core.pipeline import RETRY, Service
from service.problems import BadParameter, BadTensor, NotFound, TooManyImages, TooManyPixels, Unavailable

VERSION = "1"
EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository"]

router = APIRouter(prefix="/v2", tags=["open inference protocol"])
REFUSALS = documented(401, 403, 404, 422)
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": oip.SCHEMA},
            "application/octet-stream": {"schema": BYTES},  # the binary tensor extension
        },
    }
}


def known(name: str, service: Running, version: str = VERSION) -> Engine:
    """The engine that the path names; raises NotFound."""
    if version != VERSION:
        raise NotFound(f"there is only version {VERSION} of every model")
    return service.engine(name)


Known = Annotated[Engine, Depends(known)]


@router.get("")
async def server() -> dict[str, Any]:
    """Name, version and extensions of this server."""
    return {"name": "mbunet", "version": VERSION, "extensions": EXTENSIONS}


@router.get("/health/live", responses=documented(503))
async def live(service: Running) -> JSONResponse:
    """As /healthz."""
    if service.state in ("failed", "hanging"):
        raise Unavailable(f"the server is {service.state}")
    return JSONResponse({"live": True})


@router.get("/health/ready", responses=documented(503))
async def ready(service: Running) -> JSONResponse:
    """As /readyz."""
    if service.state != "ready":
        raise Unavailable(f"the server is {service.state}", headers=RETRY)
    return JSONResponse({"ready": True})


@router.post("/repository/index", responses=documented(401, 403))
async def index(service: Running) -> list[dict[str, str]]:
    """The models that are served."""
    return [{"name": name, "version": VERSION, "state": "READY", "reason": ""} for name in service.engines]


@router.get("/models/{name}", responses=REFUSALS)
@router.get("/models/{name}/versions/{version}", responses=REFUSALS)
async def metadata(engine: Known) -> dict[str, Any]:
    """Names, types and shapes of the tensors; -1 is any number."""
    return {
        "name": engine.model.name,
        "versions": [VERSION],
        "platform": "mbunet",
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, -1, -1, 3]}],
        "outputs": [{"name": OUTPUT, "datatype": "UINT8", "shape": [-1, -1, -1]}],
    }


@router.get("/models/{name}/config", responses=REFUSALS)
@router.get("/models/{name}/versions/{version}/config", responses=REFUSALS)
async def config(engine: Known, service: Running) -> dict[str, Any]:
    """The same in the words of Triton's model configuration."""
    return {
        "name": engine.model.name,
        "platform": "mbunet",
        "max_batch_size": service.settings.request_images,
        "input": [{"name": INPUT, "data_type": "TYPE_UINT8", "dims": [-1, -1, 3]}],
        "output": [{"name": OUTPUT, "data_type": "TYPE_UINT8", "dims": [-1, -1]}],
    }


@router.get("/models/{name}/ready", responses=REFUSALS | documented(503))
@router.get("/models/{name}/versions/{version}/ready", responses=REFUSALS | documented(503))
async def model_ready(engine: Known, service: Running) -> JSONResponse:
    """200 when the model can be asked."""
    await ready(service)
    return JSONResponse({"name": engine.model.name, "ready": True})


@router.post("/models/{name}/infer", response_class=Response, responses=documented(), openapi_extra=BODY)
@router.post(
    "/models/{name}/versions/{version}/infer", response_class=Response, responses=documented(), openapi_extra=BODY
)
async def infer(engine: Known, request: Request, service: Running) -> Response:
    """Masks uint8 [n, h, w] of images uint8 [n, h, w, 3]: what /segment gives, 0/255 or class indices.

    Parameters: `threshold`, `timeout` in microseconds, `priority` (2 and above is low).
    """
    service.require_ready()
    body = await upload.body(request, service.settings)
    length = request.headers.get(oip.LENGTH_HEADER)
    asked = await service.off_the_loop(lambda: oip.read(body, length))
    _require_size(asked, service)
    seconds = service.seconds_allowed(_timeout_ms(asked))
    work = Work(engine, _threshold(asked, engine, service), service.clock() + seconds, _is_low(asked))
    replies = await in_time(request, service.run(list(asked.images), work), seconds)
    request.state.log |= {"model": engine.model.name, "images": len(replies), "bytes": len(body)}
    scale = np.uint8(255 if len(engine.model.classes) == 1 else 1)
    masks = np.stack([reply.mask for reply in replies if reply.mask is not None]) * scale
    content, headers = await service.off_the_loop(lambda: oip.write(asked, engine.model.name, masks))
    last = replies[-1]
    timing = {"Server-Timing": f"queue;dur={1e3 * last.queue_s:.2f}, engine;dur={1e3 * last.engine_s:.2f}"}
    return Response(content, headers=headers | timing | joules_header(service))


def _require_size(asked: InferRequest, service: Service) -> None:
    count, height, width, _ = asked.images.shape
    most = min(service.settings.request_images, service.settings.queue_images)
    if count > most:
        raise TooManyImages(f"at most {most} images are taken in one request", limit=most)
    pixels, limit = fitted_pixels(height, width), service.settings.max_pixels
    if pixels > limit:
        raise TooManyPixels(f"an image may have {limit} pixels, sides rounded up to multiples of 16", limit=limit)


def _threshold(asked: InferRequest, engine: Engine, service: Service) -> float:
    value = asked.parameters.get("threshold")
    if value is not None and not (type(value) in (int, float) and 0 <= value <= 1):
        raise BadParameter("threshold: a number from 0 to 1")
    return service.threshold(engine, value)


def _timeout_ms(asked: InferRequest) -> int | None:
    value = asked.parameters.get("timeout")
    if value is not None and not (type(value) is int and value > 0):
        raise BadTensor("the parameter `timeout` is a whole number of microseconds")
    return None if value is None else max(1, value // 1000)


def _is_low(asked: InferRequest) -> bool:
    priority = asked.parameters.get("priority", 0)
    return type(priority) is int and priority >= 2
