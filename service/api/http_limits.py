"""HTTP connections: uvicorn's protocol on llhttp, which is fast, with the bound that it lacks."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 64 << 10  # bytes, of a request's first line and headers

TOO_LARGE = b"the first line and headers of a request may take up to %d bytes\n" % MAX_HEAD
REFUSAL = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(TOO_LARGE), TOO_LARGE)
)


class BoundedHttp(HttpToolsProtocol):
    """Answers 431 and hangs up once a request's head has taken more than `MAX_HEAD` bytes, finished or not."""

    _arriving = False
    _head = 0  # bytes so far

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._arriving, self._head = True, 0

    def on_headers_complete(self) -> None:
        self._arriving = False
        self._head = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if self._head > MAX_HEAD:  # and came in one piece
            raise ValueError(TOO_LARGE)  # the parser's error, which is answered below
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        if self._head > MAX_HEAD:
            self._refuse()
        else:
            super().send_400_response(msg)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._arriving or self.transport.is_closing():
            return
        self._head += len(data)
        if self._head > MAX_HEAD:
            self._refuse()

    def _refuse(self) -> None:
        self.transport.write(REFUSAL)
        self.transport.close()
