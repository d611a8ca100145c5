"""Domain errors: the reasons why a call fails. They know neither gRPC nor SQL.

DomainError
├── InvalidFields       fields that are missing, malformed or out of range
├── InvalidFilter       the text of a filter that cannot be read
├── MalformedRequest    a request that is not a message of its type
├── MessageTooLarge     a message of a request with more bytes than the limit
├── InvalidPageToken    a page token of another query
├── NotFound            no such client, mailing, message, schedule or segment
├── ClientNumbersExhausted  as many clients were added as there can ever be
├── EndpointUnknown     no such endpoint is configured
├── CalendarUnknown     no such calendar of holidays is configured
├── WebhookUnknown      no such webhook is configured
├── SegmentUnknown      no segment has this name
├── SegmentNameTaken    another segment has the name
├── SegmentInUse        mailings or schedules name the segment
├── PhoneTaken          another client has the phone
├── RequestIdReused     the request_id was used before with another request
├── RequestUnanswered   nobody knows what became of the first call with this request_id
├── WrongState          the mailing is in a state that does not allow it
├── MailingEnded        the mailing's end has passed
├── ClientOptedOut      the client of a test message wants no messages
├── ScheduleOverlaps    an earlier mailing of the schedule is not over
├── StaleEtag           the resource was changed since it was read
├── Conflict            several tries lost a race for the same rows
├── DatabaseUnavailable the database cannot be reached
├── InvalidResumeToken  a resume token that is invalid or of another stream
├── ResumeTokenExpired  a resume token behind which changes are missing
├── ReaderTooSlow       the reader of a stream has read nothing for too long
├── LimitReached        the caller has the maximum of calls or streams open
├── RateExceeded        the caller exceeds the maximum rate of calls
├── CallTooLong         the call exceeded the maximum duration
├── ScanTooLong         reading many rows took too long
├── ImportTooLarge      an import with more rows or bytes than one may have
├── BodyTooSlow         the request did not arrive in time
├── TooManyWaiting      too many wait for the same scarce thing
├── ShuttingDown        this replica shuts down
├── Unauthenticated     the call has no valid credentials
├── ScopeMissing        the caller lacks the method's scope
├── ServiceUnknown      health was asked of a service that is not served
└── MethodClosed        no scope allows the method
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from dispatcher.model.states import MailingState

MAX_LISTED = 20
"""Maximum names in a sentence: an error has to fit into the trailing metadata of a call."""

MAX_NAME = 80
"""Longer names from callers are cut, for the same reason."""


class DomainError(Exception):
    """A call fails for a reason that its caller should know. `str()` of it is the sentence for the caller."""

    retry_after: float | None = None
    """Seconds after which the same call may succeed, where that is known."""

    @property
    def facts(self) -> dict[str, str]:
        """The details for programs, beside the sentence."""
        return {}


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One bad field: its path, such as `clients[17].timezone`, and a sentence."""

    path: str
    sentence: str


class InvalidFields(DomainError):
    """One or more fields of the request are missing, malformed or out of range.

    Of an import, `bad_rows` counts all rows that have some, and `violations` names the first ones.
    """

    def __init__(self, violations: Sequence[FieldViolation], bad_rows: int = 0) -> None:
        first, more = violations[0], (bad_rows or len(violations)) - 1
        rest = f" (and {more} more{' rows' if bad_rows else ''})" if more else ""
        super().__init__(f"{first.path}: {first.sentence}{rest}")
        self.violations = tuple(violations)
        self._bad_rows = bad_rows

    @property
    def facts(self) -> dict[str, str]:
        """How many rows of an import are bad."""
        return {"bad_rows": str(self._bad_rows)} if self._bad_rows else {}


class InvalidFilter(DomainError):
    """The text of a filter, of the field at `path`, cannot be read beyond `position`, counted from 0.

    The sentence has the line of the text with a caret under the place.
    """

    def __init__(self, path: str, text: str, position: int, sentence: str) -> None:
        self.violations = (FieldViolation(path, f"{sentence}, at character {position + 1}"),)
        super().__init__(f"{path}: {sentence}, at character {position + 1}:\n{_marked(text, position)}")
        self._position = position

    @property
    def facts(self) -> dict[str, str]:
        """Where reading ended."""
        return {"position": str(self._position)}


_SHOWN = 60
"""Characters of a text that are shown on each side of a place in it."""


def _marked(text: str, position: int) -> str:
    """Return the part of a text around a place, in one line, with a caret below the place."""
    first = max(0, position - _SHOWN)
    shown = "".join(" " if character.isspace() else character for character in text[first : position + _SHOWN])
    return f"  {shown}\n  {' ' * (position - first)}^"


class MalformedRequest(DomainError):
    """The request cannot be decoded."""

    def __init__(self) -> None:
        super().__init__("The request cannot be read: it is no message of the type that this method takes.")


class MessageTooLarge(DomainError):
    """A message of the request has `size` bytes, more than the `limit`."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"The message has {size:,} bytes, and at most {limit:,} are accepted; send fewer things in one message."
        )
        self.size = size
        self.limit = limit

    @property
    def facts(self) -> dict[str, str]:
        """The size and the limit, in bytes."""
        return {"size": str(self.size), "limit": str(self.limit)}


class InvalidPageToken(DomainError):
    """The page token was not made by this query."""

    def __init__(self) -> None:
        super().__init__("The page token does not belong to this query; start again without one.")


class Kind(Enum):
    """What a NotFound is about."""

    CLIENT = "client"
    MAILING = "mailing"
    MESSAGE = "message"
    SCHEDULE = "schedule"
    SEGMENT = "segment"


class NotFound(DomainError):
    """No such record exists. `key` is the id that was looked up."""

    def __init__(self, kind: Kind, key: int) -> None:
        super().__init__(f"There is no {kind.value} {key}.")
        self.kind = kind
        self.key = key

    @property
    def facts(self) -> dict[str, str]:
        """The id that was looked up."""
        return {self.kind.value: str(self.key)}


class EndpointUnknown(DomainError):
    """No endpoint of this name is configured; `known` are the configured ones."""

    def __init__(self, name: str, known: Collection[str]) -> None:
        self.name = name[:MAX_NAME]
        self.known = sorted(known)[:MAX_LISTED]
        more = f" and {len(known) - MAX_LISTED} more" if len(known) > MAX_LISTED else ""
        there_are = f"there are {', '.join(self.known)}{more}" if known else "none is configured"
        super().__init__(f"There is no endpoint {self.name!r}; {there_are}.")

    @property
    def facts(self) -> dict[str, str]:
        """The name that was looked up, and the configured ones."""
        return {"endpoint": self.name, "known": ",".join(self.known)}


class CalendarUnknown(DomainError):
    """No calendar of the name that the field at `path` has is configured; `known` are the configured ones."""

    def __init__(self, name: str, known: Sequence[str], path: str) -> None:
        self.name = name[:MAX_NAME]
        self.known = list(known)[:MAX_LISTED]
        self.path = path
        there_are = f"there are {', '.join(self.known)}" if known else "none is configured"
        super().__init__(f"There is no calendar {self.name!r}, as {path} has it; {there_are}.")

    @property
    def facts(self) -> dict[str, str]:
        """The name that was looked up, the field that has it, and the configured ones."""
        return {"calendar": self.name, "field": self.path, "known": ",".join(self.known)}


class PhoneUnknown(DomainError):
    """No client has this phone. The phone is not repeated: errors end up in logs."""

    def __init__(self) -> None:
        super().__init__("There is no client with this phone.")


class WebhookUnknown(DomainError):
    """No webhook of this name is configured; `known` are the configured ones."""

    def __init__(self, name: str, known: Collection[str]) -> None:
        self.name = name[:MAX_NAME]
        self.known = sorted(known)[:MAX_LISTED]
        there_are = f"there are {', '.join(self.known)}" if known else "none is configured"
        super().__init__(f"There is no webhook {self.name!r}; {there_are}.")

    @property
    def facts(self) -> dict[str, str]:
        """The name that was looked up, and the configured ones."""
        return {"webhook": self.name, "known": ",".join(self.known)}


class SegmentUnknown(DomainError):
    """No segment has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no segment {name[:MAX_NAME]!r}.")
        self._facts = {"segment": name[:MAX_NAME]}

    @property
    def facts(self) -> dict[str, str]:
        """The name that was looked up."""
        return self._facts


class SegmentNameTaken(DomainError):
    """Another segment has this name, perhaps in other letters."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is a segment {name[:MAX_NAME]!r} already; names differ by more than capital letters.")
        self._facts = {"segment": name[:MAX_NAME]}

    @property
    def facts(self) -> dict[str, str]:
        """The name."""
        return self._facts


class SegmentInUse(DomainError):
    """Mailings that are not over, or schedules, name the segment."""

    def __init__(self, name: str, mailings: Sequence[int], schedules: Sequence[int] = ()) -> None:
        named = [("mailing", mailings), ("schedule", schedules)]
        users = [f"{what} {_few(ids)}" for what, ids in named if ids]
        super().__init__(
            f"The segment {name[:MAX_NAME]!r} is named by {' and '.join(users)}: give them another filter first."
        )
        self._facts = {f"{what}s": ",".join(map(str, ids[:MAX_LISTED])) for what, ids in named if ids}

    @property
    def facts(self) -> dict[str, str]:
        """The ids of the first of them."""
        return self._facts


def _few(ids: Sequence[int]) -> str:
    more = f" and {len(ids) - MAX_LISTED} more" if len(ids) > MAX_LISTED else ""
    return ", ".join(map(str, ids[:MAX_LISTED])) + more


class PhoneTaken(DomainError):
    """Another client has this phone, which is not repeated: errors end up in logs.

    `client_id` is that client's id, None where the caller may not know it.
    """

    def __init__(self, client_id: int | None = None) -> None:
        super().__init__(
            "Another client has this phone." if client_id is None else f"Client {client_id} has this phone."
        )
        self.client_id = client_id

    @property
    def facts(self) -> dict[str, str]:
        """The id of the other client."""
        return {} if self.client_id is None else {"client": str(self.client_id)}


class ClientNumbersExhausted(DomainError):
    """As many clients were added as an installation can ever have."""

    def __init__(self) -> None:
        super().__init__(
            "This installation has given all of its client numbers, so no client can be added; known ones can be "
            "changed. Start another installation for more."
        )


class RequestIdReused(DomainError):
    """The request_id was used before with another request."""

    def __init__(self) -> None:
        super().__init__("This request_id was used before with another request; choose a new UUID.")


class RequestUnanswered(DomainError):
    """The first call with this request_id was cut off, or takes too long: it may have acted or not."""

    def __init__(self) -> None:
        super().__init__(
            "The first call with this request_id has not ended, and nobody knows what it did; choose a new UUID to "
            "make it again."
        )


class WrongState(DomainError):
    """The mailing's state does not allow the call.

    `what` completes "… cannot be …", `besides` "it would have to be SCHEDULED …".
    """

    def __init__(self, what: str, found: MailingState, needed: Iterable[MailingState], besides: str = "") -> None:
        self.found = found
        self.needed = tuple(sorted(needed))
        wanted = f"{self._needed()} {besides}".rstrip()
        super().__init__(f"A mailing that is {found.name} cannot be {what}; it would have to be {wanted}.")

    def _needed(self) -> str:
        return " or ".join(state.name for state in self.needed)

    @property
    def facts(self) -> dict[str, str]:
        """The state found and the states needed."""
        return {"found": self.found.name, "needed": ",".join(state.name for state in self.needed)}


class MailingEnded(DomainError):
    """The mailing's end has passed: no more messages can be sent."""

    def __init__(self) -> None:
        super().__init__("The end of the mailing has passed; move its end_time first.")


class MessagesRemoved(DomainError):
    """The messages of the mailing were kept for the time that is set, and removed."""

    def __init__(self) -> None:
        super().__init__(
            "The messages of the mailing were removed after the time for which messages are kept, so none can be sent "
            "again; create another mailing."
        )


class ClientOptedOut(DomainError):
    """The client of a test message has opted out."""

    def __init__(self) -> None:
        super().__init__("The client with this phone has opted out; with the scope clients.write, force sends to them.")


class ScheduleOverlaps(DomainError):
    """The mailing `mailing_id` that the schedule made before is not over, and the schedule allows no overlap."""

    def __init__(self, mailing_id: int) -> None:
        super().__init__(
            f"Mailing {mailing_id}, which the schedule made before, is not over; wait, cancel it, or allow the overlap."
        )
        self.mailing_id = mailing_id

    @property
    def facts(self) -> dict[str, str]:
        """The id of the mailing."""
        return {"mailing": str(self.mailing_id)}


class StaleEtag(DomainError):
    """The resource was changed since the etag was read."""

    def __init__(self) -> None:
        super().__init__("The etag is stale: it was changed in between. Read it again and repeat the change.")


class Conflict(DomainError):
    """The transaction lost several races for the same rows."""

    def __init__(self) -> None:
        super().__init__("Others are changing the same rows at this moment; repeat the call.")


class DatabaseUnavailable(DomainError):
    """The database cannot be reached, or did not answer in time."""

    def __init__(self) -> None:
        super().__init__("The database cannot be reached at the moment; try again.")


class InvalidResumeToken(DomainError):
    """The resume token is invalid or belongs to another stream."""

    def __init__(self) -> None:
        super().__init__("The resume token does not belong to this stream; start again without one.")


class ResumeTokenExpired(DomainError):
    """Changes behind the resume token are missing. `why` completes "The resume token …"."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"The resume token {why}: something behind it cannot be given any more. "
            "Watch on without a token; ListMessages has the present state of messages."
        )


class Resumable:
    """The end of a stream that can be resumed. `resume_token` is empty where there is none."""

    resume_token = ""

    @property
    def facts(self) -> dict[str, str]:
        """Where to resume."""
        return {"resume_token": self.resume_token} if self.resume_token else {}


class ReaderTooSlow(Resumable, DomainError):
    """The reader of a stream has read nothing for too long."""

    def __init__(self, resume_token: str = "") -> None:
        super().__init__("The stream was not read for too long; resume it where you are.")
        self.resume_token = resume_token


class LimitReached(DomainError):
    """The caller has the maximum of something (`what`, a plural) open."""

    retry_after = 1.0

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"You have {limit} {what} open, which is the limit; end one before you begin another.")
        self.limit = limit

    @property
    def facts(self) -> dict[str, str]:
        """The limit."""
        return {"limit": str(self.limit)}


class RateExceeded(DomainError):
    """The caller exceeds `limit` calls a second; the next call succeeds in `wait` seconds."""

    def __init__(self, limit: float, wait: float) -> None:
        super().__init__(f"You make more than {limit:g} calls a second, which is the limit; wait for {wait:.3f} s.")
        self.limit = limit
        self.retry_after = wait

    @property
    def facts(self) -> dict[str, str]:
        """The limit."""
        return {"limit": f"{self.limit:g}"}


class CallTooLong(DomainError):
    """The call exceeded the maximum duration of `limit` seconds and was given up."""

    def __init__(self, limit: float) -> None:
        super().__init__(f"The call was given up after {limit:g} s, the longest that a call may take here.")
        self.limit = limit

    @property
    def facts(self) -> dict[str, str]:
        """The limit, in seconds."""
        return {"limit": f"{self.limit:g}"}


class ScanTooLong(DomainError):
    """Reading many rows took longer than a statement may take."""

    def __init__(self) -> None:
        super().__init__("Reading that many records took too long; narrow the filter, or ask for smaller pages.")


class ImportTooLarge(DomainError):
    """The import has more than `rows` rows, or more than `size` bytes of them."""

    def __init__(self, rows: int, size: int) -> None:
        super().__init__(f"One import takes at most {rows:,} clients, and {size:,} bytes of them; split it.")
        self._facts = {"rows": str(rows), "bytes": str(size)}

    @property
    def facts(self) -> dict[str, str]:
        """How much an import may have."""
        return self._facts


class BodyTooSlow(DomainError):
    """The request did not arrive in time, or while others waited to send theirs."""

    def __init__(self) -> None:
        super().__init__("The request did not arrive in time; send it again, without pauses.")


class TooManyWaiting(DomainError):
    """Too many wait for something scarce (`what`, a plural), of which there are `limit`, or one waited too long."""

    retry_after = 1.0

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"Too many calls wait for {what}, of which there are {limit}; try again later.")
        self._facts = {"what": what, "limit": str(limit)}

    @property
    def facts(self) -> dict[str, str]:
        """What is scarce, and how much of it there is."""
        return self._facts


class ShuttingDown(Resumable, DomainError):
    """The replica that serves the stream is shutting down."""

    def __init__(self, resume_token: str = "") -> None:
        super().__init__("This replica is shutting down; go on with another.")
        self.resume_token = resume_token


class ConnectionAged(DomainError):
    """The stream has lasted for `limit` seconds, as long as its connection may live."""

    def __init__(self, limit: float) -> None:
        super().__init__(
            f"The stream ends after {limit:g} s, as old connections do, so that callers spread over all replicas; "
            "resume it where you are."
        )
        self.limit = limit

    @property
    def facts(self) -> dict[str, str]:
        """The limit, in seconds."""
        return {"limit": f"{self.limit:g}"}


class Unauthenticated(Resumable, DomainError):
    """The call has no valid credentials, or a stream has none any more. Only the log has the reason."""

    def __init__(self) -> None:
        super().__init__("No valid credentials came with the call.")


class ScopeMissing(Resumable, DomainError):
    """The caller is authenticated and lacks the method's scope, or lost it while a stream was open."""

    def __init__(self, scope: str) -> None:
        super().__init__(f"This call needs the scope {scope}, which the caller does not have.")
        self.scope = scope

    @property
    def facts(self) -> dict[str, str]:
        """The scope, and where to resume a stream that ended so."""
        return {"scope": self.scope, **super().facts}


class MethodClosed(DomainError):
    """No scope allows this method."""

    def __init__(self) -> None:
        super().__init__("This method is open to nobody.")


class ServiceUnknown(DomainError):
    """Health was asked of a service that is not served. The name is not repeated."""

    def __init__(self) -> None:
        super().__init__("No service of this name is served.")
