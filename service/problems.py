"""Everything that can go wrong with a request, and its answer: a problem document (RFC 9457).

    Problem
    ├── NotAnImage, BadEncoding, BadForm, BadTensor                                400
    ├── WrongKey                                                                   401
    ├── ForeignOrigin                                                              403
    ├── NotFound                                                                   404
    ├── MethodNotAllowed                                                           405
    ├── NoSuchFormat                                                               406
    ├── UploadTooSlow                                                              408
    ├── BodyTooLarge, TooManyImages, TooManyPixels, TooCostly                      413
    ├── UnsupportedType                                                            415
    ├── BadParameter, TooIntricate, TooManyObjects                                 422
    ├── QueueFull, MemoryFull                                                      429
    ├── EngineFailure                                                              500
    ├── Unavailable                                                                503
    └── DeadlinePassed                                                             504

A client that leaves is no problem: nobody reads the answer (`starlette.requests.ClientDisconnect`).
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from starlette.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"
UNKNOWN = "extra_forbidden"  # pydantic's type of an error


def let_go(error: BaseException | None) -> None:
    """Empty the frames of its traceback and of its causes', which hold what was being worked on.

    A future whose exception has passed through the frame that waits for it is in a cycle with both: pixels would stay
    until the garbage collector comes by, long after they have ceased to be counted.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


class Problem(Exception):  # noqa: N818  (RFC 9457 calls it a problem)
    """A request that gets no mask. `detail` is for the client to read; `extra` adds members to the document.

    `title` says what it is, and `when` on /docs where it comes from.
    """

    status: ClassVar[int]
    title: ClassVar[str]
    when: ClassVar[str]

    def __init__(self, detail: str, *, headers: dict[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.headers = headers
        self.extra = extra

    @classmethod
    def reason(cls) -> str:
        """The class name in kebab case: last part of the document's `type`, and the label in the metrics."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", cls.__name__).lower()

    def document(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The problem document of a request whose state has `request_id` and `root_path`.

        Its `type` leads to the explanation on this server's own /docs page.
        """
        kind = f"{state['root_path']}/docs#{self.reason()}"
        document = {"type": kind, "title": self.title, "status": self.status, "detail": self.detail}
        return document | {"request_id": state["request_id"]} | self.extra

    def response(self, scope: Mapping[str, Any]) -> JSONResponse:
        """The problem document; under /v2 it has the member `error` too, which that protocol's clients look for."""
        error = {"error": self.detail} if scope["path"].startswith("/v2") else {}
        document = self.document(scope["state"]) | error
        return JSONResponse(document, self.status, self.headers, MEDIA_TYPE)


class NotAnImage(Problem):
    status, title = 400, "The body is not a readable image"
    when = "the file is empty, cut off, damaged or not an image"


class BadEncoding(Problem):
    status, title = 400, "The body is not what its Content-Encoding says"
    when = "a body that is not what its `Content-Encoding` says"


class BadForm(Problem):
    status, title = 400, "The form does not carry an image"
    when = "a form without a file in the field `image`"


class BadTensor(Problem):
    status, title = 400, "The tensors do not fit the model"
    when = "tensors under `/v2` that do not fit the model"


class WrongKey(Problem):
    status, title = 401, "The API key is missing or wrong"
    when = "the key is missing or wrong"


class ForeignOrigin(Problem):
    status, title = 403, "Pages of this origin may not ask"
    when = "a page of an origin that is not allowed asks"


class NotFound(Problem):
    status, title = 404, "There is nothing here"
    when = "no such model or path"


class MethodNotAllowed(Problem):
    status, title = 405, "This method is not allowed here"
    when = "the path has other methods"


class NoSuchFormat(Problem):
    status, title = 406, "The answer is not available in this format"
    when = "neither `format` nor `Accept` names a format that there is"


class UploadTooSlow(Problem):
    status, title = 408, "The body did not arrive in time"
    when = "the body did not arrive in time"


class BodyTooLarge(Problem):
    status, title = 413, "The body has too many bytes"
    when = "too many bytes"


class TooManyPixels(Problem):
    status, title = 413, "The image has too many pixels"
    when = "known from the file's header, before it is decoded"


class TooManyImages(Problem):
    status, title = 413, "The request has too many images"
    when = "too many images in one request"

    @classmethod
    def beyond(cls, most: int) -> TooManyImages:
        """Where a request has more than `most`."""
        return cls(f"images in one request: at most {most}", limit=most)


class TooCostly(Problem, MemoryError):  # noqa: N818  (as Problem)
    status, title = 413, "The request takes too much memory"
    when = "takes more memory than all requests may have"


class UnsupportedType(Problem):
    status, title = 415, "This type of content is not supported"
    when = "not an image by its `Content-Type`, or of a kind that is not read"


class BadParameter(Problem):
    status, title = 422, "A parameter is not valid"
    when = "a parameter that does not exist, has no such value, or is a field of a form"

    @classmethod
    def of(cls, errors: Sequence[Any], known: Iterable[str] = ()) -> BadParameter:
        """From what pydantic finds wrong: parameter and message of every error. `known` are those that there are."""
        found = [{"parameter": str(error["loc"][-1]), "message": _message(error)} for error in errors]
        told = [f"{one['parameter']}: {one['message']}" for one in found]
        if any(error["type"] == UNKNOWN for error in errors):
            told.append(f"there are {', '.join(known)}")
        return cls("; ".join(told), errors=found)


def _message(error: Any) -> str:
    """What is wrong, where pydantic's own words are its inner business, in others."""
    message: str = error["msg"]
    return "no such parameter" if error["type"] == UNKNOWN else message.removeprefix("Value error, ")


class TooManyObjects(Problem):
    status, title = 422, "The mask falls into too many objects"
    when = "more objects in the mask than can be numbered"


class TooIntricate(Problem):
    status, title = 422, "The mask is too intricate for this format"
    when = "a mask of too many corners, runs of pixels or classes for the format: `detail` says what to ask for"


class QueueFull(Problem):
    status, title = 429, "Too many images are waiting"
    when = "too many images wait; `Retry-After` says when there will be room"


class MemoryFull(Problem, MemoryError):  # noqa: N818  (as Problem)
    status, title = 429, "There is no memory for the request at present"
    when = "others hold the memory that it takes (`MBUNET_MEMORY_BYTES`); `Retry-After` as above"


class EngineFailure(Problem):
    status, title = 500, "The server failed on this image"
    when = "a fault of the server; the cause is in the log"


class Unavailable(Problem):
    status, title = 503, "The server is not ready"
    when = "the server is loading or draining, or its engine's process is being started again"


class DeadlinePassed(Problem):
    status, title = 504, "The answer was not ready in time"
    when = "`timeout_ms` has passed"


def tree() -> list[type[Problem]]:
    """Every problem, by status."""
    return sorted(Problem.__subclasses__(), key=lambda problem: problem.status)
