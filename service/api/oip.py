"""Tensors of the Open Inference Protocol v2: read from a request, written into an answer, as JSON or as bytes.

With the binary extension a body is JSON, as long as the header Inference-Header-Content-Length says, and then the
bytes of the tensors that have `binary_data_size`, one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.api.lengths import read_length
from service.problems import BadParameter, BadTensor

INPUT, MASK, LABELS = "image", "mask", "labels"
OUTPUTS = {MASK: "UINT8", LABELS: "UINT16"}
"""What may be asked for, the mask where nothing is, and of which datatype it is."""

LENGTH_HEADER = "Inference-Header-Content-Length"
MAX_JSON = 1 << 20  # bytes; more would keep all others waiting while it is read
TEXT_COST = 64  # bytes of a tensor that are copied while one of JSON is read
Plane = NDArray[np.uint8] | NDArray[np.uint16]
NUMBERS = 1 << 14  # that become text at a time
COUNT = {"type": "integer", "minimum": 1}
PARAMETERS = {
    "threshold": {"type": "number", "minimum": 0, "maximum": 1},
    "channel": {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 2}, {"const": "max"}]},
    "page": {"anyOf": [{"const": 0}, {"const": "max"}]},
    "split": {"enum": ["distance"], "description": "of labels: cut touching objects at their necks"},
    "min_area": COUNT | {"description": "of labels: pixels of the smallest object"},
    "timeout": {"type": "integer", "minimum": 0, "description": "microseconds; 0 is the server's limit"},
    "priority": {"type": "integer", "minimum": 0, "description": "2 and above is low"},
    "binary_data_output": {"type": "boolean", "description": "outputs as bytes, where they do not say it themselves"},
}
"""Of a request; there are no others."""

SCHEMA = {  # of a request, for OpenAPI
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "outputs": {
            "type": "array",
            "description": "by default the mask alone",
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"enum": list(OUTPUTS)}}},
        },
        "parameters": {"type": "object", "properties": PARAMETERS, "additionalProperties": False},
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
    """One request: its id, its parameters, the images uint8 [n, h, w, 3], and of each output that is asked for whether
    it goes out as bytes.
    """

    id: str | None
    parameters: dict[str, Any]
    images: NDArray[np.uint8]
    outputs: dict[str, bool]


def split(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    """The JSON of a request, and the bytes of tensors behind it; raises BadTensor."""
    length = len(body) if header_length is None else read_length(header_length)
    if length is None or length > len(body):
        raise BadTensor(f"{LENGTH_HEADER} is {(header_length or '')[:20]!r}, the body has {len(body)} bytes")
    if length > MAX_JSON:
        raise BadTensor(
            f"the JSON of a request may have {MAX_JSON} bytes: send the tensor as bytes behind it (the binary tensor "
            f"extension: binary_data_size, and {LENGTH_HEADER})"
        )
    return body[:length], memoryview(body)[length:]


def read(head: bytes, tensor: memoryview) -> InferRequest:
    """The request whose JSON and bytes these are; raises BadTensor, which says what is wrong, and BadParameter."""
    document = _json(head)
    tensors = _tensors(document, "inputs")
    if list(tensors) != [INPUT]:
        raise BadTensor(f"'inputs' must hold exactly one tensor, called {INPUT!r}")
    parameters = _parameters(document, PARAMETERS)
    identity = document.get("id")
    return InferRequest(
        identity if isinstance(identity, str) else None,
        parameters,
        _images(tensors[INPUT], tensor),
        _outputs(document, bool(parameters.get("binary_data_output", False))),
    )


def load_parameters(body: bytes) -> Any:
    """What the request to load a model asks of it, if anything; raises BadTensor."""
    if len(body) > MAX_JSON:
        raise BadTensor(f"the JSON of a request may have {MAX_JSON} bytes")
    document = _json(body) if body.strip() else {}
    return document.get("parameters") if isinstance(document, dict) else document


def write(
    request: InferRequest, model: str, outputs: Mapping[str, Sequence[Plane]]
) -> tuple[Sequence[bytes | memoryview], dict[str, str]]:
    """Body, in pieces, and headers of the answer with `outputs`: of each [h, w] for every image, all of one size."""
    document = {"model_name": model, "model_version": "1"} | ({} if request.id is None else {"id": request.id})
    head: list[bytes] = []
    text = f'{json.dumps(document)[:-1]}, "outputs": ['
    rest: list[memoryview] = []
    for number, (name, planes) in enumerate(outputs.items()):
        tensor: dict[str, Any] = {"name": name, "datatype": OUTPUTS[name], "shape": [len(planes), *planes[0].shape]}
        text += ", " if number else ""
        if request.outputs[name]:
            tensor["parameters"] = {"binary_data_size": sum(plane.nbytes for plane in planes)}
            text += json.dumps(tensor)
            rest += [plane.ravel().data.cast("B") for plane in planes]
        else:
            head += [f'{text}{json.dumps(tensor)[:-1]}, "data": ['.encode(), *_numbers(planes)]
            text = "]}"
    head += [f"{text}]}}".encode()]
    if not rest:
        return head, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", LENGTH_HEADER: str(sum(map(len, head)))}
    return [*head, *rest], headers


def _numbers(planes: Sequence[Plane]) -> Iterator[bytes]:
    """All values, by commas, some at a time."""
    for number, plane in enumerate(planes):
        flat = plane.ravel()
        for first in range(0, flat.size, NUMBERS):
            text = json.dumps(flat[first : first + NUMBERS].tolist())[1:-1]
            yield (", " if number or first else "").encode() + text.encode()


def _outputs(document: dict[str, Any], binary: bool) -> dict[str, bool]:
    """What is asked for, and whether as bytes; `binary` where that is not said."""
    if not document.get("outputs"):
        return {MASK: binary}
    tensors = _tensors(document, "outputs")
    if not OUTPUTS.keys() >= tensors.keys():
        raise BadTensor(f"'outputs' may hold {' and '.join(map(repr, OUTPUTS))}")
    return {
        name: bool(_parameters(tensor, ["binary_data"]).get("binary_data", binary)) for name, tensor in tensors.items()
    }


def _tensors(document: Any, key: str) -> dict[str, dict[str, Any]]:
    """The tensors in the list `key`, by name."""
    tensors = document.get(key) if isinstance(document, dict) else None
    if not isinstance(tensors, list) or not all(isinstance(tensor, dict) for tensor in tensors):
        raise BadTensor(f"the request has no list {key!r} of tensors")
    named = {str(tensor.get("name")): tensor for tensor in tensors}
    if len(named) < len(tensors):
        raise BadTensor(f"two of {key!r} have one name")
    return named


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadTensor(f"the request is no JSON: {error}") from None


def _parameters(parent: dict[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The member `parameters` of the request or of a tensor."""
    value = parent.get("parameters", {})
    if not isinstance(value, dict):
        raise BadTensor("'parameters' must be an object")
    for name in value:
        if name not in known:
            raise BadParameter(f"there is no parameter {name[:100]!r} here; there is {', '.join(known)}")
    return value


def _images(tensor: dict[str, Any], rest: memoryview) -> NDArray[np.uint8]:
    if tensor.get("datatype") != "UINT8":
        raise BadTensor(f"{INPUT!r} must be of datatype UINT8")
    shape = tensor.get("shape")
    if not (isinstance(shape, list) and len(shape) == 4 and all(type(side) is int and side > 0 for side in shape)):
        raise BadTensor(f"{INPUT!r} must have the shape [images, height, width, 3]")
    if shape[3] != 3:
        raise BadTensor(f"{INPUT!r} must have 3 channels in its last dimension, not {shape[3]}")
    size = _parameters(tensor, ["binary_data_size"]).get("binary_data_size")
    values = _from_json(tensor.get("data")) if size is None else np.frombuffer(rest, np.uint8)
    if size is not None and (type(size) is not int or size != len(rest)):
        raise BadTensor(f"binary_data_size does not agree with the {len(rest)} bytes that follow the JSON")
    if values.size != shape[0] * shape[1] * shape[2] * 3:
        raise BadTensor(f"the shape {shape} does not fit the {values.size} values of {INPUT!r}")
    return values.reshape(shape)


def _from_json(data: Any) -> NDArray[np.uint8]:
    """The values of a flat or nested list: as objects first, since of text numpy would make room for the longest."""
    try:
        values = np.asarray(data, np.object_).ravel().tolist()
    except ValueError:  # lists of different lengths
        values = [None]
    if not all(type(value) is int and 0 <= value <= 255 for value in values):
        raise BadTensor(f"the data of {INPUT!r} must be whole numbers from 0 to 255")
    return np.array(values, np.uint8)
