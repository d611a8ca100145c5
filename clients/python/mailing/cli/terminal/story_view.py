"""The story of one client as lines in the order of time, within 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp
from rich.text import Text

from mailing.builders import window_times
from mailing.cli.terminal.tables import cell, moment, pairs
from mailing.cli.terminal.words import attempt_words, counted, outcome, plain, words_of
from mailing.v1.client_pb2 import Client
from mailing.v1.client_service_pb2 import GetClientStoryResponse
from mailing.v1.log_pb2 import LogEntry
from mailing.v1.message_pb2 import Attempt, Message

_RECEIPTS = {
    Message.RECEIPT_SENT: "passed on by the gateway",
    Message.RECEIPT_RECEIVED: "received on the phone",
    Message.RECEIPT_UNDELIVERED: "not received on the phone",
    Message.RECEIPT_READ: "read",
}


class Line(NamedTuple):
    """One thing that happened."""

    time: Timestamp
    text: str
    below: bool = False
    """Whether it is a part of the message above it, such as an attempt."""


def client_line(client: Client) -> Text:
    """Return who the client is."""
    window = f"window {'-'.join(window_times(client.receive_window))}" if client.HasField("receive_window") else ""
    tag = f"tag {client.tag}" if client.tag else ""
    out = "OPTED OUT" if client.opted_out else ""
    facts = (f"Client {client.id}", client.phone, client.timezone, tag, window, pairs(client.attributes), out)
    return cell("  ".join(filter(None, facts)))


def story_lines(pages: Iterable[GetClientStoryResponse]) -> Iterator[Line]:
    """Return messages and events in the order of their times, the attempts below their message."""
    groups: list[list[Line]] = []
    for page in pages:
        groups += [[_event(one)] for one in page.events]
        groups += [list(_part(one)) for one in page.parts]
    for group in sorted(groups, key=lambda group: (group[0].time.seconds, group[0].time.nanos)):
        yield from group


def drawn(line: Line) -> Text:
    """Return a line for a screen."""
    if line.below:
        return Text.assemble("    ", (moment(line.time)[11:19], "dim"), "  ", cell(line.text))
    return Text.assemble((moment(line.time)[:16], "dim"), "  ", cell(line.text))


def _event(entry: LogEntry) -> Line:
    how = entry.details.get("source", "").replace("_", " ")
    who = ", ".join(filter(None, (f"by {entry.principal}" if entry.principal else "by the service", how)))
    return Line(entry.time, f"{entry.text.rstrip('.')} ({who})")


def _part(part: GetClientStoryResponse.Part) -> Iterator[Line]:
    message = part.message
    title = f" {part.mailing_title!r}" if part.mailing_title else ""
    pending = message.status == Message.STATUS_PENDING
    yield Line(
        message.due_time if pending else message.settle_time,
        f"mailing {message.mailing_id}{title}: {outcome(message)}{_effort(part)}",
    )
    for attempt in part.attempts:
        yield Line(attempt.time, f"attempt {attempt.number}: {attempt_words(attempt)}{_said(attempt)}", below=True)
    if message.receipt:
        code = f" (code {message.receipt_code})" if message.receipt_code else ""
        words = _RECEIPTS.get(message.receipt, plain(Message.Receipt.Name(message.receipt)))
        yield Line(message.receipt_time, f"receipt: {words}{code}", below=True)


def _effort(part: GetClientStoryResponse.Part) -> str:
    count = part.message.attempts
    if not count:
        return ""
    return f", {counted(count, 'attempt')} at {part.endpoint}"


def _said(attempt: Attempt) -> str:
    text = words_of(attempt.response_excerpt)
    return f": {text}" if text else ""
