"""The delivery protocol: what one message looks like on the wire and what an answer means.

`encode_body` and `Target` make the request, `judge` reads the answer; both senders use the
same ones. Nothing here does any I/O, and nothing here decides what happens next: that is
the dispatcher's policy.

One request is `POST {url}{message id}` with a bearer token, the message id as its
Idempotency-Key and the body `{"id": int, "phone": int, "text": str}`. It is delivered when
the endpoint's success rule says so: by default, when the answer is a 2xx whose body is a
JSON object with the integer `code` 0.
"""

from __future__ import annotations

import re
import time
from codecs import BOM_UTF8
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from ipaddress import IPv6Address
from typing import NamedTuple
from urllib.parse import urlsplit

import orjson

from dispatcher.model.records import DEFAULT_SUCCESS, Answer, Endpoint, SuccessRule
from dispatcher.model.states import ErrorClass

MAX_RETRY_AFTER = 3600.0
"""The longest wait, in seconds, that an endpoint may ask for."""

MAX_EXCERPT = 200
"""The most characters of an answer's body that are kept of a failed attempt."""

_SMALL_BODY = 512
_MAX_DIGITS = 18
_MAX_DATE = 64
_NAME = re.compile(r"([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)+")
_VISIBLE = re.compile(r"[\x21-\x7e]*")
_INT64 = range(-(1 << 63), 1 << 63)
_THROTTLED = frozenset({408, 425, 429})


class Verdict(NamedTuple):
    """What an answer means.

    `delivered`: the endpoint took the message. `retryable`: another attempt makes sense (an
    UNREADABLE answer leaves the outcome unknown, as do errors after `Answer.sent`; the policy
    decides what that means for a mailing). `endpoint_code`: what the body's code field holds, if
    it is an integer. `retry_after`: seconds, 0 to MAX_RETRY_AFTER, None when nothing sensible was asked
    for. `excerpt`: the beginning of a failed answer's body, printable.
    """

    delivered: bool
    retryable: bool
    error_class: ErrorClass
    endpoint_code: int | None
    retry_after: float | None
    excerpt: str


class Target(NamedTuple):
    """An endpoint's URL and token, taken apart and proven harmless.

    `host` is a name or an address without brackets, `path` is what precedes the message id in
    the request line, `headers` are all headers that no message changes.
    """

    secure: bool
    host: str
    port: int
    path: str
    headers: tuple[tuple[str, str], ...]


def parse_target(endpoint: Endpoint) -> Target:
    """Check an endpoint's URL and token.

    Raise ValueError, naming the endpoint and the field but never the token, for anything
    that is not an absolute http(s) URL without userinfo and fragment, and for anything that
    could smuggle a second header or request.
    """

    def refuse(reason: str) -> ValueError:
        return ValueError(f"endpoint {endpoint.name!r}: {reason}")

    if not _VISIBLE.fullmatch(endpoint.url):
        raise refuse("url must be ASCII without spaces and control characters (percent-encode others)")
    if not _VISIBLE.fullmatch(endpoint.token):
        raise refuse("token must be ASCII without spaces and control characters")
    try:
        parts = urlsplit(endpoint.url)
        port = parts.port
    except ValueError as error:
        raise refuse(f"url: {error}") from None
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https"):
        raise refuse("url must begin with http:// or https://")
    if "@" in parts.netloc:
        raise refuse("url must not hold a user name or password")
    if "#" in endpoint.url:
        raise refuse("url must not hold a fragment: the message id is appended to it")
    if port == 0 or not (_is_ipv6(host) if "[" in parts.netloc else _is_name(host)):
        raise refuse("url must name a host, and a port from 1 to 65535 if any")
    secure = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if "?" in endpoint.url else "")
    shown_host = f"[{host}]" if ":" in host else host
    headers = [("Host", shown_host if port is None else f"{shown_host}:{port}")]
    if endpoint.token:
        headers.append(("Authorization", f"Bearer {endpoint.token}"))
    headers += [
        ("User-Agent", "mailing"),
        ("Accept", "application/json"),
        ("Accept-Encoding", "identity"),
        ("Content-Type", "application/json"),
    ]
    return Target(secure, host, port or (443 if secure else 80), path, tuple(headers))


def _is_name(host: str) -> bool:
    """Return whether a resolver can be asked for it; addresses of four numbers are names, too."""
    return len(host) <= 253 and _NAME.fullmatch(host.removesuffix(".") + ".") is not None


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return "%" not in host


def encode_body(message_id: int, phone: str, text: str) -> bytes:
    """Return the request body. `phone` holds digits only, or ValueError is raised.

    The encoded text is kept for the next messages with the same text.
    """
    if not (phone.isdigit() and phone.isascii()):
        raise ValueError("a phone holds digits only")
    return b'{"id":%d,"phone":%d%b' % (message_id, int(phone), _encode_text(text))


@lru_cache(maxsize=16)
def _encode_text(text: str) -> bytes:
    try:
        encoded = orjson.dumps(text)
    except TypeError:  # half of a surrogate pair: no UTF-8 can hold it, the rest of the text still arrives
        encoded = orjson.dumps(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    return b',"text":' + encoded + b"}"


def judge(answer: Answer, rule: SuccessRule = DEFAULT_SUCCESS) -> Verdict:
    """Return what an answer means to an endpoint with such a success rule.

    | answer                                    | error_class        | retryable |
    |-------------------------------------------|--------------------|-----------|
    | a 2xx that counts, with an accepted code  | NONE (delivered)   | no        |
    | a 2xx that counts, where none is needed   | NONE (delivered)   | no        |
    | a 2xx that counts, with any other code    | REJECTED           | no        |
    | a 2xx that counts, no JSON object         | UNREADABLE         | yes       |
    | any other 2xx                             | REJECTED           | no        |
    | 408, 425, 429, 503 with Retry-After       | THROTTLED          | yes       |
    | any other 5xx                             | SERVER             | yes       |
    | 3xx                                       | REDIRECT           | no        |
    | any other status                          | REFUSED            | no        |
    | no complete answer                        | CONNECT…TOO_LARGE  | yes       |
    """
    if answer.error is not ErrorClass.NONE:
        return Verdict(False, True, answer.error, None, None, _excerpt(answer.body))
    if len(answer.body) > _SMALL_BODY:
        verdict = _read(answer.status, answer.body, rule)
    elif rule is DEFAULT_SUCCESS:  # left out, as hashing a rule takes longer than all the rest
        verdict = _read_small(answer.status, answer.body)
    else:
        verdict = _read_small(answer.status, answer.body, rule)
    if answer.retry_after is None:
        return verdict
    if answer.status == 503:
        verdict = verdict._replace(error_class=ErrorClass.THROTTLED)
    return verdict._replace(retry_after=parse_retry_after(answer.retry_after, time.time()))


def _read(status: int, body: bytes, rule: SuccessRule = DEFAULT_SUCCESS) -> Verdict:
    """Judge all but Retry-After."""
    if 200 <= status < 300:
        return _read_success(status, body, rule)
    if status in _THROTTLED:
        error, retryable = ErrorClass.THROTTLED, True
    elif 500 <= status < 600:
        error, retryable = ErrorClass.SERVER, True
    elif 300 <= status < 400:
        error, retryable = ErrorClass.REDIRECT, False
    else:
        error, retryable = ErrorClass.REFUSED, False
    return Verdict(False, retryable, error, _code(_object(body), rule), None, _excerpt(body))


_read_small = lru_cache(maxsize=256)(_read)


def _read_success(status: int, body: bytes, rule: SuccessRule) -> Verdict:
    answered = _object(body)
    code = _code(answered, rule)
    if status not in rule.statuses:
        return Verdict(False, False, ErrorClass.REJECTED, code, None, _excerpt(body))
    if not rule.needs_body or _accepted(answered, rule):
        return Verdict(True, False, ErrorClass.NONE, code, None, "")
    if answered is None:
        return Verdict(False, True, ErrorClass.UNREADABLE, None, None, _excerpt(body))
    return Verdict(False, False, ErrorClass.REJECTED, code, None, _excerpt(body))


def _object(body: bytes) -> dict[str, object] | None:
    try:
        value = orjson.loads(body.removeprefix(BOM_UTF8))
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _accepted(answered: dict[str, object] | None, rule: SuccessRule) -> bool:
    value = None if answered is None else answered.get(rule.code_field)
    return type(value) in (int, str) and value in rule.accepted  # by type: false and 0.0 equal 0


def _code(answered: dict[str, object] | None, rule: SuccessRule) -> int | None:
    """Return what the code field holds if it is an integer that the ledger can hold."""
    code = None if answered is None else answered.get(rule.code_field)
    return code if type(code) is int and code in _INT64 else None


def _excerpt(body: bytes) -> str:
    # Four bytes are the most that a character can take.
    text = body[: 4 * MAX_EXCERPT].decode("utf-8", "replace")[:MAX_EXCERPT]
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def parse_retry_after(value: str, now: float) -> float | None:
    """Return the wait in seconds that a Retry-After header asks for, clamped to 0…MAX_RETRY_AFTER.

    `value` is a number of seconds or an HTTP date (RFC 9110, 10.2.3), `now` is in seconds
    since the epoch. None for anything else.
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value), MAX_RETRY_AFTER) if len(value) <= _MAX_DIGITS else None
    if len(value) > _MAX_DATE:
        return None
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return min(max(moment.timestamp() - now, 0.0), MAX_RETRY_AFTER)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
