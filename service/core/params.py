"""What a client wants of its images: one class for every route, and the rules that its values must keep."""

from __future__ import annotations

import math
from typing import NamedTuple

from engine.images import FIRST, WHOLE_COMPONENTS, ObjectParams, Selection, read_selection
from engine.model import Model, Preprocessing
from service.codec.encoders import ENCODERS, Encoder
from service.core.engine import Engine
from service.problems import BadParameter

OBJECT_FORMATS = f"the formats {' and '.join(name for name, encoder in ENCODERS.items() if encoder.of_objects)}"


class SegmentParams(NamedTuple):
    """By which engine, above which probability, in which format, within how many seconds, how urgently, which
    channel and page of an image that has several, and what counts as an object.
    """

    engine: Engine
    threshold: float
    encoder: Encoder = ENCODERS["png"]
    timeout_s: float = math.inf
    low_priority: bool = False
    selection: Selection = FIRST
    objects: ObjectParams = WHOLE_COMPONENTS


def threshold(model: Model, given: float | None) -> float:
    """The probability from which on a pixel is foreground; raises BadParameter where a model knows none."""
    if given is not None and len(model.classes) > 1:
        raise BadParameter(f"model {model.name} has several classes and takes no threshold")
    return model.threshold if given is None else given


def selection(how: Preprocessing, given: Selection) -> Selection:
    """Which channel and page of a file: those that are given, else those that the model names, else the first."""
    return given.before(read_selection(how.channel, how.page))


def objects(encoder: Encoder, split: str | None, min_area: int | None, holders: str = OBJECT_FORMATS) -> ObjectParams:
    """What counts as an object; raises BadParameter, which names what has some, where the format has none."""
    if not encoder.of_objects:
        for name, given in (("split", split), ("min_area", min_area)):
            if given is not None:
                raise BadParameter(f"{name} is for {holders}")
    return ObjectParams(split == "distance", min_area or 1)


def timeout_s(given_ms: int | None, limit_ms: int) -> float:
    """Seconds that a request may take; raises BadParameter where it asks for more than the server's limit."""
    if given_ms is not None and given_ms > limit_ms:
        raise BadParameter(f"timeout_ms: at most {limit_ms} is taken, not {given_ms}", limit=limit_ms)
    return (limit_ms if given_ms is None else given_ms) / 1000
