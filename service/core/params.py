"""What a client wants of its images: one class for every route, and the rules that its values must keep."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.images import FIRST, Selection
from service.codec.encoders import ENCODERS, Encoder
from service.core.engine import Engine
from service.problems import BadParameter


@dataclass(frozen=True)
class SegmentParams:
    """By which engine, above which probability, in which format, within how many seconds, how urgently, and which
    channel and page of an image that has several.
    """

    engine: Engine
    threshold: float
    encoder: Encoder = ENCODERS["png"]
    timeout_s: float = math.inf
    low_priority: bool = False
    selection: Selection = FIRST


def threshold(engine: Engine, given: float | None) -> float:
    """The probability from which on a pixel is foreground; raises BadParameter where a model knows none."""
    model = engine.model
    if given is not None and len(model.classes) > 1:
        raise BadParameter(f"model {model.name} has several classes and takes no threshold")
    return model.threshold if given is None else given


def timeout_s(given_ms: int | None, limit_ms: int) -> float:
    """Seconds that a request may take; raises BadParameter where it asks for more than the server's limit."""
    if given_ms is not None and given_ms > limit_ms:
        raise BadParameter(f"timeout_ms: at most {limit_ms} is taken, not {given_ms}", limit=limit_ms)
    return (limit_ms if given_ms is None else given_ms) / 1000
