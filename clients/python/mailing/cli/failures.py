"""How a command fails: with an exit status and one sentence.

The statuses are part of the interface; `mailing --help` shows them.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import grpc

from mailing.errors import MailingError

_SHOWN_FIELDS = 3


class ExitStatus(IntEnum):
    """The documented exit statuses."""

    OK = 0
    FAILED = 1
    BAD_INPUT = 2
    UNREACHABLE = 3
    UNDELIVERED = 4
    INTERRUPTED = 130


STATUS_HELP = {
    ExitStatus.OK: "done",
    ExitStatus.FAILED: "the service refused the call, or something failed",
    ExitStatus.BAD_INPUT: "wrong usage or bad input: an option, a field, a row of a file",
    ExitStatus.UNREACHABLE: "the service cannot be reached or cannot work right now; try again later",
    ExitStatus.UNDELIVERED: "watch: the mailing ended and not every message was delivered; "
    "test, endpoints --probe: the endpoint did not accept the message",
    ExitStatus.INTERRUPTED: "interrupted with Ctrl-C",
}


class CommandError(Exception):
    """Ends the command with this sentence and status; `picture` are lines below the sentence that show a place."""

    def __init__(self, sentence: str, status: ExitStatus = ExitStatus.FAILED, picture: Sequence[str] = ()) -> None:
        super().__init__(sentence)
        self.status = status
        self.picture = picture


def printable(text: str) -> str:
    """Return text so that it controls no terminal: other characters are escaped, bidirectional marks too."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class ReaderGoneError(Exception):
    """The reader of standard output has closed it, which is no failure."""


def from_call(error: MailingError, address: str) -> CommandError:
    """Return the error that a failed call ends a command with."""
    if error.code is grpc.StatusCode.UNAVAILABLE and "handshake failed" in error.message:
        return CommandError(
            f"TLS with {address} failed: MAILING_CA_FILE names the authority to trust, and MAILING_CERT_FILE and "
            "MAILING_KEY_FILE the certificate to show",
            ExitStatus.UNREACHABLE,
        )
    if error.code is grpc.StatusCode.UNAVAILABLE and not error.reason:
        return CommandError(
            f"no service answers at {address}; start one with `mailing serve` or name another with --address",
            ExitStatus.UNREACHABLE,
        )
    if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return CommandError(f"the service at {address} did not answer in time", ExitStatus.UNREACHABLE)
    if error.reason == "INVALID_FILTER":
        sentence, *picture = error.message.split("\n")
        return CommandError(sentence.removesuffix(":"), ExitStatus.BAD_INPUT, picture)
    return CommandError(_sentence(error), _status(error.code))


def _status(code: grpc.StatusCode) -> ExitStatus:
    match code:
        case grpc.StatusCode.INVALID_ARGUMENT:
            return ExitStatus.BAD_INPUT
        case grpc.StatusCode.UNAVAILABLE:
            return ExitStatus.UNREACHABLE
        case _:
            return ExitStatus.FAILED


def _sentence(error: MailingError) -> str:
    if error.fields:
        return first_few([f"{field}: {description}" for field, description in error.fields])
    if error.code is grpc.StatusCode.UNAUTHENTICATED:
        return f"{error.message} Set MAILING_TOKEN to a token that this service knows."
    return error.message or f"the call failed with {error.code.name}"


def first_few(sentences: list[str]) -> str:
    """Join the first sentences to one and count the others."""
    more = len(sentences) - _SHOWN_FIELDS
    return "; ".join(sentences[:_SHOWN_FIELDS]) + (f"; and {more} more" if more > 0 else "")
