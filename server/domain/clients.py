"""Clients: who receives, when they may, and in which time zones."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, time, timedelta
from enum import IntEnum
from unicodedata import normalize
from zoneinfo import available_timezones

from server.domain.errors import StaleEtag
from server.domain.masks import fields_of_parts, merged
from server.domain.validation import Violations, check_attributes, check_text

CLIENT_FIELDS = ("phone", "operator_code", "tag", "timezone", "receive_window", "attributes", "opted_out")
"""The fields of a client that callers may set, in the order of the contract."""

ClientKey = int | str
"""Names a client: by id, or by phone."""

MAX_TAG = 100
LONGEST_WINDOW = timedelta(hours=24)

NOT_IANA = frozenset({"Factory", "localtime", "posixrules"})
"""Names found in zone databases that are no place's zone."""

ABBREVIATIONS = frozenset({"CET", "EET", "MET", "WET"})
"""Zones that Postgres takes for abbreviations without summer time: for half of the year a window
would be an hour off. The places that they stand for have zones of their own, such as Europe/Brussels."""

valid_phone = re.compile(r"[1-9][0-9]{6,14}").fullmatch
"""Matches the digits of an E.164 number."""

valid_operator_code = re.compile(r"[0-9]{3}").fullmatch


@dataclass(frozen=True, slots=True)
class ReceiveWindow:
    """A span of every day in the client's zone: from `start` for up to 24 hours."""

    start: time
    duration: timedelta


@dataclass(frozen=True, slots=True)
class ClientDefinition:
    """The fields of a client that callers set; see `CLIENT_FIELDS`."""

    phone: str
    timezone: str
    operator_code: str = ""
    tag: str = ""
    receive_window: ReceiveWindow | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    opted_out: bool | None = None
    """None: not spoken of, which changes nothing; a stored client has True or False."""


class OptOutOrigin(IntEnum):
    """Where the service learned of an opt-out; the numbers are those of the contract."""

    UNKNOWN = 0
    """Kept by the phone for a client who was added again, or from before origins were kept."""
    API = 1
    IMPORT = 2
    INBOUND = 3
    ENDPOINT = 4


@dataclass(frozen=True, slots=True)
class OptOut:
    """How a client opted out. `at` is None where that is not known."""

    at: datetime | None
    origin: OptOutOrigin
    word: str = ""
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class Client:
    """A stored client. `version` grows by one with every change; `opt_out` is None unless they opted out."""

    id: int
    definition: ClientDefinition
    version: int
    created_at: datetime
    updated_at: datetime
    opt_out: OptOut | None = None

    @property
    def etag(self) -> str:
        """The fingerprint of this version."""
        return etag_of(self.id, self.version)


def etag_of(identity: int, version: int) -> str:
    """Return the fingerprint of one version of a resource."""
    return f"{identity:x}-{version:x}"


def check_etag(sent: str, stored: str) -> None:
    """Raise StaleEtag if the caller sent an etag and it is not the stored one."""
    if sent and sent != stored:
        raise StaleEtag


def normal_tag(tag: str) -> str:
    """Return a tag as it is stored: trimmed, and in NFC, so that tags that look alike are one."""
    return normalize("NFC", tag).strip()


def derived_operator_code(phone: str) -> str:
    """Return the operator code that a number of country code 7 contains, else ''."""
    return phone[1:4] if len(phone) == 11 and phone[0] == "7" else ""


def check_client(
    client: ClientDefinition,
    zones: Collection[str],
    path: str,
    violations: Violations,
    fields: Collection[str] = CLIENT_FIELDS,
) -> None:
    """Report every violation among `fields`, at paths below `path`."""
    checks: dict[str, Callable[[str], None]] = {
        "phone": lambda at: check_phone(client.phone, at, violations),
        "operator_code": lambda at: check_operator_code(client.operator_code, at, violations),
        "tag": lambda at: check_text(client.tag, MAX_TAG, at, violations),
        "timezone": lambda at: check_timezone(client.timezone, zones, at, violations),
        "attributes": lambda at: check_attributes(client.attributes, at, violations),
        "receive_window": lambda at: check_window(client.receive_window, at, violations),
    }
    for name, check in checks.items():
        if name in fields:
            check(f"{path}.{name}")


def check_phone(phone: str, path: str, violations: Violations) -> None:
    """Report what is not the digits of an E.164 number."""
    if valid_phone(phone):
        return
    if not phone:
        violations.add(path, "is required: the digits of an E.164 number")
    elif phone.startswith("+"):
        violations.add(path, "must be the digits of an E.164 number without the '+': leave it out")
    else:
        violations.add(path, "must be the digits of an E.164 number: 7 to 15 digits, the first not 0")


def client_key(client_id: int, phone: str, violations: Violations, path: str = "client_id") -> ClientKey:
    """Return what names the client, of which a request has exactly one; report both, none, and what is neither."""
    if phone and client_id:
        violations.add("phone", f"must not be given together with {path}: one of them names the client")
    elif phone:
        check_phone(phone, "phone", violations)
    elif client_id <= 0:
        violations.add(path, "is required and must be a positive id, unless phone is given")
    return phone or client_id


def check_operator_code(code: str, path: str, violations: Violations) -> None:
    """Report what is neither empty nor three digits."""
    if code and not valid_operator_code(code):
        violations.add(path, "must be three digits, or empty")


def check_timezone(zone: str, zones: Collection[str], path: str, violations: Violations) -> None:
    """Report what is not the name of a known time zone."""
    if not zone:
        violations.add(path, "is required: an IANA name such as Europe/Moscow")
    elif zone not in zones:
        violations.add(path, f"{zone[:80]!r} is not a time zone known here; use an IANA name such as Europe/Moscow")


def known_zones(database_zones: Iterable[str]) -> frozenset[str]:
    """Return the accepted names, given those of the database. Reads the zone database: once."""
    return frozenset(available_timezones() & set(database_zones)) - NOT_IANA - ABBREVIATIONS


def check_window(window: ReceiveWindow | None, path: str, violations: Violations) -> None:
    """Report a window whose duration is not whole seconds, more than 0 and at most 24 hours."""
    if window is None:
        return
    if not timedelta(0) < window.duration <= LONGEST_WINDOW:
        violations.add(f"{path}.duration", "must be more than 0 and at most 24 hours")
    elif window.duration.microseconds:
        violations.add(f"{path}.duration", "must be whole seconds")


def completed(client: ClientDefinition) -> ClientDefinition:
    """Return the client with the operator code derived if it was left out."""
    if client.operator_code:
        return client
    return replace(client, operator_code=derived_operator_code(client.phone))


def amended_client(
    before: ClientDefinition, patch: ClientDefinition, fields: Collection[str], zones: Collection[str] = ()
) -> ClientDefinition:
    """Return `before` with `fields`, and parts of fields, taken from `patch`.

    An operator code that was derived from the phone follows a new phone, unless it is among
    the fields itself. A mask that names `opted_out` without a value means False. Raise InvalidFields
    where the parts make no valid field.
    """
    if "operator_code" not in fields and before.operator_code == derived_operator_code(before.phone):
        before = replace(before, operator_code="")
    after = merged(before, replace(patch, opted_out=bool(patch.opted_out)), fields, "client")
    violations = Violations()
    check_client(after, zones, "client", violations, fields_of_parts(fields))
    violations.check()
    return completed(after)
