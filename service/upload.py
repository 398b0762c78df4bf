"""The image's bytes out of a request: the body itself, or the file in the field `image` of a form."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from starlette.requests import Request

from service.form import FormFile
from service.problems import BodyTooLarge, UnsupportedType

FIELD = "image"
HINT = "send the file itself with its type, as in: curl -H 'Content-Type: image/png' --data-binary @FILE"


async def read(request: Request, max_bytes: int) -> bytes:
    """All bytes of the image, not yet looked into.

    Raises UnsupportedType for other types of content, BodyTooLarge as soon as the limit is known to be passed (by
    Content-Length or on the way), BadForm, and ClientDisconnect when the client leaves.
    """
    kind = request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()
    form = kind == "multipart/form-data"
    if not (form or kind.startswith("image/") or kind == "application/octet-stream"):
        raise UnsupportedType(f"Content-Type {kind[:100]!r} is not an image; {HINT}")
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        raise UnsupportedType(f"Content-Encoding {coding[:100]!r} is not understood; {HINT}")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    if not form:
        return b"".join([chunk async for chunk in _limited(request, max_bytes)])
    file = FormFile(request.headers["content-type"], FIELD)
    async for chunk in _limited(request, max_bytes):
        file.write(chunk)
    return file.content()


async def _limited(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > max_bytes:
            raise _too_large(max_bytes)
        yield chunk


def _too_large(max_bytes: int) -> BodyTooLarge:
    # What is left of the body is never read, so this connection cannot carry another request.
    return BodyTooLarge(f"at most {max_bytes} bytes are taken", headers={"Connection": "close"}, limit=max_bytes)
