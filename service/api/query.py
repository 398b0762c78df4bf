"""The query of a request, read and checked: the same for single images, many images and streams."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from starlette.datastructures import QueryParams

from engine.images import Choice, Selection, read_choice
from service.api import negotiate
from service.codec.encoders import ENCODERS
from service.core import params
from service.core.params import SegmentParams
from service.core.service import Service
from service.problems import BadParameter

PART = (
    "Of an image that has several: from 0, or max for the maximum of all. By default the model's, or the first; colors "
    "are taken whole."
)
PART_SCHEMA = {"type": "string", "pattern": "^([0-9]{1,9}|max)$"}
Part = Annotated[Choice, BeforeValidator(read_choice), WithJsonSchema(PART_SCHEMA)]


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
    channel: Part = Field(None, description=PART)
    page: Part = Field(None, description="Plane, frame or page: as `channel`.")
    split: Literal["distance"] | None = Field(
        None, description="Of objects and labels: cut touching objects at their necks, by the distance to their edges."
    )
    min_area: int | None = Field(None, ge=1, description="Of objects and labels: pixels of the smallest that counts.")
    timeout_ms: int | None = Field(None, ge=1, description="Milliseconds from the end of the upload to the answer.")
    priority: Literal["normal", "low"] = Field("normal", description="Low waits for others, but not for ever.")


def documented() -> list[dict[str, Any]]:
    """The parameters of `SegmentQuery` as OpenAPI describes them."""
    fields: dict[str, dict[str, Any]] = SegmentQuery.model_json_schema()["properties"]
    return [
        {"name": name, "in": "query", "required": False, "description": schema["description"], "schema": schema}
        for name, schema in fields.items()
    ]


def segment_params(given: QueryParams, accept: str, service: Service) -> SegmentParams:
    """What the query `given` and the Accept header ask for; raises NoSuchFormat, NotFound and BadParameter."""
    query = _read(given)
    encoder = negotiate.choose(query.format, accept)
    engine = service.models.engine(query.model)
    return SegmentParams(
        engine,
        params.threshold(engine.model, query.threshold),
        encoder,
        params.timeout_s(query.timeout_ms, service.settings.timeout_ms),
        query.priority == "low",
        params.selection(engine.model.preprocessing, Selection(query.channel, query.page)),
        params.objects(encoder, query.split, query.min_area),
    )


def _read(given: QueryParams) -> SegmentQuery:
    """The query of a request; raises BadParameter. (Why not by FastAPI: see the package's docstring.)"""
    counts = Counter(name for name, _ in given.multi_items())
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise BadParameter(f"{twice[0][:100]} is given more than once")
    most = len(SegmentQuery.model_fields) + 1  # of more than there are one is unknown among the first, too
    try:
        return SegmentQuery.model_validate(dict(islice(given.items(), most)))
    except ValidationError as error:
        raise BadParameter.of(error.errors(), SegmentQuery.model_fields) from None
