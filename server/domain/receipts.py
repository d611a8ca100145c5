"""Receipts: what a gateway reports about a message after it accepted it, and how its reports are read.

Pure. Reports may come in any order, more than once and before the message is settled: of two, the one with the
greater number holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import NamedTuple

from dispatcher.model.answers import MISSING, Source
from server.domain.signatures import Verifier

MAX_CODE = 64
"""The most characters of a gateway's code that are kept."""

MAX_IDENTITY = 200
"""The most characters of an id in a report; no message has a longer one."""

MAX_REPORTS = 5000
"""The most reports of one request."""


class Receipt(IntEnum):
    """What the gateway reported last. The numbers are those of the contract and of the database."""

    NONE = 0
    SENT = 1
    RECEIVED = 2
    UNDELIVERED = 3
    READ = 4


class Report(NamedTuple):
    """A report about one message of an endpoint, by our id or the gateway's; perhaps that the client opted out."""

    endpoint: str
    identity: str
    receipt: Receipt
    code: str
    opted_out: bool = False


class MessageReceipt(NamedTuple):
    """What is known of a message from its gateway; `provider_id` is the gateway's own id, '' for none."""

    receipt: Receipt = Receipt.NONE
    at: datetime | None = None
    code: str = ""
    provider_id: str = ""


NO_RECEIPT = MessageReceipt()


class ReceiptCount(NamedTuple):
    """How many messages have this receipt and code."""

    receipt: Receipt
    code: str
    messages: int


@dataclass(frozen=True, slots=True)
class ReceiptRules:
    """How an endpoint's reports are read.

    `parse` is form, json or query; `items` leads to the reports in a body with several. `id`, `status` and `code`
    say where these stand in a report; without `id` it is the parameter `message` of the URL. `statuses` has the
    receipt of each status that is known; others are passed over. A report with one of the codes in `opted_out`
    says that the client does not want messages.
    """

    parse: str
    statuses: Mapping[str, Receipt]
    status: Source
    id: Source | None = None
    code: Source | None = None
    items: Items | None = None
    opted_out: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class Items:
    """A pointer whose tokens may be `*`, which stands for every element of an array."""

    tokens: tuple[str, ...]

    def find(self, document: object) -> Iterator[object]:
        """Yield what it leads to; an array at its end gives its elements."""
        yield from _found(document, self.tokens)


def _found(document: object, tokens: Sequence[str]) -> Iterator[object]:
    if not tokens:
        yield from document if isinstance(document, list) else [document]
    elif isinstance(document, list):
        chosen = document
        if tokens[0] != "*":
            chosen = [document[int(tokens[0])]] if tokens[0].isdecimal() and int(tokens[0]) < len(document) else []
        for one in chosen:
            yield from _found(one, tokens[1:])
    elif isinstance(document, dict) and tokens[0] in document:
        yield from _found(document[tokens[0]], tokens[1:])


class ReceiptSource(NamedTuple):
    """Where an endpoint's reports come from: how they are read, and what shows that they are the gateway's.

    `needs_url` says that the listener's public address is part of what is signed.
    """

    rules: ReceiptRules
    verify: Verifier
    needs_url: bool = False


class Incoming(NamedTuple):
    """A request as its rules see it: its body as parsed, its headers and the parameters of its URL."""

    document: object
    headers: Mapping[str, str]
    parameters: Mapping[str, str]


def reports_of(endpoint: str, rules: ReceiptRules, incoming: Incoming) -> list[Report]:
    """Return the reports of a request; what has no id or no known status is passed over."""
    found = []
    items = [incoming.document] if rules.items is None else rules.items.find(incoming.document)
    for item, _ in zip(items, range(MAX_REPORTS), strict=False):
        identity = incoming.parameters.get("message", "") if rules.id is None else text_at(rules.id, item, incoming)
        receipt = rules.statuses.get(text_at(rules.status, item, incoming))
        if identity and len(identity) <= MAX_IDENTITY and receipt is not None:
            code = "" if rules.code is None else text_at(rules.code, item, incoming)[:MAX_CODE]
            found.append(Report(endpoint, identity, receipt, code, code in rules.opted_out))
    return found


def text_at(source: Source, item: object, incoming: Incoming) -> str:
    """Return a text, number or truth value as text, '' for anything else."""
    if source.at is None:
        return incoming.headers.get(source.header, "")
    found = source.at.find(item)
    if found is MISSING or found is None or isinstance(found, dict | list):
        return ""
    if isinstance(found, bool):
        return "true" if found else "false"
    text = str(found)
    return text if text.isprintable() else ""


def strongest(reports: Sequence[Report]) -> list[Report]:
    """Return one report per endpoint and id: the one that holds."""
    best: dict[tuple[str, str], Report] = {}
    for report in reports:
        key = report.endpoint, report.identity
        if key not in best or report.receipt > best[key].receipt:
            best[key] = report
    return list(best.values())
