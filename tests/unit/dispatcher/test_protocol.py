"""The delivery protocol: what is written for a message, what answers mean, and what no endpoint may be."""

from __future__ import annotations

import time
from email.utils import formatdate

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.delivery.http1 import FastSender
from dispatcher.delivery.httpx_sender import HttpxSender
from dispatcher.delivery.protocol import (
    MAX_EXCERPT,
    MAX_RETRY_AFTER,
    encode_body,
    judge,
    parse_retry_after,
    parse_target,
)
from dispatcher.model.records import DEFAULT_SUCCESS, Answer, Endpoint, SuccessRule
from dispatcher.model.states import ErrorClass

OK = b'{"code":0,"message":"OK"}'
NOW = 1_700_000_000.0


def target(url: str, token: str = "secret-token") -> dict[str, object]:
    return parse_target(Endpoint("one", url, token))._asdict()


@given(st.integers(0, (1 << 63) - 1), st.from_regex(r"[0-9]{1,15}", fullmatch=True), st.text())
def test_a_body_says_what_it_was_given(message_id: int, phone: str, text: str) -> None:
    assert orjson.loads(encode_body(message_id, phone, text)) == {"id": message_id, "phone": int(phone), "text": text}


def test_a_body_is_the_shortest_json() -> None:
    assert encode_body(7, "79001234567", 'Ж"\n') == '{"id":7,"phone":79001234567,"text":"Ж\\"\\n"}'.encode()


def test_leading_zeros_are_no_octal() -> None:
    assert orjson.loads(encode_body(1, "007", ""))["phone"] == 7


@pytest.mark.parametrize("phone", ["", " 7", "+7", "-7", "7_0", "7.0", "0x7", "\u0667", "²", "9" * 5000])
def test_a_phone_of_anything_but_digits_is_refused(phone: str) -> None:
    with pytest.raises(ValueError):
        encode_body(1, phone, "")


def test_half_a_surrogate_pair_does_not_stop_the_text() -> None:
    assert orjson.loads(encode_body(1, "7", "a\ud83db"))["text"] == "a\ufffdb"


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
def test_a_code_is_kept_if_the_ledger_can_hold_it(code: int, kept: int | None) -> None:
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


BAD_ENDPOINTS = {
    "no scheme": ("example.com/", ""),
    "another scheme": ("ftp://example.com/", ""),
    "a file": ("file:///etc/passwd", ""),
    "no host": ("http:///send/", ""),
    "a user name": ("http://user@example.com/", ""),
    "a password": ("https://user:pass@example.com/", ""),
    "an empty user name": ("http://@example.com/", ""),
    "a fragment": ("http://example.com/#", ""),
    "a line break": ("http://example.com/\r\nX: y", ""),
    "a line feed": ("http://example.com/\n", ""),
    "a space": ("http://example.com/ HTTP/1.1", ""),
    "a tab": ("http://exa\tmple.com/", ""),
    "a NUL": ("http://example.com/\0", ""),
    "letters beyond ASCII": ("http://пример.рф/", ""),
    "port 0": ("http://example.com:0/", ""),
    "port 65536": ("http://example.com:65536/", ""),
    "a port that is no number": ("http://example.com:http/", ""),
    "half an IPv6 address": ("http://[::1/", ""),
    "a name in brackets": ("http://[example.com]/", ""),
    "an IPv6 zone": ("http://[fe80::1%25eth0]/", ""),
    "an empty label": ("http://a..b/", ""),
    "a label of 64 letters": (f"http://{'a' * 64}.example/", ""),
    "a name of 300 letters": (f"http://{'a.' * 150}example/", ""),
    "a backslash for a host": ("http://\\example.com/", ""),
    "a token with a line break": ("http://example.com/", "secret\r\nX: y"),
    "a token with a space": ("http://example.com/", "secret two"),
    "a token beyond ASCII": ("http://example.com/", "sécret"),
}


@pytest.mark.parametrize("make", [FastSender, HttpxSender])
@pytest.mark.parametrize("what", BAD_ENDPOINTS)
def test_no_sender_takes_an_endpoint_with(what: str, make: type[FastSender] | type[HttpxSender]) -> None:
    url, token = BAD_ENDPOINTS[what]
    with pytest.raises(ValueError) as error:
        make(Endpoint("the-endpoint", url, token))
    assert "the-endpoint" in str(error.value)
    assert not token or token not in str(error.value)
    assert "pass" not in str(error.value).replace("password", "")


@pytest.mark.parametrize("make", [FastSender, HttpxSender])
@pytest.mark.parametrize("content", [None, "", "no certificate\n"])
def test_no_sender_takes_a_ca_file_without_a_certificate(
    content: str | None, make: type[FastSender] | type[HttpxSender], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=r"ca\.pem"):
        make(Endpoint("one", "https://example.com/", "", ca_file=str(path)))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://example.com", {"secure": False, "host": "example.com", "port": 80, "path": "/"}),
        ("https://example.com/send/", {"secure": True, "host": "example.com", "port": 443, "path": "/send/"}),
        ("http://example.com:81?to=", {"host": "example.com", "port": 81, "path": "/?to="}),
        ("http://[::1]:8080/a%20b/", {"host": "::1", "port": 8080, "path": "/a%20b/"}),
        ("HTTP://127.0.0.1/", {"secure": False, "host": "127.0.0.1", "port": 80}),
        ("http://my_host-1.internal./", {"host": "my_host-1.internal."}),
    ],
)
def test_a_url_is_taken_apart(url: str, expected: dict[str, object]) -> None:
    assert expected.items() <= target(url).items()


@pytest.mark.parametrize(
    ("url", "host"),
    [("http://a.example/", "a.example"), ("https://a.example:443/", "a.example:443"), ("http://[::1]/", "[::1]")],
)
def test_the_host_header_is_as_the_url_wrote_it(url: str, host: str) -> None:
    assert dict(parse_target(Endpoint("one", url, "")).headers)["Host"] == host


def test_there_is_no_authorization_without_a_token() -> None:
    assert "Authorization" not in dict(parse_target(Endpoint("one", "http://a.example/", "")).headers)
    assert dict(parse_target(Endpoint("one", "http://a.example/", "x")).headers)["Authorization"] == "Bearer x"
