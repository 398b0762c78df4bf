"""Images' bytes out of a request: the body itself, or files in the field `image` of a form."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.requests import Request

from service.api.coding import coding_of, unpacked
from service.api.lengths import read_length
from service.api.memory import held_by
from service.api.multipart import FormFiles
from service.core.service import Service
from service.problems import BodyTooLarge, TooManyImages, UnsupportedType, UploadTooSlow
from service.settings import Settings

FIELD = "image"
HINT = "send the file itself with its type, as in: curl -H 'Content-Type: image/png' --data-binary @FILE"


async def image(request: Request, service: Service) -> bytes:
    """All bytes of the image, not yet looked into. Raises UnsupportedType for other types of content, TooManyImages,
    BadForm and BadParameter for forms, and as `body`.
    """
    kind = _kind(request)
    form = kind == "multipart/form-data"
    if not (form or kind.startswith("image/") or kind == "application/octet-stream"):
        raise UnsupportedType(f"Content-Type {kind[:100]!r} is not an image; {HINT}")
    if not form:
        return await body(request, service)
    try:
        return (await _files(request, service, 1))[0]
    except TooManyImages:
        raise TooManyImages("one image is taken here; /segment/batch takes several", limit=1) from None


async def images(request: Request, service: Service) -> list[bytes]:
    """The bytes of a form's images. Raises UnsupportedType, TooManyImages, BadForm, BadParameter, and as `body`."""
    kind = _kind(request)
    if kind != "multipart/form-data":
        raise UnsupportedType(f"Content-Type {kind[:100]!r} is no form: curl -F {FIELD}=@FILE -F {FIELD}=@FILE")
    most = min(service.settings.request_images, service.settings.queue_images)
    return await _files(request, service, most)


async def body(request: Request, service: Service) -> bytes:
    """All bytes of the body, unpacked where it is compressed.

    Raises BodyTooLarge as soon as the limit is known to be passed (by Content-Length or on the way), UploadTooSlow,
    UnsupportedType and BadEncoding for a Content-Encoding that is not understood or not kept, and ClientDisconnect when
    the client leaves.
    """
    chunks: list[bytes] = []
    await _each(request, service, chunks.append)
    return _joined(chunks, request)


def _joined(chunks: list[bytes], request: Request) -> bytes:
    """All in one piece, and nothing else held."""
    whole = b"".join(chunks)
    chunks.clear()
    held_by(request).hold(len(whole))
    return whole


async def _files(request: Request, service: Service, most: int) -> list[bytes]:
    files = FormFiles(request.headers["content-type"], FIELD, most)
    await _each(request, service, files.write)
    contents = files.contents()
    held_by(request).hold(sum(map(len, contents)))
    return contents


async def _each(request: Request, service: Service, take: Callable[[bytes], None]) -> None:
    """Hand every chunk of the body to `take`, unpacked, within the limits of bytes and of time."""
    coding = coding_of(request)
    if not coding:
        await _arriving(request, service.settings, take)
        return
    chunks: list[bytes] = []
    await _arriving(request, service.settings, chunks.append)
    packed, memory = _joined(chunks, request), held_by(request)
    most = service.settings.max_body_bytes
    for piece in await service.threads.run(lambda: unpacked(packed, coding, most, memory), len(packed)):
        take(piece)
        await asyncio.sleep(0)


async def _arriving(request: Request, settings: Settings, take: Callable[[bytes], None]) -> None:
    """Hand every chunk of the body to `take` as it arrives."""
    if (read_length(request.headers.get("content-length", "")) or 0) > settings.max_body_bytes:
        raise _too_large(settings.max_body_bytes)
    try:
        await asyncio.wait_for(_take_all(request, settings.max_body_bytes, take), settings.upload_ms / 1000)
    except asyncio.TimeoutError:
        # What is left of the body is never read, so this connection cannot carry another request.
        detail = f"the body took more than {settings.upload_ms} ms"
        raise UploadTooSlow(detail, headers={"Connection": "close"}, limit=settings.upload_ms) from None


async def _take_all(request: Request, max_bytes: int, take: Callable[[bytes], None]) -> None:
    total, memory = 0, held_by(request)
    async for chunk in request.stream():
        total += len(chunk)
        if total > max_bytes:
            raise _too_large(max_bytes)
        memory.hold(2 * total)  # once more when the chunks are joined
        take(chunk)


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"at most {max_bytes} bytes are taken", headers={"Connection": "close"}, limit=max_bytes)
