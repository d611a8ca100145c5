"""Reasons and error classes in words, as the glossary has them: what logs and screens say instead of the names.

The command line and the console have the same words for the same names; a test compares all of them.
"""

from __future__ import annotations

from collections.abc import Mapping

REASON_WORDS: Mapping[str, str] = {
    "REFUSED": "refused by the gateway",
    "ATTEMPTS_EXHAUSTED": "all attempts failed",
    "RETRYING": "to be tried again",
    "MAILING_ENDED": "mailing ended first",
    "WINDOW_NOT_BEFORE_END": "window opens after the end",
    "HOURS_NOT_BEFORE_END": "no sending hours till the end",
    "TOO_LATE": "could not leave in time",
    "DAILY_LIMIT": "daily limit reached",
    "CLIENT_DELETED": "client deleted",
    "MAILING_CANCELLED": "mailing cancelled",
    "OPTED_OUT": "client opted out",
    "NO_LONGER_MATCHES": "no longer matches",
    "FREQUENCY_CAP": "message limit reached",
    "NO_ADDRESS": "client has no address",
    "EMPTY_TEXT": "text is empty",
    "TOO_LONG": "text is too long",
    "OUTCOME_UNKNOWN": "no answer, maybe delivered",
    "LEASE_LOST": "dispatcher died meanwhile",
    "MAYBE_SENT": "maybe sent before the end",
}
ERROR_WORDS: Mapping[str, str] = {
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


def error_words(error_class: str, status: int | None, code: int | None) -> str:
    """Return how an attempt failed, such as "gateway error (HTTP 503)"; `code` is the gateway's own."""
    facts = [f"HTTP {status}"] if status else []
    facts += [f"code {code}"] if code else []
    return ERROR_WORDS[error_class] + (f" ({', '.join(facts)})" if facts else "")
