"""What an answer means where the endpoint's description says so; elsewhere the usual rules hold.

Pure. `judge_of` is the one way to an endpoint's judge: an endpoint without such rules has that of
`dispatcher.verdict`, which is the fast one.
"""

from __future__ import annotations

import time
from codecs import BOM_UTF8
from collections.abc import Callable
from functools import partial

import orjson

from dispatcher.model.answers import MISSING, AnswerRules, Match, Source
from dispatcher.model.endpoints import DEFAULT_SUCCESS, Answer, Endpoint
from dispatcher.model.states import ErrorClass
from dispatcher.verdict import Verdict, as_code, by_status, excerpt, judge, parse_retry_after

MAX_PROVIDER_ID = 200
"""The most characters of an id that a gateway gives."""

_RETRYABLE = frozenset({ErrorClass.THROTTLED, ErrorClass.TRANSIENT, ErrorClass.CREDENTIALS})
_MAX_DIGITS = 18


def judge_of(endpoint: Endpoint) -> Callable[[Answer], Verdict]:
    """Return what judges the answers of an endpoint."""
    rules = endpoint.answers
    if rules is None:
        return judge if endpoint.success is DEFAULT_SUCCESS else partial(judge, rule=endpoint.success)
    return lambda answer: judge_described(answer, rules)


def judge_described(answer: Answer, rules: AnswerRules) -> Verdict:
    """Return what an answer means by these rules; one that none of them names is judged by its status.

    Of these a 2xx is REJECTED, or UNREADABLE (its outcome is not known) where the body should say something and
    cannot be read.
    """
    if answer.error is not ErrorClass.NONE:
        return judge(answer)
    document = _document(answer.body)
    verdict = _matched(answer, document, rules) or _unmatched(answer, document, rules)
    asked = answer.retry_after
    if rules.retry_after is not None:
        asked = _text(_found(rules.retry_after, answer, document)) or asked
    if not verdict.delivered and asked is not None:
        verdict = verdict._replace(retry_after=parse_retry_after(asked, time.time()))
    if rules.provider_id is not None:
        verdict = verdict._replace(provider_id=_text(_found(rules.provider_id, answer, document))[:MAX_PROVIDER_ID])
    return verdict


def _matched(answer: Answer, document: object, rules: AnswerRules) -> Verdict | None:
    """Return the verdict of the first rule that names this answer."""
    success = rules.success
    for rule in rules.errors:
        if success.at is None and rule.match.at is not None and rule.match(answer.status, document):
            return _failure(answer, document, rule.match, rule.error_class)
    if success(answer.status, document):
        return Verdict(True, False, ErrorClass.NONE, _code(success, document), None, "")
    for rule in rules.errors:
        if rule.match(answer.status, document):
            return _failure(answer, document, rule.match, rule.error_class)
    return None


def _failure(answer: Answer, document: object, match: Match, error: ErrorClass) -> Verdict:
    return Verdict(False, error in _RETRYABLE, error, _code(match, document), None, excerpt(answer.body))


def _unmatched(answer: Answer, document: object, rules: AnswerRules) -> Verdict:
    if not 200 <= answer.status < 300:
        error, retryable = by_status(answer.status)
        if answer.status == 503 and answer.retry_after is not None:
            error = ErrorClass.THROTTLED
    elif rules.success.at is not None and document is MISSING and _may_succeed(answer.status, rules.success):
        error, retryable = ErrorClass.UNREADABLE, True
    else:
        error, retryable = ErrorClass.REJECTED, False
    return Verdict(False, retryable, error, _code(rules.success, document), None, excerpt(answer.body))


def _may_succeed(status: int, success: Match) -> bool:
    return success.statuses is None or status in success.statuses


def _document(body: bytes) -> object:
    """Return what the body holds: JSON, or the text without blanks around it; MISSING for neither."""
    body = body.removeprefix(BOM_UTF8)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return body.decode("utf-8").strip() or MISSING
    except UnicodeDecodeError:
        return MISSING


def _found(source: Source, answer: Answer, document: object) -> object:
    return (answer.headers or {}).get(source.header, MISSING) if source.at is None else source.at.find(document)


def _text(found: object) -> str:
    """Return a text or number as text, '' for anything else."""
    if isinstance(found, bool) or not isinstance(found, int | float | str):
        return ""
    text = str(found)
    return text if text.isprintable() else ""


def _code(match: Match, document: object) -> int | None:
    """Return the integer where the rule looks, also one that is written as a text."""
    found = MISSING if match.at is None else match.at.find(document)
    if isinstance(found, str) and found.isascii() and found.isdecimal() and len(found) <= _MAX_DIGITS:
        found = int(found)
    return as_code(found)
