"""Whoever makes a call, and what they may do.

Inside of a call `caller()` tells who it is, for everything that is done in its name: what it
may see, what is counted for it, and whose doing the log says a change is.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Scope(StrEnum):
    """A permission. What each one opens stands in `server.api.interceptors.permissions`."""

    CLIENTS_READ = "clients.read"
    CLIENTS_WRITE = "clients.write"
    MAILINGS_READ = "mailings.read"
    MAILINGS_WRITE = "mailings.write"
    MESSAGES_READ = "messages.read"
    ADMIN = "admin"


ALL_SCOPES = frozenset(Scope)
_NAMES = frozenset(scope.value for scope in Scope)


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller: the name they are known by, their scopes, and how they showed who they are."""

    subject: str
    scopes: frozenset[Scope]
    how: Literal["open", "token", "jwt", "certificate"]

    def __str__(self) -> str:
        """Return the one name for logs and limits: subjects of different kinds are different callers."""
        return self.subject if self.how == "open" else f"{self.how}:{self.subject}"


ANONYMOUS = Principal("anonymous", ALL_SCOPES, "open")
"""Everybody, where no authentication is configured."""

NOBODY = Principal("", frozenset(), "open")
"""The caller outside of any call: what is done there is the service's own doing."""


_caller: ContextVar[Principal] = ContextVar("caller", default=NOBODY)


def caller() -> Principal:
    """Return who makes the present call; outside of any it is NOBODY, who has no scope."""
    return _caller.get()


def set_caller(principal: Principal) -> None:
    """Say who makes the present call, once it is known."""
    _caller.set(principal)


def known_scopes(names: Iterable[object]) -> frozenset[Scope]:
    """Return those of the names that are scopes of this service; an issuer has others, too."""
    return frozenset(Scope(name) for name in names if isinstance(name, str) and name in _NAMES)
