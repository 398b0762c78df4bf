"""POST /segment and /segment/batch: what is read from a request, what is sent back. Nothing is computed here."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from service.api import query, refusals, upload
from service.api.memory import PiecesResponse, held_by
from service.api.openapi import BYTES, problem_responses
from service.api.running import running_service
from service.api.taken import taken_header, taken_member
from service.api.timing import in_time, joules_header, milliseconds, server_timing
from service.codec.encoders import ENCODERS, Encoder
from service.core.pipeline import SegmentResponse
from service.problems import Problem

router = APIRouter(tags=["segmentation"])

BASE64_BYTES = 3 << 18  # that become text at a time

FORMS = {
    "type": "object",
    "required": [upload.FIELD],
    "properties": {upload.FIELD: {"type": "array", "items": BYTES}},
    "additionalProperties": False,
}
FORM = FORMS | {"properties": {upload.FIELD: BYTES}}
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
    **problem_responses(),
}


@router.post("/segment", response_class=Response, responses=SEGMENT_ANSWERS, openapi_extra=SEGMENT_BODY)
async def segment(request: Request) -> Response:
    """Segment one image (the body itself, or the form field `image`): 0/255 for one class, else class indices."""
    service = await running_service(request)
    params = query.segment_params(request.query_params, _accept(request), service)
    await service.lifecycle.require_room()
    data = await upload.image(request, service)
    segmented = await in_time(request, service.pipeline.segment(data, params, held_by(request)), params.timeout_s)
    ms = milliseconds(segmented.seconds)
    request.state.log |= {"model": params.engine.model.name, "bytes": len(data)} | ms
    headers = {"Server-Timing": server_timing(ms)} | taken_header(segmented.taken) | joules_header(service)
    return PiecesResponse(segmented.pieces, params.encoder.media_type, headers)


@router.post(
    "/segment/batch",
    responses={200: {"description": "An item for every image, in their order"}, **problem_responses()},
    openapi_extra=BATCH_BODY,
)
async def segment_batch(request: Request) -> Response:
    """Segment the images of a form's fields `image`: all are taken, or none; then each has a status of its own.

    An item is `{"status": 200, "media_type", "ms", "data"}`, where `data` is base64, or `result` instead where the
    format is JSON, and `taken` where the image has several channels or pages; or it is the problem document of that
    image alone.
    """
    service = await running_service(request)
    params = query.segment_params(request.query_params, "", service)
    await service.lifecycle.require_room()
    bodies = await upload.images(request, service)
    memory = held_by(request)
    segmented = await in_time(request, service.pipeline.segment_all(bodies, params, memory), params.timeout_s)
    model = params.engine.model.name
    request.state.log |= {"model": model, "images": len(bodies), "bytes": sum(map(len, bodies))}

    state = request.scope["state"]
    for one in segmented:
        if isinstance(one, Problem):
            refusals.tell(one, state, service.metrics)
    size = 2 * sum(one.size for one in segmented if isinstance(one, SegmentResponse))  # as base64
    memory.grow(size)
    pieces = await service.threads.run(lambda: list(_document(model, segmented, params.encoder, state)), size)
    return PiecesResponse(pieces, "application/json", joules_header(service))


def _document(
    model: str, segmented: Sequence[SegmentResponse | Problem], encoder: Encoder, state: Mapping[str, Any]
) -> Iterator[bytes]:
    yield f'{{"model":{json.dumps(model)},"items":['.encode()
    for number, one in enumerate(segmented):
        if number:
            yield b","
        if isinstance(one, Problem):
            yield json.dumps(one.document(state)).encode()
        else:
            yield from _item(one, encoder)
    yield b"]}"


def _item(segmented: SegmentResponse, encoder: Encoder) -> Iterator[bytes]:
    """Its answer is not one text at any time: it may be large."""
    item = {"status": 200, "media_type": encoder.media_type, "ms": milliseconds(segmented.seconds)}
    item |= taken_member(segmented.taken)
    if encoder.media_type.endswith("json"):
        yield json.dumps(item)[:-1].encode() + b',"result":'
        yield from segmented.pieces
        yield b"}"
    else:
        yield json.dumps(item)[:-1].encode() + b',"data":"'
        body = b"".join(segmented.pieces)
        for first in range(0, len(body), BASE64_BYTES):
            yield base64.b64encode(body[first : first + BASE64_BYTES])
        yield b'"}'


def _accept(request: Request) -> str:
    """The Accept headers as one."""
    return ",".join(request.headers.getlist("accept"))
