"""Principals: who makes a call, and with which scopes.

Within a call `caller()` returns its principal, for everything that is done in its name: phones are
masked, limits are counted, and the event log names the author of a change.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Scope(StrEnum):
    """A permission. The methods that need each one are listed in `server.api.permissions`."""

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
    """A caller: subject, scopes, and the kind of credentials."""

    subject: str
    scopes: frozenset[Scope]
    credentials: Literal["open", "token", "jwt", "certificate"]

    def __str__(self) -> str:
        """Return the name for logs and limits: equal subjects of different kinds are different callers."""
        return self.subject if self.credentials == "open" else f"{self.credentials}:{self.subject}"


ANONYMOUS = Principal("anonymous", ALL_SCOPES, "open")
"""Everybody, where no authentication is configured."""

SERVICE = Principal("", frozenset(), "open")
"""The principal outside of any call, where the service itself acts."""


_caller: ContextVar[Principal] = ContextVar("caller", default=SERVICE)


def caller() -> Principal:
    """Return the principal of the current call; outside of any it is SERVICE, which has no scope."""
    return _caller.get()


def set_caller(principal: Principal) -> None:
    """Set the principal of the current call, once it is authenticated."""
    _caller.set(principal)


def known_scopes(names: Iterable[object]) -> frozenset[Scope]:
    """Return the names that are scopes of this service; an issuer may have others."""
    return frozenset(Scope(name) for name in names if isinstance(name, str) and name in _NAMES)
