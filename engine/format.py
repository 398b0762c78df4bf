"""The model file: one .safetensors file whose only metadata key, "mbunet", is sorted, compact JSON.

Nothing in it depends on a device. Saving is byte-reproducible; loading trusts nothing: the header is bounded before it
is parsed, and everything it promises is checked before a tensor is read. Files of format 1 are read as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from reprlib import repr as shorten
from typing import Any, NoReturn

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_bytes

from engine import legacy, whole
from engine.check import check, check_description, check_shapes, check_values, require, specs
from engine.layer import Layer
from engine.model import ClassInfo, Model, ModelFileError, Preprocessing

FORMAT = 2
METADATA_KEY = "mbunet"
MAX_HEADER = 1 << 20  # bytes, with the description escaped and the tensors' entries
MAX_TEXT = 1 << 18  # bytes, of the description

DTYPES = {"U8": "uint8", "I8": "int8", "I16": "int16", "I32": "int32"}  # safetensors' names


def save(model: Model, path: str | Path) -> None:
    """Write `model` to `path`, the same bytes for the same model, or where that fails leave what is there.

    Raises ModelFileError, as `load` would, for a model that `load` would refuse, and OSError.
    """
    whole.write(Path(path), to_bytes(model))


def to_bytes(model: Model) -> bytes:
    """What `save` writes; raises ModelFileError."""
    text = _to_json(model)
    check(replace(_from_json(text)[0], tensors=model.tensors))
    # safetensors writes the memory as it lies, so strided arrays would come back scrambled
    tensors = {name: np.ascontiguousarray(array) for name, array in model.tensors.items()}
    # not save_file: it leaves files that nobody but their owner can read
    return save_bytes(tensors, metadata={METADATA_KEY: text})


def check_ahead(model: Model) -> None:
    """Raise ModelFileError where `save` would for all but the tensors, which `model` need not hold yet."""
    check_description(_from_json(_to_json(model))[0])


def load(path: str | Path) -> Model:
    """Read the model file at `path`.

    Raises ModelFileError, which names the file and the layer, tensor or field at fault, and OSError.
    """
    try:
        _check_header_size(path)
        with safe_open(path, framework="numpy") as file:
            model, version = _from_json(_metadata(file.metadata()))
            check_description(model)
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            found = {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
            expected = specs(model)
            check_shapes(
                legacy.shapes(expected) if version == legacy.FORMAT else expected,
                {name: (DTYPES.get(dtype, dtype), shape) for name, (dtype, shape) in found.items()},
            )
            arrays = {name: file.get_tensor(name).reshape(shape) for name, (_, shape) in expected.items()}
            model = replace(model, tensors=arrays)
        check_values(model)
    except (ModelFileError, SafetensorError) as error:
        raise ModelFileError(f"{Path(path).name}: {error}") from None
    return model


def _check_header_size(path: str | Path) -> None:
    """Check the header's length, the file's first eight bytes, before anything is made of its contents."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
    require(length <= MAX_HEADER, "header", f"{length} bytes long; {MAX_HEADER} are allowed")


def _metadata(metadata: dict[str, str] | None) -> str:
    """The description in a file's metadata, which must hold nothing else."""
    keys = set(metadata or {})
    if metadata is None or keys != {METADATA_KEY}:
        raise ModelFileError(f"metadata: has the keys {shorten(sorted(keys))}; exactly {METADATA_KEY!r} is allowed")
    return metadata[METADATA_KEY]


def _to_json(model: Model) -> str:
    """Everything about `model` but its tensors, as sorted, compact JSON."""
    description = {field.name: getattr(model, field.name) for field in fields(model) if field.name != "tensors"}
    description |= {
        "format": FORMAT,
        "layers": [asdict(layer) for layer in model.layers],
        "classes": [asdict(info) for info in model.classes],
        "preprocessing": {name: value for name, value in asdict(model.preprocessing).items() if value != ""},
    }
    try:
        text = json.dumps(description, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelFileError(f"description: cannot be written as JSON: {error}") from None
    require(len(text) < MAX_TEXT, "description", f"{len(text)} bytes long; {MAX_TEXT} are allowed")
    return text


def _from_json(text: str) -> tuple[Model, int]:
    """The model that `text` describes, without tensors, and its format; fields have their types, any values."""
    try:
        description = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"description: is not JSON: {shorten(str(error))}") from None
    require(type(description) is dict, "description", "is no JSON object")
    version = description.pop("format", None)
    known = type(version) is int and version in (legacy.FORMAT, FORMAT)
    require(known, "format", f"{shorten(version)} is not supported; {legacy.FORMAT} and {FORMAT} are")
    if version == legacy.FORMAT:
        return legacy.Model1(**_fields(legacy.Model1, description, "description")).upgraded(), version
    return Model(**_fields(Model, description, "description"), tensors={}), version


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, unless it holds a key twice."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# -- typed values from JSON: exactly the declared fields, each of exactly its declared type --------------------------


def _fields(cls: type[Any], value: Any, place: str) -> dict[str, Any]:
    """The JSON object `value` as the arguments of dataclass `cls`."""
    _typed(dict, value, place)
    declared = {field.name: field for field in fields(cls) if field.name != "tensors"}
    for name in sorted(declared.keys() | value.keys()):
        require(name in declared, place, f"has the unknown key {shorten(name)}")
        require(name in value or "optional" in declared[name].metadata, place, f"lacks {name!r}")
    place = f"layer {shorten(value['name'])}" if cls in (Layer, legacy.Layer1) else place
    given = {name: str(field.type) for name, field in declared.items() if name in value}
    return {name: PARSERS[kind](value[name], f"{place}, {name}") for name, kind in given.items()}


def _typed(cls: type[Any], value: Any, place: str) -> Any:
    """`value`, which must be exactly a `cls`: a bool is no int here, an int no float."""
    require(type(value) is cls, place, f"must be {cls.__name__}, not {type(value).__name__}")
    return value


def _scalar(cls: type[Any]) -> Callable[[Any, str], Any]:
    return lambda value, place: _typed(cls, value, place)


def _object(cls: type[Any]) -> Callable[[Any, str], Any]:
    return lambda value, place: cls(**_fields(cls, value, place))


def _tuple(parse: Callable[[Any, str], Any], length: int | None = None) -> Callable[[Any, str], tuple[Any, ...]]:
    def parse_all(value: Any, place: str) -> tuple[Any, ...]:
        _typed(list, value, place)
        require(length in (None, len(value)), place, f"must have {length} values, not {len(value)}")
        return tuple(parse(item, f"{place}[{i}]") for i, item in enumerate(value))

    return parse_all


PARSERS: dict[str, Callable[[Any, str], Any]] = {
    "str": _scalar(str),
    "int": _scalar(int),
    "float": _scalar(float),
    "dict[str, Any]": _scalar(dict),
    "tuple[str, ...]": _tuple(_scalar(str)),
    "tuple[int, int, int]": _tuple(_scalar(int), 3),
    "tuple[Layer, ...]": _tuple(_object(Layer)),
    "tuple[Layer1, ...]": _tuple(_object(legacy.Layer1)),
    "tuple[ClassInfo, ...]": _tuple(_object(ClassInfo)),
    "Preprocessing": _object(Preprocessing),
    "Preprocessing1": _object(legacy.Preprocessing1),
}
