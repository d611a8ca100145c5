"""Answers judged by a description: first match wins, and what no rule names is judged as ever."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.described_answers import judge_described, judge_of
from dispatcher.model.answers import MISSING, AnswerRules, ErrorRule, Match, Pointer, Source, typed
from dispatcher.model.endpoints import Answer, Endpoint
from dispatcher.model.states import ErrorClass

OK = Match(frozenset({200, 409}), Pointer.parse("/status"), typed(["ok", 0, True]))


def answer(status: int, body: bytes = b"", retry_after: str | None = None, **headers: str) -> Answer:
    return Answer(status, body, retry_after, ErrorClass.NONE, True, 0.1, headers)


def error(class_: ErrorClass, *statuses: int, at: str | None = None, values: list[object] | None = None) -> ErrorRule:
    pointer = None if at is None else Pointer.parse(at)
    return ErrorRule(Match(frozenset(statuses) or None, pointer, None if values is None else typed(values)), class_)


RULES = AnswerRules(
    OK,
    (
        error(ErrorClass.THROTTLED, at="/error/code", values=[1]),
        error(ErrorClass.OPTED_OUT, 200, at="/error/code", values=[2]),
        error(ErrorClass.CREDENTIALS, at="/error/code", values=[3, "3"]),
        error(ErrorClass.TRANSIENT, 418),
        error(ErrorClass.REFUSED, at="/error"),
    ),
    Source.parse("/error/wait"),
    Source.parse("header:X-Id"),
)


@pytest.mark.parametrize(
    ("given", "error_class", "retryable", "code"),
    [
        (answer(200, b'{"status":"ok"}'), ErrorClass.NONE, False, None),
        (answer(409, b'{"status":0}'), ErrorClass.NONE, False, 0),
        (answer(200, b'{"status":true}'), ErrorClass.NONE, False, None),
        (answer(200, b'{"status":1}'), ErrorClass.REJECTED, False, 1),
        (answer(200, b'{"status":"0"}'), ErrorClass.REJECTED, False, 0),
        (answer(200, b'{"status":0.0}'), ErrorClass.REJECTED, False, None),
        (answer(201, b'{"status":"ok"}'), ErrorClass.REJECTED, False, None),
        (answer(200, b""), ErrorClass.UNREADABLE, True, None),
        (answer(201, b""), ErrorClass.REJECTED, False, None),
        (answer(200, b'{"error":{"code":1}}'), ErrorClass.THROTTLED, True, 1),
        (answer(200, b'{"error":{"code":2}}'), ErrorClass.OPTED_OUT, False, 2),
        (answer(400, b'{"error":{"code":2}}'), ErrorClass.REFUSED, False, None),
        (answer(200, b'{"error":{"code":"3"}}'), ErrorClass.CREDENTIALS, True, 3),
        (answer(418), ErrorClass.TRANSIENT, True, None),
        (answer(200, b'{"error":null}'), ErrorClass.REJECTED, False, None),
        (answer(500), ErrorClass.SERVER, True, None),
        (answer(503, retry_after="5"), ErrorClass.THROTTLED, True, None),
        (answer(429), ErrorClass.THROTTLED, True, None),
        (answer(401), ErrorClass.CREDENTIALS, True, None),
        (answer(302), ErrorClass.REDIRECT, False, None),
        (answer(404), ErrorClass.REFUSED, False, None),
        (Answer(0, b"", None, ErrorClass.TIMEOUT, True, 1.0), ErrorClass.TIMEOUT, True, None),
    ],
)
def test_the_first_rule_that_matches_holds(
    given: Answer, error_class: ErrorClass, retryable: bool, code: int | None
) -> None:
    verdict = judge_described(given, RULES)
    assert (verdict.error_class, verdict.retryable, verdict.endpoint_code) == (error_class, retryable, code)
    assert verdict.delivered == (error_class is ErrorClass.NONE)


def test_a_rule_that_reads_the_body_precedes_a_success_that_does_not() -> None:
    rules = AnswerRules(Match(frozenset({200})), (error(ErrorClass.REFUSED, at="/error"), error(ErrorClass.TRANSIENT)))
    assert judge_described(answer(200), rules).delivered
    assert judge_described(answer(200, b'{"error":1}'), rules).error_class is ErrorClass.REFUSED
    assert judge_described(answer(201), rules).error_class is ErrorClass.TRANSIENT


def test_a_text_is_read_as_a_whole() -> None:
    rules = AnswerRules(Match(None, Pointer(), typed(["OK"])), (error(ErrorClass.REFUSED, at="", values=["NO"]),))
    assert judge_described(answer(200, b"\xef\xbb\xbfOK\r\n"), rules).delivered
    assert judge_described(answer(200, b"NO"), rules).error_class is ErrorClass.REFUSED
    assert judge_described(answer(200, b"\xff"), rules).error_class is ErrorClass.UNREADABLE


@pytest.mark.parametrize(
    ("body", "retry_after", "seconds"),
    [
        (b'{"error":{"code":1,"wait":7}}', None, 7.0),
        (b'{"error":{"code":1,"wait":"8"}}', "3", 8.0),
        (b'{"error":{"code":1}}', "3", 3.0),
        (b'{"error":{"code":1,"wait":[]}}', "3", 3.0),
        (b'{"error":{"code":1,"wait":true}}', None, None),
        (b'{"error":{"code":1,"wait":1e99}}', None, None),
    ],
)
def test_the_wait_is_where_the_description_says(body: bytes, retry_after: str | None, seconds: float | None) -> None:
    assert judge_described(answer(200, body, retry_after), RULES).retry_after == seconds


@pytest.mark.parametrize(
    ("source", "body", "headers", "found"),
    [
        ("/id", b'{"id":"m-1"}', {}, "m-1"),
        ("/id", b'{"id":17}', {}, "17"),
        ("/id", b'{"id":null}', {}, ""),
        ("/ids/0", b'{"ids":["a","b"]}', {}, "a"),
        ("/id", b'{"id":"a\\nb"}', {}, ""),
        ("/id", b'{"id":"%b"}' % (b"x" * 500), {}, "x" * 200),
        ("header:X-Id", b"", {"x-id": "m-2"}, "m-2"),
        ("header:X-Id", b"", {}, ""),
    ],
)
def test_the_gateway_s_id_is_found(source: str, body: bytes, headers: dict[str, str], found: str) -> None:
    rules = AnswerRules(Match(frozenset({200})), provider_id=Source.parse(source))
    assert judge_described(answer(200, body, **headers), rules).provider_id == found


@pytest.mark.parametrize(
    ("pointer", "found"),
    [("", {"a": [{"b/c": 1}]}), ("/a/0/b~1c", 1), ("/a/1", MISSING), ("/a/x", MISSING), ("/a/0/b~1c/d", MISSING)],
)
def test_pointers_lead_where_rfc_6901_says(pointer: str, found: Any) -> None:
    assert Pointer.parse(pointer).find({"a": [{"b/c": 1}]}) == found


@pytest.mark.parametrize("text", ["a", "a/b", "header:", "header:x y"])
def test_what_is_no_pointer_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Source.parse(text)


def test_an_endpoint_without_rules_is_judged_as_ever() -> None:
    assert judge_of(Endpoint("x", "http://host/", ""))(answer(200, b'{"code":0}')).delivered
    assert judge_of(Endpoint("x", "http://host/", "", answers=RULES))(answer(200, b'{"status":"ok"}')).delivered
