"""The query of a request, read and checked: the same for single images, many images and streams."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service import negotiate
from service.codec import ENCODERS
from service.service import Service, Wish


class SegmentQuery(BaseModel):
    """Query of POST /segment. An unknown parameter is refused: it would be a misspelt one."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, description="Name of the model; by default the first of /models.")
    threshold: float | None = Field(
        None, ge=0, le=1, allow_inf_nan=False, description="Probability at which a pixel is foreground."
    )
    format: str | None = Field(
        None,
        description="Format of the answer; goes before the Accept header.",
        json_schema_extra={"enum": list(ENCODERS)},
    )
    timeout_ms: int | None = Field(None, ge=1, description="Milliseconds from the end of the upload to the answer.")
    priority: Literal["normal", "low"] = Field("normal", description="Low waits for others, but not for ever.")


def wish(query: SegmentQuery, accept: str, service: Service) -> Wish:
    """What `query` and the Accept header ask for; raises NoSuchFormat, NotFound and BadParameter."""
    encoder = negotiate.choose(query.format, accept)
    engine = service.engine(query.model)
    threshold = service.threshold(engine, query.threshold)
    return Wish(engine, threshold, encoder, service.seconds_allowed(query.timeout_ms), query.priority == "low")
