"""The words for what became of messages, the same in every list, story, report and log.

An answer that is no acceptance is called refused, whether its HTTP status or its code says so: both of an
attempt and of its message.
"""

from __future__ import annotations

import json
from typing import Any

from mailing.cli.terminal.tables import enum_name
from mailing.v1.message_pb2 import Attempt, Message

_REASONS = {
    "REFUSED": "refused by the gateway",
    "ATTEMPTS_EXHAUSTED": "all attempts failed",
    "RETRYING": "to be tried again",
    "MAILING_ENDED": "mailing ended first",
    "WINDOW_NOT_BEFORE_END": "window opens after the end",
    "HOURS_NOT_BEFORE_END": "no sending hours till the end",
    "CLIENT_DELETED": "client deleted",
    "MAILING_CANCELLED": "mailing cancelled",
    "OPTED_OUT": "client opted out",
    "NO_LONGER_MATCHES": "no longer matches",
    "FREQUENCY_CAP": "message limit reached",
    "OUTCOME_UNKNOWN": "no answer, maybe delivered",
    "LEASE_LOST": "dispatcher died meanwhile",
    "MAYBE_SENT": "maybe sent before the end",
    "NO_ADDRESS": "client has no address",
    "EMPTY_TEXT": "text is empty",
    "TOO_LONG": "text is too long",
    "TOO_LATE": "could not leave in time",
    "DAILY_LIMIT": "daily limit reached",
}
_SENTENCES = ("message", "error_message", "detail", "description", "title", "error", "errors", "reason", "status")
"""Where gateways put a sentence, the most telling first."""

_CLASSES = {
    "CONNECT": "no connection",
    "RESOLVE": "host name not found",
    "TLS": "TLS failed",
    "TIMEOUT": "no answer in time",
    "DISCONNECT": "connection lost",
    "PROTOCOL": "answer is not HTTP",
    "TOO_LARGE": "answer too large",
    "THROTTLED": "asked to slow down",
    "SERVER": "gateway error",
    "REDIRECT": "redirect, not followed",
    "REFUSED": "refused",
    "REJECTED": "refused",
    "UNREADABLE": "answer not readable",
    "CREDENTIALS": "credentials not accepted",
    "OPTED_OUT": "client opted out",
    "TRANSIENT": "not now",
    "LOCAL": "this machine could not send",
}


def counted(count: int, noun: str) -> str:
    """Return how many there are, such as `1 message` or `1,234 messages`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def plain(name: str) -> str:
    """Return the name of an enum value in plain letters."""
    return name.lower().replace("_", " ")


def reason_words(name: str) -> str:
    """Return a reason, such as ATTEMPTS_EXHAUSTED, in words; '' for none."""
    return _REASONS.get(name, plain(name))


def error_words(name: str) -> str:
    """Return an error class, such as TIMEOUT, in words; '' for none."""
    return _CLASSES.get(name, plain(name))


def outcome(message: Message) -> str:
    """Return the status of a message and why, such as `failed: refused by the gateway`."""
    status, reason = plain(enum_name(message, "status")), reason_words(enum_name(message, "reason"))
    return f"{status}: {reason}" if reason else status


def words_of(answer: str) -> str:
    """Return the gateway's own sentence in an answer: the message of a JSON document, else the text; '' for none."""
    try:
        document = json.loads(answer)
    except ValueError:
        return " ".join(answer.split())
    found = _sentence(document)
    return " ".join((found or answer).split())


def _sentence(document: Any) -> str:
    """Return the first text under one of the usual names, in a document or in what it has under `error`."""
    if isinstance(document, list) and document:
        return _sentence(document[0])
    if not isinstance(document, dict):
        return document if isinstance(document, str) else ""
    for name in _SENTENCES:
        if isinstance(text := document.get(name), str) and text:
            return text
        if isinstance(text, dict | list) and (below := _sentence(text)):
            return below
    return ""


def attempt_words(attempt: Attempt) -> str:
    """Return how an attempt ended, such as `refused (HTTP 400, code 7)`."""
    name = enum_name(attempt, "error_class")
    words = error_words(name) or "accepted"
    facts = [f"HTTP {attempt.endpoint_status}"] if attempt.endpoint_status else []
    facts += [f"code {attempt.endpoint_code}"] if attempt.HasField("endpoint_code") else []
    return f"{words} ({', '.join(facts)})" if facts else words
