"""Gives every call a request id: the caller's, or a new one.

It is read from the metadata `x-request-id`, returned in the trailing metadata of the same name
however the call ends, and added to every log line of the call, beside the mailing, message and
client that a unary request is about.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from functools import lru_cache
from random import getrandbits
from typing import Any

from structlog.contextvars import bind_contextvars

from server.api.handlers import Context

REQUEST_ID = "x-request-id"

_ACCEPTED = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
"""Ids that cannot break a log line or a header."""

_SUBJECTS = ("mailing", "message", "client")

_log = logging.getLogger(__name__)


def begin_request(context: Context, metadata: Iterable[tuple[str, str | bytes]]) -> None:
    """Bind the request id to the call. Each call is a task of its own, so this ends with the call."""
    request_id = request_id_of(metadata)
    bind_contextvars(request_id=request_id)
    context.set_trailing_metadata(((REQUEST_ID, request_id),))


def log_end(method: str, seconds: float, failure: str) -> None:
    """Log the end of a call, at level debug; `failure` names what ended it early."""
    if _log.isEnabledFor(logging.DEBUG):
        facts = {"method": method, "seconds": round(seconds, 6)}
        _log.debug("call ended", extra=facts | ({"failure": failure} if failure else {}))


def request_id_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
    """Return the caller's id if there is exactly one and it is acceptable, else a new one."""
    given = [value for key, value in metadata or () if key == REQUEST_ID]
    if len(given) == 1 and isinstance(given[0], str) and _ACCEPTED.fullmatch(given[0]):
        return given[0]
    return f"{getrandbits(128):032x}"  # names a call, keeps no secret


def bind_subjects(request: Any) -> None:
    """Add the ids of what the request is about to every log line of the call."""
    if found := subjects_of(request):
        bind_contextvars(**found)


def subjects_of(request: Any) -> dict[str, int]:
    """Return the ids of what a request is about: its `mailing_id` or `mailing.id`, and so on."""
    found: dict[str, int] = {}
    for name, field, part in _subject_fields(request.__class__):
        value = getattr(request, field)
        if key := getattr(value, part) if part else value:
            found.setdefault(name, key)
    return found


@lru_cache(maxsize=256)
def _subject_fields(kind: type) -> tuple[tuple[str, str, str], ...]:
    """Return which fields of a type of requests name a subject: the name in the log, the field, and the part of it."""
    fields = getattr(getattr(kind, "DESCRIPTOR", None), "fields_by_name", {})
    named = [(f"{subject}_id", f"{subject}_id", "") for subject in _SUBJECTS if f"{subject}_id" in fields]
    held = [
        (f"{subject}_id", subject, "id")
        for subject in _SUBJECTS
        if (field := fields.get(subject)) and field.message_type and "id" in field.message_type.fields_by_name
    ]
    return (*named, *held)
