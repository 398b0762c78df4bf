"""The other side: one request to a server, with nothing but the standard library."""

from __future__ import annotations

import json
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import Request, urlopen

TIMEOUT_S = 120.0


class Refused(Exception):  # noqa: N818  (an answer, if not the one hoped for)
    """The server's problem document in one line."""


def segment(url: str, image: bytes, output: str = "png", threshold: float | None = None, key: str = "") -> bytes:
    """The mask of `image`, the bytes of an image file, in the format `output`, from the server at `url`.

    Raises Refused where the server refuses this image, and OSError where no server answers.
    """
    query = {"format": output} | ({} if threshold is None else {"threshold": threshold})
    headers = {"Content-Type": "application/octet-stream"} | ({"Authorization": f"Bearer {key}"} if key else {})
    if urlsplit(url).scheme not in ("http", "https"):
        raise OSError(f"{url} is no address of a server: it must begin with http:// or https://")
    request = Request(f"{url.rstrip('/')}/segment?{urlencode(query)}", image, headers, method="POST")
    try:
        with urlopen(request, timeout=TIMEOUT_S) as answer:
            body: bytes = answer.read()
            return body
    except HTTPError as error:
        raise Refused(_reason(error)) from None
    except URLError as error:
        raise OSError(f"no answer from {url}: {error.reason}") from error


def _reason(error: HTTPError) -> str:
    try:
        problem = json.loads(error.read())
        return f"{problem['title']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        return f"{error.code} {error.reason}"
