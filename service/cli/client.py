"""The other side: one image to a server, tried until it is answered, with nothing but the standard library."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import Request, urlopen

TIMEOUT_S = 120.0
LONGEST_PAUSE_S = 5.0
WORTH_ANOTHER_TRY = frozenset({429, 502, 503, 504})


class Refused(Exception):  # noqa: N818  (an answer, if not the one hoped for)
    """The server's problem document in one line.

    `for_now` where another try may succeed, which should come no earlier than after `after_s` seconds.
    """

    def __init__(self, reason: str, for_now: bool = False, after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.for_now = for_now
        self.after_s = after_s


def segment(
    url: str,
    image: bytes,
    retry_deadline_s: float,
    output: str = "png",
    threshold: float | None = None,
    key: str = "",
    failed: Callable[[Exception], None] = lambda error: None,
    sleep: Callable[[float], None] = time.sleep,
) -> bytes:
    """The mask of `image`, the bytes of an image file, in the format `output`, from the server at `url`.

    A server that is full, draining, or lost on the way is asked again, for `retry_deadline_s` seconds from the first
    time: after as long as its Retry-After says, else 0.1 s and twice as long each time. `failed` is told of every try
    that was not the last. Raises Refused where the server refuses this image, and OSError where no server answers.
    """
    query = {"format": output} | ({} if threshold is None else {"threshold": threshold})
    headers = {"Content-Type": "application/octet-stream"} | ({"Authorization": f"Bearer {key}"} if key else {})
    if urlsplit(url).scheme not in ("http", "https"):
        raise OSError(f"{url} is no address of a server: it must begin with http:// or https://")
    request = Request(f"{url.rstrip('/')}/segment?{urlencode(query)}", image, headers, method="POST")
    end, pause_s = time.monotonic() + retry_deadline_s, 0.1
    while True:
        try:
            return _ask(request)
        except (Refused, OSError) as error:
            final = isinstance(error, Refused) and not error.for_now
            wait_s = (isinstance(error, Refused) and error.after_s) or pause_s
            if final or time.monotonic() + wait_s > end:
                raise
            failed(error)
        sleep(wait_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _ask(request: Request) -> bytes:
    """One try."""
    try:
        with urlopen(request, timeout=TIMEOUT_S) as answer:
            body: bytes = answer.read()
            return body
    except HTTPError as error:
        raise _refusal(error) from None
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise OSError(f"no answer from {request.type}://{request.host}: {reason}") from error


def _refusal(error: HTTPError) -> Refused:
    """The refusal in an answer. A 500 that is no problem document comes from a proxy whose server has died."""
    after = error.headers.get("Retry-After", "")
    after_s = float(after) if after.isdecimal() else 0.0
    try:
        problem = json.loads(error.read())
        return Refused(f"{problem['title']}: {problem['detail']}", error.code in WORTH_ANOTHER_TRY, after_s)
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return Refused(f"{error.code} {error.reason}", error.code in WORTH_ANOTHER_TRY | {500}, after_s)
