"""The Open Inference Protocol v2 with the binary tensor extension, as Triton's and KServe's clients speak it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from engine import preprocess
from engine.images import (
    Choice,
    NoSuchPartError,
    Pixels,
    Selection,
    indices,
    of_colors,
    read_choice,
)
from service.api import oip, upload
from service.api.memory import PiecesResponse, held_by
from service.api.oip import INPUT, LABELS, MASK, OUTPUTS, InferRequest
from service.api.openapi import BYTES, problem_responses
from service.api.running import Running, running_service
from service.api.timing import in_time, joules_header, milliseconds, server_timing
from service.codec.encoders import ENCODERS, labelled
from service.codec.pixels import Fitted, Mask
from service.core import cost, params
from service.core.budget import Holding
from service.core.engine import Engine
from service.core.params import SegmentParams
from service.core.pipeline import restored
from service.core.service import Service
from service.core.threads import BRIEF_BYTES
from service.problems import BadParameter, BadTensor, DeadlinePassed, MethodNotAllowed, NotFound, TooManyImages

VERSION = "1"
EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository"]

FIXED = "the setting `model` names the models, which are served as long as the server runs"

router = APIRouter(prefix="/v2", tags=["open inference protocol"])
raw = APIRouter(prefix="/v2", tags=["open inference protocol"])  # for `api.raw_routes`
LOAD_BODY = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}}
REFUSALS = problem_responses(401, 403, 404, 422)
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": oip.SCHEMA},
            "application/octet-stream": {"schema": BYTES},  # the binary tensor extension
        },
    }
}


def named(*parameters: str) -> dict[str, Any]:
    """Those of a raw route's path, for OpenAPI."""
    text = {"in": "path", "required": True, "schema": {"type": "string"}}
    return {"parameters": [{"name": name, **text} for name in parameters]}


def known(name: str, service: Running, version: str = VERSION) -> Engine:
    """The engine that the path names; raises NotFound."""
    if version != VERSION:
        raise NotFound(f"there is only version {VERSION} of every model")
    return service.models.engine(name)


Known = Annotated[Engine, Depends(known)]


@router.get("")
async def server() -> dict[str, Any]:
    """Name, version and extensions of this server."""
    return {"name": "mbunet", "version": VERSION, "extensions": EXTENSIONS}


@router.get("/health/live", responses=problem_responses(503))
async def live(service: Running) -> JSONResponse:
    """As /healthz."""
    service.lifecycle.require_alive()
    return JSONResponse({"live": True})


@router.get("/health/ready", responses=problem_responses(503))
async def ready(service: Running) -> JSONResponse:
    """As /readyz."""
    service.lifecycle.require_ready()
    return JSONResponse({"ready": True})


@router.post("/repository/index", responses=problem_responses(401, 403))
async def index(service: Running) -> list[dict[str, str]]:
    """The models that are served."""
    names = [engine.model.name for engine in service.models.engines]
    return [{"name": name, "version": VERSION, "state": "READY", "reason": ""} for name in names]


@router.post("/repository/models/{name}/load", responses=REFUSALS | problem_responses(400), openapi_extra=LOAD_BODY)
async def load(engine: Known, request: Request, service: Running) -> dict[str, Any]:
    """200 for a model that is served: it is loaded. Another configuration, or another file, is refused."""
    if oip.load_parameters(await upload.body(request, service)):
        raise BadParameter(f"parameters: {engine.model.name} is loaded as it is; {FIXED}")
    return {}


@router.post("/repository/models/{name}/unload", responses=REFUSALS | problem_responses(405))
async def unload(engine: Known) -> None:
    """No model is unloaded."""
    raise MethodNotAllowed(f"{engine.model.name} stays; {FIXED}", headers={"Allow": ""})


@router.get("/models/{name}", responses=REFUSALS)
@router.get("/models/{name}/versions/{version}", responses=REFUSALS)
async def metadata(engine: Known) -> dict[str, Any]:
    """Names, types and shapes of the tensors; -1 is any number."""
    return {
        "name": engine.model.name,
        "versions": [VERSION],
        "platform": "mbunet",
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, -1, -1, 3]}],
        "outputs": [{"name": name, "datatype": kind, "shape": [-1, -1, -1]} for name, kind in OUTPUTS.items()],
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
        "output": [{"name": name, "data_type": f"TYPE_{kind}", "dims": [-1, -1]} for name, kind in OUTPUTS.items()],
    }


@router.get("/models/{name}/ready", responses=REFUSALS | problem_responses(503))
@router.get("/models/{name}/versions/{version}/ready", responses=REFUSALS | problem_responses(503))
async def model_ready(engine: Known, service: Running) -> JSONResponse:
    """200 when the model can be asked."""
    await ready(service)
    return JSONResponse({"name": engine.model.name, "ready": True})


@raw.post(
    "/models/{name}/infer", response_class=Response, responses=problem_responses(), openapi_extra=BODY | named("name")
)
@raw.post(
    "/models/{name}/versions/{version}/infer",
    response_class=Response,
    responses=problem_responses(),
    openapi_extra=BODY | named("name", "version"),
)
async def infer(request: Request) -> Response:
    """Of images uint8 [n, h, w, 3] the output `mask`: uint8 [n, h, w], what /segment gives, 0/255 or class indices.

    Where it is asked for, the output `labels`: uint16 [n, h, w], numbers of objects as in format labels.

    Parameters: `threshold`, `channel`, `timeout` in microseconds, `priority` (2 and above is low); of labels `split`
    and `min_area`. A tensor is one page, so `page` may be 0 alone, and what the model names of files does not matter.
    """
    service = await running_service(request)
    engine = known(service=service, **request.path_params)
    await service.lifecycle.require_room()
    memory = held_by(request)
    body = await upload.body(request, service)
    head, tensor = oip.split(body, request.headers.get(oip.LENGTH_HEADER))

    def read() -> tuple[InferRequest, SegmentParams, float]:
        started = service.clock()
        asked = oip.read(head, tensor)
        _require_size(asked, engine, service)
        return asked, _params(asked, engine, service), service.clock() - started

    brief = oip.TEXT_COST * len(head) + len(tensor) <= BRIEF_BYTES
    asked, wanted, read_s = await service.threads.run(read, len(body), in_place=brief)
    answering = _answer(asked, wanted, read_s, service, memory)
    pieces, headers = await in_time(request, answering, wanted.timeout_s)
    request.state.log |= {"model": engine.model.name, "images": len(asked.images), "bytes": len(body)}
    return PiecesResponse(pieces, headers.pop("Content-Type"), headers | joules_header(service))


async def _answer(
    asked: InferRequest, wanted: SegmentParams, read_s: float, service: Service, memory: Holding
) -> tuple[Sequence[bytes | memoryview], dict[str, str]]:
    """(body in pieces, headers), from fitting the images on; cancelling it ends it before the next image or plane.

    `read_s` are the seconds that were spent on the request before.
    """
    deadline, gone = service.clock() + wanted.timeout_s, threading.Event()
    model, shape = wanted.engine.model, asked.images.shape[1:]
    run_bytes, answer_bytes = cost.run_bytes(wanted, shape), _answer_bytes(asked) * asked.images.size // 3
    selected_bytes = 0 if wanted.selection.channel is None else asked.images.nbytes
    memory.grow(len(asked.images) * run_bytes + selected_bytes)

    def require_time(doing: str) -> None:
        if gone.is_set() or service.clock() > deadline:
            raise DeadlinePassed(f"the deadline passed while {doing}")

    def fit() -> tuple[list[Fitted], float]:
        started, fitted = service.clock(), []
        with memory:
            for image in asked.images:
                require_time("the images were made what the network sees")
                fitted.append(service.pipeline.fit(_channel(image, wanted.selection), wanted, memory))
        return fitted, service.clock() - started

    def write() -> tuple[Sequence[bytes | memoryview], dict[str, str], float]:
        started = service.clock()
        outputs: dict[str, list[oip.Plane]] = {name: [] for name in asked.outputs}
        with memory:
            for result in results:
                require_time("the answer was written")
                mask, _ = restored(result, shape, model)
                for name, planes in outputs.items():
                    require_time("the answer was written")
                    planes.append(_OUTPUT[name](mask, wanted))
            pieces, headers = oip.write(asked, model.name, outputs)
        return pieces, headers, service.clock() - started

    size = len(asked.images) * run_bytes
    brief_fit = asked.images.nbytes <= BRIEF_BYTES and preprocess.keeps(model.preprocessing)
    brief_write = wanted.encoder.brief and all(asked.outputs.values()) and answer_bytes <= BRIEF_BYTES
    try:
        images, fit_s = await service.threads.run(fit, size, in_place=brief_fit)
        results = await service.pipeline.infer(images, wanted, deadline)
        memory.grow(answer_bytes)
        resized = any(image.shape != shape for image in images)
        pieces, headers, encode_s = await service.threads.run(write, size, in_place=brief_write and not resized)
    finally:
        gone.set()
    decode_s = read_s + fit_s
    service.pipeline.answered(results, decode_s, encode_s)
    last = results[-1]
    stages = {"decode": decode_s, "queue": last.queue_s, "engine": last.engine_s, "encode": encode_s}
    return pieces, headers | {"Server-Timing": server_timing(milliseconds(stages))}


_OUTPUT: dict[str, Callable[[Mask, SegmentParams], oip.Plane]] = {
    MASK: lambda mask, wanted: mask * np.uint8(255 if len(wanted.engine.model.classes) == 1 else 1),
    LABELS: lambda mask, wanted: labelled(mask, wanted.objects)[0].astype(np.uint16),
}
"""[h, w] of every output."""


def _answer_bytes(asked: InferRequest) -> int:
    """Bytes that a pixel takes in the answer and on the way to it."""
    number = {MASK: (2, 12), LABELS: (4, 18)}  # as bytes, as text
    return sum(number[name][0 if binary else 1] for name, binary in asked.outputs.items())


def _require_size(asked: InferRequest, engine: Engine, service: Service) -> None:
    most = min(service.settings.request_images, service.settings.queue_images)
    if len(asked.images) > most:
        raise TooManyImages.beyond(most)
    cost.require_size(engine.model, asked.images.shape[1:], service.settings.max_pixels)


def _params(asked: InferRequest, engine: Engine, service: Service) -> SegmentParams:
    timeout_s = _timeout_s(asked, service.settings.timeout_ms)
    threshold = params.threshold(engine.model, _threshold(asked))
    selection = Selection(_part(asked, "channel"), _part(asked, "page"))
    encoder = ENCODERS[LABELS if LABELS in asked.outputs else "png"]
    objects = params.objects(encoder, _split(asked), _min_area(asked), f"the output {LABELS}")
    return SegmentParams(engine, threshold, encoder, timeout_s, _is_low(asked), selection, objects)


def _part(asked: InferRequest, name: str) -> Choice:
    value = asked.parameters.get(name)
    try:
        return None if value is None else read_choice(str(value))
    except ValueError as error:
        raise BadParameter(f"{name}: {error}") from None


def _channel(image: Pixels, selection: Selection) -> Pixels:
    """What is selected of the colors [h, w, 3] of a tensor."""
    try:
        indices("page", selection.page, 1)
        return image if selection.channel is None else of_colors(image, selection.channel)
    except NoSuchPartError as error:
        raise BadParameter(error.reason) from None


def _split(asked: InferRequest) -> str | None:
    value: str | None = asked.parameters.get("split")
    if value not in (None, "distance"):
        raise BadParameter("split: distance, or nothing")
    return value


def _min_area(asked: InferRequest) -> int | None:
    value: int | None = asked.parameters.get("min_area")
    if value is not None and not (type(value) is int and value > 0):
        raise BadParameter("min_area: a whole number of pixels from 1")
    return value


def _threshold(asked: InferRequest) -> float | None:
    value: float | None = asked.parameters.get("threshold")
    if value is not None and not (type(value) in (int, float) and 0 <= value <= 1):
        raise BadParameter("threshold: a number from 0 to 1")
    return value


def _timeout_s(asked: InferRequest, limit_ms: int) -> float:
    """Of the parameter in microseconds, in which 0 is none; the server's limit holds for all."""
    value, limit = _count(asked, "timeout", "microseconds"), 1000 * limit_ms
    if value > limit:
        raise BadParameter(f"timeout: at most {limit} microseconds are taken, not {value}", limit=limit)
    return (value or limit) / 1e6


def _is_low(asked: InferRequest) -> bool:
    return _count(asked, "priority", "places") >= 2


def _count(asked: InferRequest, name: str, unit: str) -> int:
    value: int = asked.parameters.get(name, 0)
    if not (type(value) is int and value >= 0):
        raise BadTensor(f"the parameter {name!r} is a whole number of {unit}")
    return value
