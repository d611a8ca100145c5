"""Reads one response after the other from the bytes of a connection.

Owns framing and the caps on what an endpoint may make us hold: the response head, the body
and everything around it. httptools (llhttp, strict) does the parsing; what it refuses is read
once more in the lenient form, and the connection is then not used again. It does no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping

import httptools

from dispatcher.delivery.http1.leniency import NotHttp, tidy_head
from dispatcher.model.states import ErrorClass

MAX_HEAD_BYTES = 32 * 1024
"""The most that the head of a response, interim responses included, may take."""

_WIRE_FACTOR = 8  # chunks of one byte take six bytes each on the wire


class ResponseReader:
    """One response: fed with bytes until `complete`, begun anew with `begin`.

    `headers` holds those that are `wanted`, by names in lower case. `status` is 0 until the head has
    arrived. `reusable` says whether the connection may carry
    another request: keep-alive, and nothing came after the answer.
    """

    __slots__ = (
        "_body",
        "_body_bytes",
        "_chunked",
        "_has_length",
        "_head_complete",
        "_lenient",
        "_max_body",
        "_max_wire",
        "_parser",
        "_raw",
        "_too_large",
        "_wanted",
        "_wire_bytes",
        "complete",
        "headers",
        "retry_after",
        "reusable",
        "status",
    )

    def __init__(self, max_body: int, wanted: frozenset[str] = frozenset()) -> None:
        self._max_body = max_body
        self._wanted = frozenset(name.encode("ascii") for name in wanted)
        self._max_wire = MAX_HEAD_BYTES + _WIRE_FACTOR * max_body
        self._parser = httptools.HttpResponseParser(self)
        self._lenient = False
        self.begin()

    def begin(self) -> None:
        """Forget the last response."""
        self._wire_bytes = 0
        self._raw: list[bytes] = []
        self._too_large = False
        self.complete = False
        self.reusable = False
        self._begin_head()

    def _begin_head(self) -> None:
        self.status = 0
        self.retry_after: str | None = None
        self.headers: Mapping[str, str] | None = None
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._head_complete = False
        self._has_length = False
        self._chunked = False

    @property
    def body(self) -> bytes:
        """The body as far as it has arrived, never more than the cap."""
        return self._body[0] if len(self._body) == 1 else b"".join(self._body)

    def feed(self, data: bytes) -> ErrorClass:
        """Take bytes in. Return NONE, PROTOCOL or TOO_LARGE; after an error no more may come."""
        self._wire_bytes += len(data)
        try:
            self._parse(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, NotHttp):
            if not self.complete:  # garbage after a complete answer costs the connection, not the answer
                return ErrorClass.TOO_LARGE if self._too_large else ErrorClass.PROTOCOL
            self.reusable = False
        if self.complete:
            return ErrorClass.NONE if self.status >= 100 else ErrorClass.PROTOCOL
        limit = self._max_wire if self._head_complete else MAX_HEAD_BYTES
        return ErrorClass.TOO_LARGE if self._too_large or self._wire_bytes > limit else ErrorClass.NONE

    def _parse(self, data: bytes) -> None:
        if self._lenient:
            self._parse_leniently(data)
            return
        self._raw.append(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if self.complete or self._too_large or self._wire_bytes > MAX_HEAD_BYTES:
                raise
            self._lenient = True
            self._begin_head()
            self._parse_leniently(b"")

    def _parse_leniently(self, data: bytes) -> None:
        """Read on, or read an answer's head once it is whole; interim answers are left out."""
        if self._head_complete:
            self._parser.feed_data(data)
            return
        self._raw.append(data)
        while (tidied := tidy_head(b"".join(self._raw))) is not None:
            status, head, rest = tidied
            self._raw = [rest]
            if status >= 200:
                self._parser = httptools.HttpResponseParser(self)
                self._parser.set_dangerous_leniencies(
                    lenient_spaces_after_chunk_size=True, lenient_optional_cr_before_lf=True
                )
                self._parser.feed_data(head + rest)
                return

    def finish(self) -> bool:
        """Return whether the end of the connection now is the proper end of the response.

        The line end behind the last chunk may be missing: nothing can follow it any more.
        """
        if self._chunked and self._head_complete:
            self.feed(b"\r\n")
            return self.complete
        delimited_by_end = self._head_complete and not (self._has_length or self._chunked)
        return delimited_by_end and self.status >= 200

    # Called by httptools; an exception raised in here would come out as a HttpParserError.

    def on_message_begin(self) -> None:
        """Note the first byte of a response, or of one too many."""
        if self.complete:
            self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or one trailer."""
        if self._head_complete:
            return
        lowered = name.lower()
        if lowered == b"content-length":
            self._has_length = True
            self._too_large = value.isdigit() and int(value[:20]) > self._max_body
        elif lowered == b"transfer-encoding":
            self._chunked = value.lower().rpartition(b",")[2].strip() == b"chunked"
        elif lowered == b"retry-after":
            self.retry_after = value.decode("latin-1")
        if lowered in self._wanted:
            self.headers = {**(self.headers or {}), lowered.decode("ascii"): value.decode("latin-1")}

    def on_headers_complete(self) -> None:
        """Note the end of a head."""
        if not self.complete:
            self.status = self._parser.get_status_code()
            self._head_complete = True

    def on_body(self, data: bytes) -> None:
        """Take in a piece of the body."""
        if self.complete:
            return
        self._body_bytes += len(data)
        if self._body_bytes > self._max_body:
            self._too_large = True
        else:
            self._body.append(data)

    def on_message_complete(self) -> None:
        """Note the end of a response; after an interim one (1xx) the final one follows."""
        if self.complete:
            return
        if 100 <= self.status < 200:
            self._begin_head()
        elif not self._too_large:
            self.complete = True
            self.reusable = self._parser.should_keep_alive() and not self._lenient
