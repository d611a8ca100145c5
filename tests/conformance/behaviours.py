"""What endpoints do, and what each of it must come to: the table that the suite runs.

Every behaviour is a name, a script, and the one class it ends in. Where a row names another
class for httpx, it says why.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dispatcher.model.states import ErrorClass
from tests.conformance.scripted_endpoint import Script, Wire, answers, chunked, head, http, play

OK = b'{"code":0,"message":"OK"}'
CHUNKED = "Transfer-Encoding: chunked"

MAX_BODY = 16 * 1024
"""The cap on the body of an answer with which the suite runs."""

NONE = ErrorClass.NONE
WHOLE = frozenset({ErrorClass.UNREADABLE, ErrorClass.SERVER})
"""The classes of whole answers among those after which another attempt makes sense."""

LATE = "h11 looks at a head when it is whole"


@dataclass(frozen=True)
class Behaviour:
    """One row.

    `retryable` and `sent` are those of the verdict and of the answer, `sent` is None where both
    are right; `status` is 0 where none may be known, None where it does not matter. `keeps`
    says whether the connection must be used again or must not. `tls` names the certificate of
    `Certificates` to be shown.
    """

    name: str
    script: Script
    error: ErrorClass
    retryable: bool = False
    status: int | None = 0
    code: int | None = None
    retry_after: float | None = None
    sent: bool | None = True
    keeps: bool = False
    tls: str | None = None
    httpx: Mapping[str, Any] = field(default_factory=dict)
    httpx_because: str = ""

    def seen_by_httpx(self) -> Behaviour:
        """Return the row as the httpx sender must end it."""
        return replace(self, **self.httpx)


def delivered(name: str, *steps: bytes | float | str, status: int = 200, keeps: bool = True) -> Behaviour:
    return Behaviour(name, answers(*steps), NONE, status=status, code=0, keeps=keeps)


def final(name: str, error: ErrorClass, status: int, *steps: bytes | float | str, code: int | None = None) -> Behaviour:
    """It failed for good: no other attempt."""
    return Behaviour(name, answers(*steps), error, status=status, code=code, keeps=True)


def again(name: str, error: ErrorClass, *steps: bytes | float | str, status: int | None = 0) -> Behaviour:
    """Another attempt makes sense."""
    return Behaviour(name, answers(*steps), error, retryable=True, status=status, keeps=error in WHOLE)


def differs(row: Behaviour, because: str, **httpx: Any) -> Behaviour:
    """Return the httpx sender may do otherwise, and why."""
    return replace(row, httpx=httpx, httpx_because=because)


def throttled(name: str, status: str, retry_after: float | None, *headers: str) -> Behaviour:
    script = answers(http(b"{}", status, *headers))
    number = int(status[:3])
    return Behaviour(name, script, ErrorClass.THROTTLED, True, number, retry_after=retry_after, keeps=True)


def handshake(name: str, certificate: str) -> Behaviour:
    return Behaviour(name, answers(http()), ErrorClass.TLS, retryable=True, sent=False, tls=certificate)


def bomb(megabytes: int) -> bytes:
    """Return the gzip of so many megabytes, a thousand times smaller."""
    return gzip.compress(bytes(megabytes << 20))


async def _gigabyte(wire: Wire, *, opening: bytes, piece: bytes) -> None:
    await wire.request()
    await wire.say(opening)
    for _ in range((1 << 30) // len(piece)):
        await wire.say(piece)


def floods(name: str, opening: bytes, piece: bytes, status: int = 200) -> Behaviour:
    async def script(wire: Wire) -> None:
        await _gigabyte(wire, opening=opening, piece=piece)

    return Behaviour(name, script, ErrorClass.TOO_LARGE, retryable=True, status=status, keeps=False)


async def _resets_at_once(wire: Wire) -> None:
    wire.reset()


async def _closes_at_once(wire: Wire) -> None:
    wire.close()


async def _resets_inside_the_request(wire: Wire) -> None:
    await wire.request()
    wire.reset()


async def _answers_before_it_reads(wire: Wire) -> None:
    await wire.request()
    await play(wire, http(b"{}", "413 Content Too Large", "Connection: close"), "close")


RIGHT = [
    delivered("a body of a named length", http()),
    delivered("a body of one chunk", head("200 OK", CHUNKED) + chunked(OK)),
    delivered("a body of chunks of one byte", head("200 OK", CHUNKED), chunked(*(b"%c" % c for c in OK))),
    delivered(
        "chunks with trailers",
        head("200 OK", CHUNKED) + chunked(OK, end=b"0\r\nX-Sum: 1\r\nRetry-After: 9\r\n\r\n"),
        keeps=True,
    ),
    delivered("chunks with extensions", head("200 OK", CHUNKED) + b'19;a="b"\r\n' + OK + b"\r\n0\r\n\r\n"),
    delivered("a body up to the end", head("200 OK") + OK, "close", keeps=False),
    delivered("a body up to the end, in pieces", head("200 OK"), 0.01, OK[:5], 0.01, OK[5:], "close", keeps=False),
    delivered("HTTP/1.0", b"HTTP/1.0 200 OK\r\n\r\n" + OK, "close", keeps=False),
    differs(
        delivered("HTTP/1.0 that keeps alive", http(OK, "200 OK", "Connection: keep-alive").replace(b"1.1", b"1.0", 1)),
        "h11 keeps no HTTP/1.0 connection",
        keeps=False,
    ),
    delivered("Connection: close, then a close", http(OK, "200 OK", "Connection: close"), "close", keeps=False),
    delivered("Connection: close, but it stays", http(OK, "200 OK", "Connection: close"), "hang", keeps=False),
    delivered("an answer byte by byte", *(b"%c" % c for c in http())),
    delivered("an answer in slow pieces", *(piece for c in http() for piece in (b"%c" % c, 0.002))),
    delivered("201", http(status="201 Created"), status=201),
    delivered("202", http(status="202 Accepted"), status=202),
    delivered("299", http(status="299 Whatever"), status=299),
    delivered("a reason that is missing", http(status="200 ")),
    delivered("a 100 before", b"HTTP/1.1 100 Continue\r\n\r\n" + http()),
    delivered("103 and 102 before, in pieces", head("103 Early Hints", "Link: <x>"), 0.01, head("102 P"), 0.01, http()),
    delivered("headers in capitals", http().replace(b"Content-Length", b"CONTENT-LENGTH")),
    delivered("cookies", http(OK, "200 OK", "Set-Cookie: a=b; Path=/")),
    delivered("a head of 20 KB", http(OK, "200 OK", *(f"X-{n}: {'x' * 1000}" for n in range(20)))),
    delivered("a body as long as the cap", http(OK + b" " * (MAX_BODY - len(OK)))),
    delivered("the code among much else", http(b'{"a":[{"code":5}],"code":0,"b":"\xd0\x96\\u0416"}')),
    Behaviour("an answer over TLS", answers(http()), NONE, status=200, code=0, keeps=True, tls="good"),
    Behaviour(
        "chunks over TLS, in pieces",
        answers(head("200 OK", CHUNKED), 0.01, chunked(OK)),
        NONE,
        status=200,
        code=0,
        keeps=True,
        tls="good",
    ),
]


def lenient(name: str, *steps: bytes | float | str) -> Behaviour:
    """Return a row of an answer that is not quite HTTP, has one meaning, and costs the connection."""
    return differs(delivered(name, *steps, keeps=False), "h11 reads it and does not say that it was odd", keeps=True)


LENGTH_25 = f"Content-Length: {len(OK)}"

NOT_QUITE_HTTP = [
    delivered("a byte-order mark before the JSON", http(b"\xef\xbb\xbf" + OK)),
    lenient("lines that end in LF alone", http().replace(b"\r\n", b"\n")),
    lenient("lines that end in LF alone, in pieces", *(b"%c" % c for c in http().replace(b"\r\n", b"\n"))),
    lenient("the same length twice", head("200 OK", LENGTH_25, LENGTH_25) + OK),
    lenient("a length as a list of equal numbers", head("200 OK", f"{LENGTH_25}, {len(OK)}") + OK),
    lenient("a length beside chunks", head("200 OK", "Content-Length: 3", CHUNKED) + chunked(OK)),
    lenient("a chunk size padded with blanks", head("200 OK", CHUNKED) + b"19  \r\n" + OK + b"\r\n0\r\n\r\n"),
    lenient("a folded header", head("200 OK", LENGTH_25, "X-Device: a=1;\r\n b=2") + OK),
    lenient("a control character in a header", head("200 OK", LENGTH_25, "Set-Cookie: a=\1b") + OK),
    lenient("HTTP/1.2", http().replace(b"1.1", b"1.2", 1)),
    lenient("a 100 before the same length twice", head("100 Continue") + head("200 OK", LENGTH_25, LENGTH_25) + OK),
    differs(
        delivered(
            "no line end behind the last chunk, then a close",
            head("200 OK", CHUNKED) + chunked(OK, end=b"0\r\n"),
            "close",
            keeps=False,
        ),
        "h11 misses the end of the body",
        error=ErrorClass.DISCONNECT,
        retryable=True,
        code=None,
    ),
]

REFUSALS = [
    *(
        Behaviour(
            f"{status}", answers(http(b"", f"{status} No")), ErrorClass.CREDENTIALS, True, status=status, keeps=True
        )
        for status in (401, 403, 407)
    ),
    *(
        final(f"{status}", ErrorClass.REFUSED, status, http(b'{"code":3}', f"{status} No"), code=3)
        for status in (400, 402, 404, 405, 409, 410, 413, 422, 451, 499)
    ),
    *(
        final(f"{status}", ErrorClass.REDIRECT, status, http(b"", f"{status} There", "Location: /send/"))
        for status in (300, 301, 302, 303, 307, 308)
    ),
    final("a redirect to itself with a good body", ErrorClass.REDIRECT, 302, http(OK, "302 F", "Location: ."), code=0),
    final("304", ErrorClass.REDIRECT, 304, head("304 Not Modified")),
    final("600", ErrorClass.REFUSED, 600, http(b"{}", "600 What")),
    final("999", ErrorClass.REFUSED, 999, http(b"{}", "999 What")),
    final("a text behind 404", ErrorClass.REFUSED, 404, http(b"<html>\xff</html>", "404 Not Found")),
    Behaviour("413, without reading on", _answers_before_it_reads, ErrorClass.REFUSED, status=413, keeps=False),
]

CODES = [
    final("code 1", ErrorClass.REJECTED, 200, http(b'{"code":1,"message":"no"}'), code=1),
    final("code -1", ErrorClass.REJECTED, 200, http(b'{"code":-1}'), code=-1),
    final("the highest code", ErrorClass.REJECTED, 200, http(b'{"code":9223372036854775807}'), code=(1 << 63) - 1),
    final("a code beyond 64 bits", ErrorClass.REJECTED, 200, http(b'{"code":%d}' % (1 << 200))),
    final("a code of 63 bits and one", ErrorClass.REJECTED, 200, http(b'{"code":9223372036854775808}')),
    final("no code", ErrorClass.REJECTED, 200, http(b"{}")),
    final("code true", ErrorClass.REJECTED, 200, http(b'{"code":true}')),
    final("code false", ErrorClass.REJECTED, 200, http(b'{"code":false}')),
    final("code null", ErrorClass.REJECTED, 200, http(b'{"code":null}')),
    final("code as a string", ErrorClass.REJECTED, 200, http(b'{"code":"0"}')),
    final("code 0.0", ErrorClass.REJECTED, 200, http(b'{"code":0.0}')),
    final("Code in capitals", ErrorClass.REJECTED, 200, http(b'{"Code":0}')),
]

UNREADABLE = [
    again("204", ErrorClass.UNREADABLE, head("204 No Content"), status=204),
    again("an empty body", ErrorClass.UNREADABLE, http(b""), status=200),
    again("a text", ErrorClass.UNREADABLE, http(b"OK"), status=200),
    again("half a JSON", ErrorClass.UNREADABLE, http(OK[:-1]), status=200),
    again("a JSON and more", ErrorClass.UNREADABLE, http(OK + b"x"), status=200),
    again("a list", ErrorClass.UNREADABLE, http(b'[{"code":0}]'), status=200),
    again("a number", ErrorClass.UNREADABLE, http(b"0"), status=200),
    again("null", ErrorClass.UNREADABLE, http(b"null"), status=200),
    again("NaN", ErrorClass.UNREADABLE, http(b'{"code":0,"x":NaN}'), status=200),
    again("no UTF-8", ErrorClass.UNREADABLE, http(b'{"code":0,"message":"\xff"}'), status=200),
    again("UTF-16", ErrorClass.UNREADABLE, http('{"code":0}'.encode("utf-16")), status=200),
    again("half a surrogate pair", ErrorClass.UNREADABLE, http(b'{"code":0,"m":"\\ud800"}'), status=200),
    again("too deep a JSON", ErrorClass.UNREADABLE, http(b'{"code":0,"a":' + b"[" * 8000), status=200),
    again(
        "a gzip bomb below the cap",
        ErrorClass.UNREADABLE,
        http(bomb(10), "200 OK", "Content-Encoding: gzip"),
        status=200,
    ),
    again(
        "gzip, unasked", ErrorClass.UNREADABLE, http(gzip.compress(OK), "200 OK", "Content-Encoding: gzip"), status=200
    ),
]

THROTTLES = [
    throttled("408", "408 Request Timeout", None),
    throttled("425", "425 Too Early", None),
    throttled("429", "429 Too Many Requests", None),
    throttled("429 for 7 seconds", "429 Too Many Requests", 7.0, "Retry-After: 7"),
    throttled("429 for 0 seconds", "429 Too Many Requests", 0.0, "retry-after:   0 "),
    throttled("429 for a million years", "429 Too Many Requests", 3600.0, "Retry-After: 31536000000000"),
    throttled("429 until 1999", "429 Too Many Requests", 0.0, "Retry-After: Fri, 31 Dec 1999 23:59:59 GMT"),
    throttled("429 until 2999", "429 Too Many Requests", 3600.0, "Retry-After: Tue, 31 Dec 2999 23:59:59 GMT"),
    throttled("429 for garbage", "429 Too Many Requests", None, "Retry-After: \xff\x80 soon, 99999 days"),
    throttled("429 for a negative time", "429 Too Many Requests", None, "Retry-After: -5"),
    throttled("429 for a fraction", "429 Too Many Requests", None, "Retry-After: 1.5"),
    throttled("429 for a number of 9 KB", "429 Too Many Requests", None, f"Retry-After: {'9' * 9000}"),
    throttled("503 for 2 seconds", "503 Service Unavailable", 2.0, "Retry-After: 2"),
    *(
        again(f"{status}", ErrorClass.SERVER, http(b"{}", f"{status} Oh"), status=status)
        for status in (500, 501, 502, 503, 504, 507, 599)
    ),
    Behaviour("500 with code 0", answers(http(OK, "500 Oh")), ErrorClass.SERVER, True, 500, code=0, keeps=True),
]

CHUNKED_200 = head("200 OK", CHUNKED)
LENGTH_200 = head("200 OK", f"Content-Length: {len(OK)}")
TRICKLE: list[bytes | float | str] = [b" ", 0.05] * 99

SILENCES = [
    again("it hangs before an answer", ErrorClass.TIMEOUT, "hang"),
    again("it hangs in the status line", ErrorClass.TIMEOUT, b"HTTP/1.1 2", "hang"),
    again("it hangs inside the head", ErrorClass.TIMEOUT, b"HTTP/1.1 200 OK\r\nContent-Le", "hang"),
    again("it hangs after a 100", ErrorClass.TIMEOUT, b"HTTP/1.1 100 Continue\r\n\r\n", "hang"),
    again("it hangs after the head", ErrorClass.TIMEOUT, LENGTH_200, "hang", status=200),
    again("it hangs in the body", ErrorClass.TIMEOUT, LENGTH_200 + OK[:-1], "hang", status=200),
    again("it hangs in a chunk", ErrorClass.TIMEOUT, CHUNKED_200 + b"19\r\n" + OK[:9], "hang", status=200),
    again("it hangs before the last chunk", ErrorClass.TIMEOUT, CHUNKED_200, b"19\r\n" + OK, "hang", status=200),
    again(
        "it hangs in the trailers", ErrorClass.TIMEOUT, CHUNKED_200 + chunked(OK, end=b"0\r\nX:"), "hang", status=200
    ),
    again("it never ends a body up to the end", ErrorClass.TIMEOUT, head("200 OK") + OK, "hang", status=200),
    again(
        "bytes too slow for the timeout", ErrorClass.TIMEOUT, head("200 OK", "Content-Length: 99"), *TRICKLE, status=200
    ),
    again("a head too slow for the timeout", ErrorClass.TIMEOUT, b"HTTP/1.1 200 OK\r\nX: ", *TRICKLE),
]

BREAKS = [
    Behaviour("a close at once", _closes_at_once, ErrorClass.DISCONNECT, True, sent=None),
    Behaviour("a RST at once", _resets_at_once, ErrorClass.DISCONNECT, True, sent=None),
    Behaviour("a RST after the request", _resets_inside_the_request, ErrorClass.DISCONNECT, True),
    again("a close instead of an answer", ErrorClass.DISCONNECT, "close"),
    again("a close in the status line", ErrorClass.DISCONNECT, b"HTTP/1.1 2", "close"),
    again("a close inside the head", ErrorClass.DISCONNECT, b"HTTP/1.1 200 OK\r\nContent-Le", "close"),
    again("a close after a 100", ErrorClass.DISCONNECT, b"HTTP/1.1 100 Continue\r\n\r\n", "close"),
    again("a close after the head", ErrorClass.DISCONNECT, LENGTH_200, "close", status=200),
    again("half a body", ErrorClass.DISCONNECT, LENGTH_200 + OK[:9], "close", status=200),
    again("half a chunk", ErrorClass.DISCONNECT, CHUNKED_200 + b"19\r\n" + OK[:9], "close", status=200),
    again("no last chunk", ErrorClass.DISCONNECT, CHUNKED_200 + chunked(OK, end=b""), "close", status=200),
    again("half the trailers", ErrorClass.DISCONNECT, CHUNKED_200 + chunked(OK, end=b"0\r\nX:"), "close", status=200),
    again("a RST inside the head", ErrorClass.DISCONNECT, b"HTTP/1.1 200 OK\r\nContent-Le", "reset"),
    again("a RST after the head", ErrorClass.DISCONNECT, LENGTH_200, "reset", status=200),
    again("a RST in the body", ErrorClass.DISCONNECT, LENGTH_200 + OK[:9], "reset", status=200),
    again("a RST in a body up to the end", ErrorClass.DISCONNECT, head("200 OK") + OK, "reset", status=200),
]

GARBAGE = [
    differs(
        again("another protocol", ErrorClass.PROTOCOL, b"220 mail.example ESMTP ready\r\n", "hang"),
        LATE,
        error=ErrorClass.TIMEOUT,
    ),
    again("bytes of no protocol", ErrorClass.PROTOCOL, bytes(range(256)) * 8, "hang"),
    again("HTTP/2 without having asked", ErrorClass.PROTOCOL, b"\0\0\6\4\0\0\0\0\0\0\3\0\0\0\x64", "hang"),
    again("a status that is no number", ErrorClass.PROTOCOL, b"HTTP/1.1 two OK\r\n\r\n", "hang"),
    again("a status of two digits", ErrorClass.PROTOCOL, b"HTTP/1.1 20 OK\r\n\r\n", "hang"),
    again("a status below 100", ErrorClass.PROTOCOL, head("099 OK", "Content-Length: 0"), "hang", status=None),
    again("a header without a colon", ErrorClass.PROTOCOL, b"HTTP/1.1 200 OK\r\nwhat\r\n\r\n", "hang"),
    again("a header with a NUL", ErrorClass.PROTOCOL, b"HTTP/1.1 200 OK\r\nX: \0\r\n\r\n", "hang"),
    again("a length that is no number", ErrorClass.PROTOCOL, head("200 OK", "Content-Length: much"), "hang"),
    again("a negative length", ErrorClass.PROTOCOL, head("200 OK", "Content-Length: -1"), "hang"),
    again("a length of 400 digits", ErrorClass.PROTOCOL, head("200 OK", f"Content-Length: {'9' * 400}"), "hang"),
    again(
        "no line end behind a trailer, then a hang",
        ErrorClass.TIMEOUT,
        CHUNKED_200 + chunked(OK, end=b"0\r\n"),
        "hang",
        status=200,
    ),
    differs(
        again(
            "chunks with lines that end in LF alone",
            ErrorClass.PROTOCOL,
            CHUNKED_200 + chunked(OK).replace(b"\r\n", b"\n"),
            "hang",
            status=200,
        ),
        "h11 waits for the CR",
        error=ErrorClass.TIMEOUT,
    ),
    again("two lengths in a list", ErrorClass.PROTOCOL, head("200 OK", "Content-Length: 5, 25") + OK, "hang"),
    again(
        "two lengths in lines that end in LF",
        ErrorClass.PROTOCOL,
        b"HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 25\n\n" + OK,
        "hang",
    ),
    again("two lengths", ErrorClass.PROTOCOL, head("200 OK", "Content-Length: 5", "Content-Length: 25") + OK, "hang"),
    again("a chunk of no length", ErrorClass.PROTOCOL, CHUNKED_200 + b"zz\r\n" + OK, "hang", status=200),
    again("a chunk of a negative length", ErrorClass.PROTOCOL, CHUNKED_200 + b"-1\r\n" + OK, "hang", status=200),
    again("a chunk longer than it says", ErrorClass.PROTOCOL, CHUNKED_200 + b"1\r\n" + OK, "hang", status=200),
    again(
        "another protocol after a 101",
        ErrorClass.PROTOCOL,
        head("101 Switching Protocols", "Upgrade: x", "Connection: upgrade"),
        "hang",
    ),
]

FLOODS = [
    floods("a body of 1 GB", head("200 OK", f"Content-Length: {1 << 30}"), bytes(65536)),
    floods("a body of 1 GB up to the end", head("200 OK"), bytes(65536)),
    floods("1 GB in big chunks", CHUNKED_200, chunked(bytes(65536), end=b"")),
    floods("1 GB in chunks of a byte", CHUNKED_200, chunked(*[b"x"] * 9000, end=b"")),
    floods("a chunk of 1 GB", CHUNKED_200 + b"40000000\r\n", bytes(65536)),
    floods("1 GB behind a 500", head("500 Oh", f"Content-Length: {1 << 30}"), bytes(65536), status=500),
    floods("1 GB behind a 302", head("302 There", f"Content-Length: {1 << 30}"), bytes(65536), status=302),
    floods("endless headers", b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n" * 999, status=0),
    floods("one endless header", b"HTTP/1.1 200 OK\r\nX-More: ", b"x" * 65536, status=0),
    floods("endless extensions of a chunk", CHUNKED_200 + b"1", b";x=" + b"y" * 65536),
    floods("endless trailers", CHUNKED_200 + chunked(OK, end=b"0\r\n"), b"X-More: and more\r\n" * 999),
    differs(
        floods("endless interim answers", b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 99, status=0),
        "h11 counts each for itself, so that only the timeout ends it",
        error=ErrorClass.TIMEOUT,
    ),
    floods("an endless status line", b"HTTP/1.1 200 ", b"x" * 65536, status=0),
    again("a byte more than the cap", ErrorClass.TOO_LARGE, http(OK + b" " * (MAX_BODY + 1 - len(OK))), status=200),
    again("a gzip bomb", ErrorClass.TOO_LARGE, http(bomb(64), "200 OK", "Content-Encoding: gzip"), status=200),
    again(
        "a length of 18 digits", ErrorClass.TOO_LARGE, head("200 OK", f"Content-Length: {'9' * 18}"), "hang", status=200
    ),
]

HANDSHAKES = [
    handshake("a certificate for another name", "other_name"),
    handshake("a certificate that has expired", "expired"),
    handshake("a certificate of an unknown CA", "unknown"),
]

BEHAVIOURS = [
    *RIGHT,
    *NOT_QUITE_HTTP,
    *REFUSALS,
    *CODES,
    *UNREADABLE,
    *THROTTLES,
    *SILENCES,
    *BREAKS,
    *GARBAGE,
    *FLOODS,
    *HANDSHAKES,
]
