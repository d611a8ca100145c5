"""Answers that are not quite HTTP, put into a form that a strict parser reads.

What is taken is what browsers, curl and h11 read as well, and what has one meaning only: lines
that end in LF alone, folded headers, control characters in values, an unknown minor version,
the same Content-Length more than once, a Content-Length beside chunks (the chunks count, RFC
9112, 6.3). Lengths that differ, NUL and lines without a colon stay errors. It does no I/O.
"""

from __future__ import annotations

import re

_END = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"HTTP/1\.\d (\d{3})(?: [^\0]*)?\Z")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_CONTROL = re.compile(rb"[\x01-\x08\x0a-\x1f\x7f]")
_PREFIX = b"HTTP/1."


class NotHttp(ValueError):
    """These bytes are no answer, however leniently they are read."""


def tidy_head(raw: bytes) -> tuple[int, bytes, bytes] | None:
    """Return an answer's status, its head in the strict form and what follows; None while it is not whole.

    Raise NotHttp as soon as it cannot become one.
    """
    if not raw.startswith(_PREFIX[: len(raw)]):
        raise NotHttp
    end = _END.search(raw)
    if end is None:
        return None
    first, *lines = re.split(rb"\r?\n", raw[: end.start()])
    match = _STATUS.match(first)
    if match is None:
        raise NotHttp
    headers = _without_repeated_length([_header(line) for line in _unfolded(lines)])
    head = b"".join(b"%b: %b\r\n" % header for header in headers)
    return int(match[1]), b"HTTP/1.1 %b \r\n%b\r\n" % (match[1], head), raw[end.end() :]


def _unfolded(lines: list[bytes]) -> list[bytes]:
    """Return the headers, each as one line."""
    joined: list[bytes] = []
    for line in lines:
        if line[:1] in (b" ", b"\t") and joined:
            joined[-1] += b" " + line.strip()
        else:
            joined.append(line)
    return joined


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not _NAME.match(name) or b"\0" in value:
        raise NotHttp
    return name, _CONTROL.sub(b" ", value).strip()


def _without_repeated_length(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers with one Content-Length at the most, and none beside chunks."""
    given = [value for name, value in headers if name.lower() == b"content-length"]
    lengths = {length.strip() for value in given for length in value.split(b",")}
    others = [header for header in headers if header[0].lower() != b"content-length"]
    if len(lengths) > 1:
        raise NotHttp
    if not lengths or any(name.lower() == b"transfer-encoding" for name, _ in others):
        return others
    return [*others, (b"Content-Length", lengths.pop())]
