"""Tensors of the Open Inference Protocol v2: read from a request, written into an answer, as JSON or as bytes.

With the binary extension a body is JSON, as long as the header Inference-Header-Content-Length says, and then the
bytes of the tensors that have `binary_data_size`, one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.problems import BadTensor

INPUT, OUTPUT = "image", "mask"
LENGTH_HEADER = "Inference-Header-Content-Length"
MAX_JSON = 1 << 20  # bytes; more would keep all others waiting while it is read
NUMBERS = 1 << 14  # that become text at a time
COUNT = {"type": "integer", "minimum": 1}
SCHEMA = {  # of a request, for OpenAPI
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": {
            "type": "object",
            "properties": {
                "threshold": {"type": "number", "minimum": 0, "maximum": 1},
                "channel": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 2}, {"const": "max"}]},
                "page": {"anyOf": [{"const": 0}, {"const": "max"}]},
                "timeout": COUNT | {"description": "microseconds"},
                "priority": {"type": "integer", "minimum": 0, "description": "2 and above is low"},
            },
        },
        "inputs": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "datatype", "shape", "data"],
                "properties": {
                    "name": {"enum": [INPUT]},
                    "datatype": {"enum": ["UINT8"]},
                    "shape": {"type": "array", "items": COUNT, "minItems": 4, "maxItems": 4},
                    "data": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}},
                },
            },
        },
    },
    "example": {"inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": [255, 0, 0]}]},
}


@dataclass(frozen=True)
class InferRequest:
    """One request: its id, its parameters, the images uint8 [n, h, w, 3], and whether the mask goes out as bytes."""

    id: str | None
    parameters: dict[str, Any]
    images: NDArray[np.uint8]
    binary: bool


def read(body: bytes, header_length: str | None) -> InferRequest:
    """The request in `body`; raises BadTensor, which says what is wrong."""
    length = len(body)
    if header_length is not None:
        if not header_length.isdecimal() or int(header_length) > len(body):
            raise BadTensor(f"{LENGTH_HEADER} is {header_length[:20]!r}, the body has {len(body)} bytes")
        length = int(header_length)
    if length > MAX_JSON:
        raise BadTensor(
            f"the JSON of a request may have {MAX_JSON} bytes: send the tensor as bytes behind it (the binary tensor "
            f"extension: binary_data_size, and {LENGTH_HEADER})"
        )
    try:
        document = json.loads(body[:length])
    except (ValueError, RecursionError) as error:
        raise BadTensor(f"the inference request is no JSON: {error}") from None
    tensor = _only(document, "inputs", INPUT)
    outputs = document.get("outputs")
    output = _only(document, "outputs", OUTPUT) if outputs else {}
    parameters = _object(document, "parameters")
    binary = _object(output, "parameters").get("binary_data", parameters.get("binary_data_output", False))
    identity = document.get("id")
    return InferRequest(
        identity if isinstance(identity, str) else None, parameters, _images(tensor, body[length:]), bool(binary)
    )


def write(request: InferRequest, model: str, masks: Sequence[NDArray[np.uint8]]) -> tuple[list[bytes], dict[str, str]]:
    """Body, in pieces, and headers of the answer with `masks`, uint8 [h, w] each and all of one size."""
    document = {"model_name": model, "model_version": "1"} | ({} if request.id is None else {"id": request.id})
    output: dict[str, Any] = {"name": OUTPUT, "datatype": "UINT8", "shape": [len(masks), *masks[0].shape]}
    if not request.binary:
        head = f'{json.dumps(document)[:-1]}, "outputs": [{json.dumps(output)[:-1]}, "data": ['
        return [head.encode(), *_numbers(masks), b"]}]}"], {"Content-Type": "application/json"}
    output["parameters"] = {"binary_data_size": sum(mask.nbytes for mask in masks)}
    binary_head = json.dumps(document | {"outputs": [output]}).encode()
    headers = {"Content-Type": "application/octet-stream", LENGTH_HEADER: str(len(binary_head))}
    return [binary_head, *(mask.tobytes() for mask in masks)], headers


def _numbers(masks: Sequence[NDArray[np.uint8]]) -> Iterator[bytes]:
    """All values, by commas, some at a time."""
    for number, mask in enumerate(masks):
        flat = mask.ravel()
        for first in range(0, flat.size, NUMBERS):
            text = json.dumps(flat[first : first + NUMBERS].tolist())[1:-1]
            yield (", " if number or first else "").encode() + text.encode()


def _only(document: Any, key: str, name: str) -> dict[str, Any]:
    """The one tensor called `name` in the list `key`."""
    tensors = document.get(key) if isinstance(document, dict) else None
    if not isinstance(tensors, list) or not all(isinstance(tensor, dict) for tensor in tensors):
        raise BadTensor(f"the request has no list {key!r} of tensors")
    if [tensor.get("name") for tensor in tensors] != [name]:
        raise BadTensor(f"{key!r} must hold exactly one tensor, called {name!r}")
    tensor: dict[str, Any] = tensors[0]
    return tensor


def _object(parent: dict[str, Any], key: str) -> dict[str, Any]:
    value = parent.get(key, {})
    if not isinstance(value, dict):
        raise BadTensor(f"{key!r} must be an object")
    return value


def _images(tensor: dict[str, Any], rest: bytes) -> NDArray[np.uint8]:
    if tensor.get("datatype") != "UINT8":
        raise BadTensor(f"{INPUT!r} must be of datatype UINT8")
    shape = tensor.get("shape")
    if not (isinstance(shape, list) and len(shape) == 4 and all(type(side) is int and side > 0 for side in shape)):
        raise BadTensor(f"{INPUT!r} must have the shape [images, height, width, 3]")
    if shape[3] != 3:
        raise BadTensor(f"{INPUT!r} must have 3 channels in its last dimension, not {shape[3]}")
    size = _object(tensor, "parameters").get("binary_data_size")
    values = _from_json(tensor.get("data")) if size is None else np.frombuffer(rest, np.uint8)
    if size is not None and (type(size) is not int or size != len(rest)):
        raise BadTensor(f"binary_data_size does not agree with the {len(rest)} bytes that follow the JSON")
    if values.size != shape[0] * shape[1] * shape[2] * 3:
        raise BadTensor(f"the shape {shape} does not fit the {values.size} values of {INPUT!r}")
    return values.reshape(shape)


def _from_json(data: Any) -> NDArray[np.uint8]:
    """The values of a flat or nested list."""
    try:
        values = np.asarray(data)
    except (ValueError, OverflowError):
        values = np.empty(0, np.object_)
    if values.dtype.kind != "i" or (values.size and not 0 <= values.min() <= values.max() <= 255):
        raise BadTensor(f"the data of {INPUT!r} must be whole numbers from 0 to 255")
    return values.astype(np.uint8).ravel()
