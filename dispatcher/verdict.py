"""What an answer of an endpoint means: delivered or not, and whether another attempt makes sense.

Pure. What happens next is not decided here: that is `dispatcher.retry_policy`. A message is
delivered when the endpoint's success rule says so: by default, when the answer is a 2xx whose
body is a JSON object with the integer `code` 0.
"""

from __future__ import annotations

import time
from codecs import BOM_UTF8
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import NamedTuple

import orjson

from dispatcher.model.endpoints import DEFAULT_SUCCESS, Answer, SuccessRule
from dispatcher.model.states import ErrorClass

MAX_RETRY_AFTER = 3600.0
"""The longest wait, in seconds, that an endpoint may ask for."""

MAX_EXCERPT = 200
"""The most characters of an answer's body that are kept of a failed attempt."""

_SMALL_BODY = 512
_MAX_DIGITS = 18
_MAX_DATE = 64
_INT64 = range(-(1 << 63), 1 << 63)
_THROTTLED = frozenset({408, 425, 429})
_CREDENTIALS = frozenset({401, 403, 407})


class Verdict(NamedTuple):
    """What an answer means.

    `delivered`: the endpoint took the message. `retryable`: another attempt makes sense (an
    UNREADABLE answer leaves the outcome unknown, as do errors after `Answer.sent`; the policy
    decides what that means for a mailing). `endpoint_code`: what the body's code field holds, if
    it is an integer. `retry_after`: seconds, 0 to MAX_RETRY_AFTER, None when nothing sensible was asked
    for. `excerpt`: the beginning of a failed answer's body, printable. `provider_id`: the id that the gateway gave
    the message, where its description says where to find it.
    """

    delivered: bool
    retryable: bool
    error_class: ErrorClass
    endpoint_code: int | None
    retry_after: float | None
    excerpt: str
    provider_id: str = ""


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
    | 401, 403, 407                             | CREDENTIALS        | yes       |
    | 3xx                                       | REDIRECT           | no        |
    | any other status                          | REFUSED            | no        |
    | no complete answer                        | CONNECT…TOO_LARGE  | yes       |
    """
    if answer.error is not ErrorClass.NONE:
        return Verdict(False, True, answer.error, None, None, excerpt(answer.body))
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
    error, retryable = by_status(status)
    return Verdict(False, retryable, error, _code(_object(body), rule), None, excerpt(body))


def by_status(status: int) -> tuple[ErrorClass, bool]:
    """Return the class of a status that is no 2xx, and whether another attempt makes sense."""
    if status in _THROTTLED:
        return ErrorClass.THROTTLED, True
    if status in _CREDENTIALS:
        return ErrorClass.CREDENTIALS, True
    if 500 <= status < 600:
        return ErrorClass.SERVER, True
    if 300 <= status < 400:
        return ErrorClass.REDIRECT, False
    return ErrorClass.REFUSED, False


_read_small = lru_cache(maxsize=256)(_read)


def _read_success(status: int, body: bytes, rule: SuccessRule) -> Verdict:
    answered = _object(body)
    code = _code(answered, rule)
    if status not in rule.statuses:
        return Verdict(False, False, ErrorClass.REJECTED, code, None, excerpt(body))
    if not rule.needs_body or _accepted(answered, rule):
        return Verdict(True, False, ErrorClass.NONE, code, None, "")
    if answered is None:
        return Verdict(False, True, ErrorClass.UNREADABLE, None, None, excerpt(body))
    return Verdict(False, False, ErrorClass.REJECTED, code, None, excerpt(body))


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
    """Return what the code field holds if it is an integer that the database can hold."""
    return None if answered is None else as_code(answered.get(rule.code_field))


def as_code(code: object) -> int | None:
    """Return an integer that the database can hold, None for anything else."""
    return code if type(code) is int and code in _INT64 else None


def excerpt(body: bytes) -> str:
    """Return the beginning of a body, printable, at most MAX_EXCERPT characters."""
    # Four bytes are the most that a character can take.
    return printable(body[: 4 * MAX_EXCERPT].decode("utf-8", "replace")[:MAX_EXCERPT])


def printable(text: str) -> str:
    """Return a text with a blank in place of whatever cannot be printed."""
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
