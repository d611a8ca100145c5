"""The words for the API's states, statuses and reasons, marked for translation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mailing.v1.client_pb2 import ClientFilter, OptOut
from mailing.v1.dispatch_pb2 import EndpointStatus, Suspension
from mailing.v1.log_pb2 import LogEntry
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.message_pb2 import Attempt, Message
from mailing.v1.schedule_pb2 import Schedule


def N_(text: str) -> str:
    """Mark a text for translation and return it as it is."""
    return text


STATES = {
    Mailing.STATE_SCHEDULED: N_("Scheduled"),
    Mailing.STATE_RUNNING: N_("Running"),
    Mailing.STATE_PAUSED: N_("Paused"),
    Mailing.STATE_COMPLETED: N_("Completed"),
    Mailing.STATE_CANCELLED: N_("Cancelled"),
}
STATUSES = {
    Message.STATUS_DELIVERED: N_("Delivered"),
    Message.STATUS_PENDING: N_("Pending"),
    Message.STATUS_FAILED: N_("Failed"),
    Message.STATUS_UNKNOWN: N_("Unknown"),
    Message.STATUS_EXPIRED: N_("Expired"),
    Message.STATUS_SKIPPED: N_("Skipped"),
    Message.STATUS_CANCELLED: N_("Cancelled"),
}
"""In the order in which pages show them."""

REASONS = {
    Message.REASON_REFUSED: N_("Refused by the gateway"),
    Message.REASON_ATTEMPTS_EXHAUSTED: N_("All attempts failed"),
    Message.REASON_RETRYING: N_("To be tried again"),
    Message.REASON_MAILING_ENDED: N_("Mailing ended first"),
    Message.REASON_WINDOW_NOT_BEFORE_END: N_("Window opens after the end"),
    Message.REASON_CLIENT_DELETED: N_("Client deleted"),
    Message.REASON_MAILING_CANCELLED: N_("Mailing cancelled"),
    Message.REASON_OPTED_OUT: N_("Client opted out"),
    Message.REASON_NO_LONGER_MATCHES: N_("No longer matches"),
    Message.REASON_FREQUENCY_CAP: N_("Message limit reached"),
    Message.REASON_OUTCOME_UNKNOWN: N_("No answer, maybe delivered"),
    Message.REASON_LEASE_LOST: N_("Dispatcher died meanwhile"),
    Message.REASON_NO_ADDRESS: N_("Client has no address"),
    Message.REASON_EMPTY_TEXT: N_("Text is empty"),
    Message.REASON_TOO_LONG: N_("Text is too long"),
    Message.REASON_TOO_LATE: N_("Could not leave in time"),
    Message.REASON_MAYBE_SENT: N_("Maybe sent before the end"),
    Message.REASON_HOURS_NOT_BEFORE_END: N_("No sending hours till the end"),
    Message.REASON_DAILY_LIMIT: N_("Daily limit reached"),
}
LISTS = ("tags", "timezones", "operator_codes", "attributes", "client_ids", "segment")
"""The fields of a filter that forms and pages have a place for; what has others is written as text."""

OVERLAPS = {
    Schedule.OVERLAP_SKIP: N_("skipped"),
    Schedule.OVERLAP_WAIT: N_("made when it is over"),
    Schedule.OVERLAP_ALLOW: N_("made beside it"),
}
"""What becomes of an occurrence of a schedule while an earlier mailing is not over."""

ERROR_CLASSES = {
    Attempt.ERROR_CLASS_CONNECT: N_("no connection"),
    Attempt.ERROR_CLASS_RESOLVE: N_("host name not found"),
    Attempt.ERROR_CLASS_TLS: N_("TLS failed"),
    Attempt.ERROR_CLASS_TIMEOUT: N_("no answer in time"),
    Attempt.ERROR_CLASS_DISCONNECT: N_("connection lost"),
    Attempt.ERROR_CLASS_PROTOCOL: N_("answer is not HTTP"),
    Attempt.ERROR_CLASS_TOO_LARGE: N_("answer too large"),
    Attempt.ERROR_CLASS_THROTTLED: N_("asked to slow down"),
    Attempt.ERROR_CLASS_SERVER: N_("gateway error"),
    Attempt.ERROR_CLASS_REDIRECT: N_("redirect, not followed"),
    Attempt.ERROR_CLASS_REFUSED: N_("refused"),
    Attempt.ERROR_CLASS_REJECTED: N_("refused"),
    Attempt.ERROR_CLASS_UNREADABLE: N_("answer not readable"),
    Attempt.ERROR_CLASS_CREDENTIALS: N_("credentials not accepted"),
    Attempt.ERROR_CLASS_OPTED_OUT: N_("client opted out"),
    Attempt.ERROR_CLASS_TRANSIENT: N_("not now"),
    Attempt.ERROR_CLASS_LOCAL: N_("this machine could not send"),
}
RECEIPTS = {
    Message.RECEIPT_SENT: N_("Sent on"),
    Message.RECEIPT_RECEIVED: N_("Received"),
    Message.RECEIPT_UNDELIVERED: N_("Not received"),
    Message.RECEIPT_READ: N_("Read"),
}
BREAKERS = {
    EndpointStatus.BREAKER_CLOSED: N_("Well"),
    EndpointStatus.BREAKER_OPEN: N_("Failing: sending is stopped"),
    EndpointStatus.BREAKER_HALF_OPEN: N_("Probing"),
}
SUSPENSIONS = {
    Suspension.REASON_CREDENTIALS: N_("Suspended: credentials refused"),
    Suspension.REASON_NOT_FOUND: N_("Suspended: address not found"),
    Suspension.REASON_REFUSES_ALL: N_("Suspended: refuses everything"),
    Suspension.REASON_THROTTLED: N_("Slowed down by the gateway"),
}
LEVELS = {
    LogEntry.LEVEL_DEBUG: N_("Debug"),
    LogEntry.LEVEL_INFO: N_("Info"),
    LogEntry.LEVEL_WARNING: N_("Warning"),
    LogEntry.LEVEL_ERROR: N_("Error"),
}
SOURCES = {
    OptOut.SOURCE_API: N_("by the API"),
    OptOut.SOURCE_IMPORT: N_("by an import"),
    OptOut.SOURCE_INBOUND: N_("by a reply"),
    OptOut.SOURCE_ENDPOINT: N_("by the gateway"),
}


class Words:
    """The same in one language; what is not known yet is shown as its number."""

    def __init__(self, translate: Callable[[str], str]) -> None:
        self._translate = translate

    def state(self, value: int) -> str:
        """Return the name of a mailing's state."""
        return self._word(STATES, value)

    def kind(self, value: int) -> str:
        """Return the class of a message's status in the style sheet."""
        return kind_of(value)

    def state_kind(self, value: int) -> str:
        """Return the class of a mailing's state in the style sheet."""
        return state_kind(value)

    def status(self, value: int) -> str:
        """Return the name of a message's status."""
        return self._word(STATUSES, value)

    def reason(self, value: int) -> str:
        """Return why a message has its status; '' without a reason."""
        return self._word(REASONS, value)

    def overlap(self, value: int) -> str:
        """Return what becomes of an occurrence while an earlier mailing is not over."""
        return self._word(OVERLAPS, value)

    def has_conditions(self, chosen: ClientFilter) -> bool:
        """Return whether a filter has more than lists of values."""
        return has_conditions(chosen)

    def error_class(self, value: int) -> str:
        """Return how an attempt failed; '' for one that did not."""
        return self._word(ERROR_CLASSES, value)

    def receipt(self, value: int) -> str:
        """Return what a receipt says; '' without one."""
        return self._word(RECEIPTS, value)

    def breaker(self, value: int) -> str:
        """Return how an endpoint's breaker stands."""
        return self._word(BREAKERS, value)

    def suspension(self, value: int) -> str:
        """Return why an endpoint is suspended; '' if it is not."""
        return self._word(SUSPENSIONS, value)

    def level(self, value: int) -> str:
        """Return the level of a log entry."""
        return self._word(LEVELS, value)

    def source(self, value: int) -> str:
        """Return who opted a client out."""
        return self._word(SOURCES, value)

    def _word(self, known: Mapping[Any, str], value: int) -> str:
        return self._translate(known[value]) if value in known else str(value or "")


def kind_of(status: int) -> str:
    """Return the class of a message's status in the style sheet, such as `delivered`."""
    return Message.Status.Name(Message.Status.ValueType(status)).removeprefix("STATUS_").lower()


def state_kind(state: int) -> str:
    """Return the class of a mailing's state in the style sheet, such as `running`."""
    return Mailing.State.Name(Mailing.State.ValueType(state)).removeprefix("STATE_").lower()


def has_conditions(chosen: ClientFilter) -> bool:
    """Return whether a filter has more than the lists of values that forms and pages have a place for."""
    return any(field.name not in LISTS for field, _ in chosen.ListFields())
