"""Explains an endpoints file: the request of a sample message, and what each kind of answer would mean.

Nothing is sent. The answers are made of the file's own rules and judged as real ones are, so a rule that an
earlier one keeps from ever applying shows. Secrets are masked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from dispatcher.delivery.described import DescribedRequests
from dispatcher.delivery.protocol import encode_body, parse_target
from dispatcher.described_answers import judge_of
from dispatcher.model.answers import AnswerRules, Match, Pointer, Source
from dispatcher.model.endpoints import Answer, Endpoint, SuccessRule
from dispatcher.model.requests import RequestForm
from dispatcher.model.states import ErrorClass
from dispatcher.verdict import Verdict
from server.endpoints.endpoints_file import read_entries

RECEIPTS_URL = "https://receipts.example"
"""Stands for MAILING_RECEIPTS_URL."""

SAMPLE_ID = 4294967297
SAMPLE_PHONE = "79161234567"
SAMPLE_TEXT = 'Hello "you" & all'
SAMPLE_TITLE = "Autumn"

_TEMPORARY = "retried, and counts as an attempt"
_MEANINGS = {
    ErrorClass.NONE: "accepted: the message is DELIVERED",
    ErrorClass.THROTTLED: "retried after a wait, uses no attempt; everything to the endpoint slows down",
    ErrorClass.CREDENTIALS: "retried, uses no attempt; several in a row suspend the endpoint",
    ErrorClass.TRANSIENT: _TEMPORARY,
    ErrorClass.SERVER: _TEMPORARY,
    ErrorClass.UNREADABLE: "not known whether it was sent: retried, unless the mailing is AT_MOST_ONCE",
    ErrorClass.OPTED_OUT: "the message is SKIPPED, and the client opts out",
}
_FINAL = "the message is FAILED"


@dataclass(frozen=True, slots=True)
class AnswerCheck:
    """One kind of answer: a sample of it, the class it gets, and what follows."""

    answer: str
    error_class: str
    consequence: str


@dataclass(frozen=True, slots=True)
class EndpointCheck:
    """What an endpoint of the file would send, and how it would judge."""

    name: str
    request: str
    body: str
    headers: tuple[str, ...]
    requires: tuple[str, ...]
    messages_per_request: int
    answers: tuple[AnswerCheck, ...]


def check_file(path: Path) -> list[EndpointCheck]:
    """Return what the endpoints of a file do, in its order. Raise ConfigError for one that cannot be used."""
    entries = read_entries(path, RECEIPTS_URL)
    return [_check(entry.endpoint(name, RECEIPTS_URL, masked=True)) for name, entry in entries.items()]


def _check(endpoint: Endpoint) -> EndpointCheck:
    parts = urlsplit(endpoint.url)
    method, target, headers, body = _sample(endpoint)
    return EndpointCheck(
        endpoint.name,
        f"{method} {parts.scheme}://{parts.netloc}{target}",
        body,
        headers,
        endpoint.request.requires if endpoint.request else (),
        endpoint.messages_per_request,
        tuple(dict.fromkeys(_judged(endpoint, sample) for sample in _samples(endpoint))),
    )


def _sample(endpoint: Endpoint) -> tuple[str, str, tuple[str, ...], str]:
    """Return method, target, headers and body of the sample message's request."""
    if endpoint.request is None:
        target = parse_target(endpoint)
        headers = [*target.headers, ("Idempotency-Key", str(SAMPLE_ID))]
        body = encode_body(SAMPLE_ID, SAMPLE_PHONE, SAMPLE_TEXT)
        shown = tuple(f"{name}: {value}" for name, value in headers)
        return "POST", f"{target.path}{SAMPLE_ID}", shown, body.decode()
    requests = DescribedRequests(endpoint)
    path, lines, body = requests.parts(_Sample(SAMPLE_ID, SAMPLE_PHONE, SAMPLE_TEXT, _values(endpoint.request)))
    shown = tuple(f"{name}: {value.decode('utf-8', 'replace')}" for name, value in lines)
    return requests.method, path.decode(), shown, body.decode()


class _Sample(NamedTuple):
    message_id: int
    phone: str
    text: str
    values: Sequence[str]


def _values(form: RequestForm) -> tuple[str, ...]:
    attributes = {need.removeprefix("attributes."): f"<{need.removeprefix('attributes.')}>" for need in form.needs}
    return form.values_of(SAMPLE_TITLE, attributes)


# Answers.


def _judged(endpoint: Endpoint, sample: Answer) -> AnswerCheck:
    verdict = judge_of(endpoint)(sample)
    shown = f"{sample.status} {sample.body.decode()}".strip()
    if sample.retry_after is not None:
        shown += f" with Retry-After: {sample.retry_after}"
    return AnswerCheck(shown, "ACCEPTED" if verdict.delivered else verdict.error_class.name, _consequence(verdict))


def _consequence(verdict: Verdict) -> str:
    meaning = _MEANINGS.get(verdict.error_class, _FINAL)
    return f"{meaning}; the gateway's id is {verdict.provider_id}" if verdict.provider_id else meaning


def _samples(endpoint: Endpoint) -> Iterator[Answer]:
    """Yield an answer for each rule, then those that every endpoint judges alike."""
    rules = endpoint.answers
    if rules is None:
        yield from _by_rule(endpoint.success)
    else:
        usual = _any_status(rules.success, 200)
        yield _sample_of(rules.success, usual, rules)
        yield from (_sample_of(rule.match, usual, rules) for rule in rules.errors)
        if rules.success.at is not None:
            yield _answer(usual, "", {})
    yield Answer(429, b"", "5", ErrorClass.NONE, True, 0.1)
    yield from (_answer(status, "", {}) for status in (401, 404, 500, 302))


def _by_rule(rule: SuccessRule) -> Iterator[Answer]:
    status = min(rule.statuses)
    if not rule.needs_body:
        yield _answer(status, "", {})
        return
    accepted = min(rule.accepted, key=str)
    yield _answer(status, json.dumps({rule.code_field: accepted}), {})
    yield _answer(status, json.dumps({rule.code_field: "another"}), {})
    yield _answer(status, "", {})


def _sample_of(match: Match, usual: int, rules: AnswerRules) -> Answer:
    """Return an answer that the rule means, with the gateway's id where it stands."""
    document: object = None
    if match.at is not None:
        values = sorted((value for _, value in match.values or ()), key=str)
        document = _with(document, match.at, values[0] if values else "something")
    source = rules.provider_id if match is rules.success else None
    if source is not None and source.at is not None and source.at != match.at:
        document = _with(document, source.at, "ID")
    text = "" if document is None else document if isinstance(document, str) else json.dumps(document)
    return _answer(_any_status(match, usual), text, _headers(source))


def _any_status(match: Match, usual: int) -> int:
    return usual if match.statuses is None or usual in match.statuses else min(match.statuses)


def _headers(source: Source | None) -> dict[str, str]:
    return {source.header: "ID"} if source is not None and source.header else {}


def _with(document: object, at: Pointer, value: object) -> object:
    """Return the document with a value at a pointer."""
    if not at.tokens:
        return value
    token, rest = at.tokens[0], Pointer(at.tokens[1:])
    if token.isdecimal():
        inner = document[0] if isinstance(document, list) and document else None
        return [_with(inner, rest, value)] * (int(token) + 1)
    members = document if isinstance(document, dict) else {}
    return {**members, token: _with(members.get(token), rest, value)}


def _answer(status: int, body: str, headers: dict[str, str]) -> Answer:
    return Answer(status, body.encode(), None, ErrorClass.NONE, True, 0.1, headers)


def lines_of(checks: Sequence[EndpointCheck]) -> Iterator[str]:
    """Yield the lines that explain the endpoints to people."""
    for one in checks:
        yield f"{one.name}: {one.request}"
        yield from (f"    {header}" for header in one.headers)
        if one.body:
            yield f"    {one.body}"
        if one.requires:
            yield f"  A client without {' and '.join(one.requires)} is skipped: NO_ADDRESS."
        if one.messages_per_request > 1:
            yield f"  Up to {one.messages_per_request} messages a request; below, what is answered about one of them."
        yield "  Answers:"
        width = min(max(len(answer.answer) for answer in one.answers), 60)
        for answer in one.answers:
            yield f"    {answer.answer:{width}}  {answer.error_class.ljust(12)} {answer.consequence}".rstrip()
        yield ""
