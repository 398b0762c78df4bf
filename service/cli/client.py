"""The other side: one image to a server, tried until it is answered, with nothing but the standard library."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from ssl import SSLCertVerificationError
from types import MappingProxyType
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPHandler, HTTPSHandler, Request, build_opener

from engine.images import ObjectParams, Selection

TIMEOUT_S = 120.0
ANNOUNCED = 2**20  # bytes: larger bodies are sent once the server has seen their length
WANTED_WITHIN_S = 1.0  # for which a server is given time to want a body
LONGEST_PAUSE_S = 5.0
WORTH_ANOTHER_TRY = frozenset({429, 502, 503, 504})
TRUST = "the variable SSL_CERT_FILE names a file of the certificates that are trusted"


NO_QUERY: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True)
class Segmented:
    """Body of an answer, and what of the image it is of, as in `X-Image-Taken`; empty where that is all of it."""

    body: bytes
    taken: str = ""


class Refused(Exception):  # noqa: N818  (an answer, if not the one hoped for)
    """The server's problem document in one line.

    `for_now` where another try may succeed, which should come no earlier than after `after_s` seconds.
    """

    def __init__(self, reason: str, for_now: bool = False, after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.for_now = for_now
        self.after_s = after_s


class UntrustedError(OSError):
    """The server's certificate does not prove who it is."""


def segment(
    url: str,
    image: bytes,
    retry_deadline_s: float,
    query: Mapping[str, object] = NO_QUERY,
    key: str = "",
    failed: Callable[[Exception], None] = lambda error: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Segmented:
    """The answer of the server at `url` to `image`, the bytes of an image file, with the query of POST /segment.

    A server that is full, draining, or lost on the way is asked again, for `retry_deadline_s` seconds from the first
    time: after as long as its Retry-After says, else 0.1 s and twice as long each time. `failed` is told of every try
    that was not the last. Raises Refused where the server refuses this image, and OSError where no server answers, of
    a server whose certificate is not trusted at once.
    """
    headers = {"Content-Type": "application/octet-stream"} | ({"Authorization": f"Bearer {key}"} if key else {})
    if len(image) > ANNOUNCED:
        headers["Expect"] = "100-continue"
    if urlsplit(url).scheme not in ("http", "https"):
        raise OSError(f"{url} is no address of a server: it must begin with http:// or https://")
    request = Request(f"{url.rstrip('/')}/segment?{urlencode(query)}", image, headers, method="POST")
    end, pause_s = time.monotonic() + retry_deadline_s, 0.1
    while True:
        try:
            return _ask(request)
        except (Refused, OSError) as error:
            final = isinstance(error, UntrustedError) or (isinstance(error, Refused) and not error.for_now)
            wait_s = (isinstance(error, Refused) and error.after_s) or pause_s
            if final or time.monotonic() + wait_s > end:
                raise
            failed(error)
        sleep(wait_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def query_of(
    threshold: float | None, selection: Selection, objects: ObjectParams | None = None, model: str | None = None
) -> dict[str, object]:
    """What of a query differs from the server's defaults."""
    given: dict[str, object] = {"model": model, "threshold": threshold}
    given |= {"channel": selection.channel, "page": selection.page}
    if objects is not None:
        given |= {"split": "distance" if objects.split else None, "min_area": objects.min_area}
    return {name: value for name, value in given.items() if value is not None}


class _Patient:
    """Of a connection: a large body is sent once the server wants it, and what it says is read even if it hangs up.

    A server that refuses a body by its length alone answers at once and closes the connection, which is then reset
    under a client that only writes.
    """

    sock: socket.socket

    def endheaders(self: Any, message_body: Any = None, *, encode_chunked: bool = False) -> None:
        """Send the head, and then the body."""
        HTTPConnection.endheaders(self)
        if message_body is None or (len(message_body) > ANNOUNCED and _has_refused(self.sock)):
            return
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # there may be an answer all the same
            self.send(message_body)


def _has_refused(connection: socket.socket) -> bool:
    """Whether a server has answered the head of a request, and not that the rest may come."""
    if not select.select([connection], [], [], WANTED_WITHIN_S)[0]:
        return False  # it does not know the question
    try:
        return connection.recv(len(b"HTTP/1.1 100"), socket.MSG_PEEK)[8:] != b" 100"
    except (OSError, ValueError):  # TLS lets nobody look ahead
        return False


class _Connection(_Patient, HTTPConnection):
    pass


class _TLSConnection(_Patient, HTTPSConnection):
    pass


class _Handler(HTTPHandler):
    def http_open(self, req: Request) -> Any:
        """As urllib's, by connections that are patient."""
        return self.do_open(_Connection, req)


class _TLSHandler(HTTPSHandler):
    def https_open(self, req: Request) -> Any:
        """As urllib's, by connections that are patient."""
        return self.do_open(_TLSConnection, req)


OPENER = build_opener(_Handler, _TLSHandler)


def _ask(request: Request) -> Segmented:
    """One try."""
    try:
        with OPENER.open(request, timeout=TIMEOUT_S) as answer:
            return Segmented(answer.read(), answer.headers.get("X-Image-Taken", ""))
    except HTTPError as error:
        raise _refusal(error) from None
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        where = f"no answer from {request.type}://{request.host}"
        if isinstance(reason, SSLCertVerificationError):
            raise UntrustedError(f"{where}: {reason.verify_message}; {TRUST}") from error
        raise OSError(f"{where}: {reason}") from error


def _refusal(error: HTTPError) -> Refused:
    """The refusal in an answer. A 500 that is no problem document comes from a proxy whose server has died."""
    after = error.headers.get("Retry-After", "")
    after_s = float(after) if after.isdecimal() else 0.0
    try:
        problem = json.loads(error.read())
        return Refused(f"{problem['title']}: {problem['detail']}", error.code in WORTH_ANOTHER_TRY, after_s)
    except (OSError, HTTPException, ValueError, KeyError, TypeError):
        return Refused(f"{error.code} {error.reason}", error.code in WORTH_ANOTHER_TRY | {500}, after_s)
