"""What answers mean, by the table in the code, and that no answer does harm."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.model.endpoints import DEFAULT_SUCCESS, Answer, Endpoint, SuccessRule
from dispatcher.model.states import ErrorClass
from dispatcher.verdict import MAX_EXCERPT, MAX_RETRY_AFTER, judge, parse_retry_after

OK = b'{"code":0,"message":"OK"}'
NOW = 1_700_000_000.0


RETRY_AFTER = [
    ("0", 0.0),
    ("7", 7.0),
    (" 7\t", 7.0),
    ("3600", 3600.0),
    ("3601", MAX_RETRY_AFTER),
    ("9" * 18, MAX_RETRY_AFTER),
    ("9" * 19, None),
    ("-1", None),
    ("+1", None),
    ("1.5", None),
    ("1e3", None),
    ("²", None),
    ("\u0667", None),
    ("", None),
    ("soon", None),
    ("x" * 100_000, None),
    (formatdate(NOW + 90, usegmt=True), 90.0),
    (formatdate(NOW + 90), 90.0),
    (formatdate(NOW - 90, usegmt=True), 0.0),
    (formatdate(NOW + 1e9, usegmt=True), MAX_RETRY_AFTER),
    ("Fri, 31 Dec 9999 23:59:59 -2359", MAX_RETRY_AFTER),
    ("Mon, 99 Foo 2026 99:99:99 GMT", None),
]


@pytest.mark.parametrize(("value", "seconds"), RETRY_AFTER)
def test_retry_after_is_read_and_clamped(value: str, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d{1,4} [A-Z][a-z]{2} \d{1,9} \d+:\d+:\d+( [A-Z+-]\d{0,6})?"))
def test_no_retry_after_does_harm(value: str) -> None:
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER


def answer(status: int, body: bytes = OK, retry_after: str | None = None) -> Answer:
    return Answer(status, body, retry_after, ErrorClass.NONE, True, 0.1)


def documented() -> dict[str, str]:
    """Return the table of the docstring: answer → error class and retryable."""
    rows = [line.split("|")[1:4] for line in (judge.__doc__ or "").splitlines() if line.strip().startswith("| ")]
    return {kind.strip(): f"{error.strip()} {retryable.strip()}" for kind, error, retryable in rows[1:]}


JUDGED = {
    "a 2xx that counts, with an accepted code": [answer(200), answer(299, b' {"code": 0} ')],
    "a 2xx that counts, with any other code": [
        answer(200, b'{"code":1}'),
        answer(200, b"{}"),
        answer(200, b'{"code":true}'),
        answer(200, b'{"code":false}'),
        answer(200, b'{"code":"0"}'),
        answer(200, b'{"code":0.0}'),
        answer(200, b'{"code":[0]}'),
        answer(200, b'{"code":%d}' % 10**40),
    ],
    "a 2xx that counts, no JSON object": [
        answer(200, b""),
        answer(204, b""),
        answer(200, b"[0]"),
        answer(200, b'{"code":0,"\xff":1}'),
    ],
    "408, 425, 429, 503 with Retry-After": [*map(answer, (408, 425, 429)), answer(503, OK, "1"), answer(503, b"", "?")],
    "any other 5xx": [*map(answer, (500, 502, 503, 504, 599)), answer(500, OK, "1")],
    "401, 403, 407": [*map(answer, (401, 403, 407)), answer(401, OK, "1")],
    "3xx": [*map(answer, (300, 301, 302, 304, 308, 399)), answer(302, OK, "1")],
    "any other status": [*map(answer, (400, 404, 409, 410, 422, 499, 600, 999)), answer(404, OK, "1")],
    "no complete answer": [
        Answer(200, OK, "1", error, True, 0.1)
        for error in ErrorClass
        if ErrorClass.NONE < error <= ErrorClass.TOO_LARGE
    ],
}


NO_BODY = SuccessRule(statuses=frozenset({204}), needs_body=False)
WORDS = SuccessRule(code_field="status", accepted=frozenset({"ok", "queued", 7}))
STRICT = SuccessRule(statuses=frozenset({200, 201}), accepted=frozenset({0, 1, -5}))

BY_RULE: dict[str, list[tuple[SuccessRule, Answer]]] = {
    "a 2xx that counts, with an accepted code": [
        (WORDS, answer(200, b'{"status":"ok"}')),
        (WORDS, answer(202, b'{"status":"queued","code":5}')),
        (WORDS, answer(200, b'{"status":7}')),
        (STRICT, answer(201, b'{"code":1}')),
        (STRICT, answer(200, b'{"code":-5}' + b" " * 1000)),
    ],
    "a 2xx that counts, where none is needed": [
        (NO_BODY, answer(204, b"")),
        (NO_BODY, answer(204, b"<html>")),
        (NO_BODY, answer(204, b'{"code":5}')),
        (SuccessRule(needs_body=False), answer(299, b"")),
    ],
    "a 2xx that counts, with any other code": [
        (WORDS, answer(200, b'{"status":"OK"}')),
        (WORDS, answer(200, b'{"status":"7"}')),
        (WORDS, answer(200, b'{"status":["ok"]}')),
        (WORDS, answer(200, b'{"code":0}')),
        (STRICT, answer(200, b'{"code":true}')),
        (STRICT, answer(200, b'{"code":1.0}')),
        (STRICT, answer(200, b'{"code":2}')),
    ],
    "a 2xx that counts, no JSON object": [
        (WORDS, answer(200, b'"ok"')),
        (WORDS, answer(204, b"")),
        (STRICT, answer(200, b'{"code":0')),
    ],
    "any other 2xx": [
        (NO_BODY, answer(200, b"")),
        (NO_BODY, answer(200, OK)),
        (STRICT, answer(202, OK)),
        (STRICT, answer(204, b"")),
    ],
    "any other 5xx": [(NO_BODY, answer(500, b"")), (WORDS, answer(500, b'{"status":"ok"}'))],
    "any other status": [(NO_BODY, answer(404, b"")), (STRICT, answer(404, OK))],
    "no complete answer": [(NO_BODY, Answer(204, b"", None, ErrorClass.TIMEOUT, True, 0.1))],
}
CASES = [(kind, DEFAULT_SUCCESS, one) for kind, answers in JUDGED.items() for one in answers] + [
    (kind, rule, one) for kind, cases in BY_RULE.items() for rule, one in cases
]


@pytest.mark.parametrize("kind", [*JUDGED, *sorted(BY_RULE.keys() - JUDGED.keys())])
def test_an_answer_means_what_the_table_says(kind: str) -> None:
    for rule, one in [case[1:] for case in CASES if case[0] == kind]:
        verdict = judge(one, rule)
        said = f"{verdict.error_class.name} {'yes' if verdict.retryable else 'no'}"
        if kind == "no complete answer":
            assert said == f"{one.error.name} yes"
        else:
            assert said == documented()[kind].replace("NONE (delivered)", "NONE"), (rule, one)
        assert verdict.delivered is (verdict.error_class is ErrorClass.NONE)


def test_the_table_has_no_other_rows() -> None:
    assert documented().keys() == JUDGED.keys() | BY_RULE.keys()


def test_what_is_remembered_of_an_answer_is_remembered_with_the_rule() -> None:
    # Fails when the rule is no part of the cache's key.
    for _ in range(2):
        delivered = [
            judge(answer(200, b'{"status":"ok"}'), rule).delivered for rule in (DEFAULT_SUCCESS, WORDS, STRICT)
        ]
        assert delivered == [False, True, False]


@pytest.mark.parametrize(
    ("rule", "body", "code"),
    [
        (WORDS, b'{"status":"ok","code":5}', None),
        (WORDS, b'{"status":9,"code":5}', 9),
        (STRICT, b'{"code":-5}', -5),
        (SuccessRule(needs_body=False), b'{"code":3}', 3),
        (SuccessRule(needs_body=False), b"", None),
    ],
)
def test_the_code_that_is_kept_is_the_integer_in_the_rule_s_field(rule: SuccessRule, body: bytes, code: int) -> None:
    assert judge(answer(200, body), rule).endpoint_code == code


def test_without_a_rule_of_its_own_an_endpoint_wants_code_0() -> None:
    assert Endpoint("one", "http://a.example/", "").success is DEFAULT_SUCCESS
    assert SuccessRule() == DEFAULT_SUCCESS


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("statuses", frozenset[int]()),
        ("statuses", frozenset({200, 404})),
        ("statuses", frozenset({199})),
        ("accepted", frozenset[int]()),
        ("accepted", frozenset({True})),
        ("accepted", frozenset({0.0})),
        ("accepted", frozenset({"ok", None})),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(attribute: str, value: frozenset[object]) -> None:
    with pytest.raises(ValueError, match=f"^{attribute} "):
        SuccessRule(**{attribute: value})  # type: ignore[arg-type]


def test_a_retry_after_is_told_in_seconds_from_now() -> None:
    assert judge(answer(429, OK, "7")).retry_after == 7.0
    later = judge(answer(429, OK, formatdate(time.time() + 100, usegmt=True))).retry_after
    assert later is not None
    assert 0 < later <= 100


@pytest.mark.parametrize(
    ("code", "kept"),
    [(5, 5), (-5, -5), ((1 << 63) - 1, (1 << 63) - 1), (-(1 << 63), -(1 << 63)), (1 << 63, None), (10**400, None)],
)
def test_a_code_is_kept_if_the_database_can_hold_it(code: int, kept: int | None) -> None:
    assert judge(answer(200, b'{"code":%d}' % code)).endpoint_code == kept


def test_an_excerpt_is_short_and_printable() -> None:
    verdict = judge(answer(404, "Ж\x00\n\x1b[2J\u202e".encode() + b"\xff" + b"x" * 9000))
    assert verdict.excerpt.startswith("Ж   [2J")
    assert verdict.excerpt.isprintable()
    assert len(verdict.excerpt) == MAX_EXCERPT
    assert judge(answer(200)).excerpt == ""


@given(st.integers(100, 999), st.binary(max_size=600))
def test_no_answer_does_harm(status: int, body: bytes) -> None:
    assert judge(answer(status, body)).error_class in ErrorClass
