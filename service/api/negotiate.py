"""Which format the answer takes: `format` in the query first, then the Accept header, else PNG."""

from __future__ import annotations

from collections.abc import Iterable

from service.codec.encoders import ENCODERS, Encoder
from service.problems import NoSuchFormat

OFFERED = ", ".join(f"{name} ({encoder.media_type})" for name, encoder in ENCODERS.items())


def choose(name: str | None, accept: str) -> Encoder:
    """The encoder that `name` or else the Accept header asks for; raises NoSuchFormat with what there is."""
    if name is not None:
        if name not in ENCODERS:
            raise NoSuchFormat(f"there is no format {name!r}; there are {OFFERED}")
        return ENCODERS[name]
    ranges = [_media_range(text) for text in accept.split(",") if text.strip()] or [("*/*", 1.0)]
    best = max(ENCODERS.values(), key=lambda encoder: _quality(encoder.media_type, ranges))  # ties: the first, PNG
    if _quality(best.media_type, ranges) == 0:
        raise NoSuchFormat(f"none of Accept: {accept[:200]} is offered; there are {OFFERED}")
    return best


def _media_range(text: str) -> tuple[str, float]:
    """("image/png", 0.5) of "image/png; q=0.5"; other parameters are ignored, an unreadable q counts as 1."""
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            return name, _number(parameter[2:])
    return name, 1.0


def _number(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 1.0


def _quality(media_type: str, ranges: Iterable[tuple[str, float]]) -> float:
    """The quality of the most specific range that covers `media_type` (RFC 9110, 12.5.1); 0 where none does."""
    given = dict(ranges)
    for name in (media_type, media_type.partition("/")[0] + "/*", "*/*"):
        if name in given:
            return given[name]
    return 0.0
