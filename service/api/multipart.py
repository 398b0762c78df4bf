"""Files out of a multipart form, as they arrive. In memory: nothing that a client sends is written to disk."""

from __future__ import annotations

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.problems import BadForm, BadParameter, TooManyImages

OTHERS = 100
MAX_TYPE = 1024  # bytes of a form's Content-Type: what takes it apart takes quadratic time


class FormFiles:
    """The bytes of the files in `field` of a multipart/form-data body, which has no other fields.

    Feed the body by `write`, then ask for `contents`. Both raise BadForm; a file beyond `most` raises TooManyImages.
    Another field is refused by `contents`, once all is read, so that clients that only write get to know it. No more
    than OTHERS of them are read past, since every one costs time.
    """

    def __init__(self, content_type: str, field: str, most: int) -> None:
        if len(content_type) > MAX_TYPE:
            raise BadForm(f"the Content-Type of a form may have {MAX_TYPE} bytes")
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise BadForm("the Content-Type names no boundary between the form's fields")
        self._field = field
        self._most = most
        self._files: list[bytes] = []
        self._chunks: list[bytes] = []  # of the file that is arriving
        self._header: tuple[bytes, bytes] = (b"", b"")  # name and value of the part's header so far
        self._inside = False
        self._other = ""  # name of the first field that is not `field`
        self._parts = 0
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_begin": self._on_header_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                },
            )
        except FormParserError as error:
            raise BadForm(f"the form cannot be read: {error}") from error

    def write(self, chunk: bytes) -> None:
        """The next bytes of the body."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise BadForm(f"the form cannot be read: {error}") from error

    def contents(self) -> list[bytes]:
        """The files, at least one, once all of the body is written; raises BadParameter for another field."""
        if self._inside or not self._files:
            found = "ends in the middle of its file" if self._inside else f"has no file in the field `{self._field}`"
            raise BadForm(f"the form {found}; send it as in: curl -F {self._field}=@FILE")
        if self._other:
            where = "parameters belong into the query, as in /segment?format=overlay"
            raise BadParameter(f"{self._other}: a form has no field but `{self._field}`; {where}")
        return self._files

    def _on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > self._most + OTHERS:
            raise BadForm(f"the form has more than {OTHERS} fields besides `{self._field}`")

    def _on_header_begin(self) -> None:
        self._header = (b"", b"")

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header = (self._header[0] + data[start:end], b"")

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header = (self._header[0], self._header[1] + data[start:end])

    def _on_header_end(self) -> None:
        name, value = self._header
        if name.lower() == b"content-disposition":
            options = parse_options_header(value)[1]
            field = options.get(b"name", b"").decode(errors="replace")
            if field != self._field:
                self._other = self._other or field[:100]
            self._inside = field == self._field and b"filename" in options
            if self._inside and len(self._files) == self._most:
                raise TooManyImages.beyond(self._most)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self._chunks.append(data[start:end])

    def _on_part_end(self) -> None:
        if self._inside:
            self._files.append(b"".join(self._chunks))
        self._chunks = []
        self._inside = False
