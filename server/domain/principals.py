"""Principals: who makes a call, and with which scopes.

Within a call `caller()` returns its principal, for everything that is done in its name: phones are
masked, limits are counted, and the event log names the author of a change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    ADMIN_READ = "admin.read"
    """To see what operators see, and to stop nothing."""
    ADMIN = "admin"
    """To steer the service; includes ADMIN_READ."""


ALL_SCOPES = frozenset(Scope)
_READING = (Scope.MAILINGS_READ, Scope.MESSAGES_READ)
_CAMPAIGNS = (Scope.CLIENTS_READ, Scope.CLIENTS_WRITE, Scope.MAILINGS_WRITE, *_READING)

ROLES: Mapping[str, tuple[Scope, ...]] = {
    "marketer": _CAMPAIGNS,
    "operator": (*_CAMPAIGNS, Scope.ADMIN),
    "monitor": (*_READING, Scope.ADMIN_READ),
}
"""The scopes of callers as most installations have them; a token is made with those of one role."""

_NAMES = frozenset(scope.value for scope in Scope)


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller: subject, scopes, and the kind of credentials."""

    subject: str
    scopes: frozenset[Scope]
    credentials: Literal["open", "token", "jwt", "certificate"]

    def may(self, scope: Scope) -> bool:
        """Return whether a scope of the principal is, or includes, this one."""
        return scope in self.scopes or (scope is Scope.ADMIN_READ and Scope.ADMIN in self.scopes)

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


def shown_attributes(attributes: Mapping[str, str]) -> Mapping[str, str]:
    """Return a client's attributes as the current caller may see them: none without the scope clients.read."""
    return attributes if Scope.CLIENTS_READ in caller().scopes else {}


_source: ContextVar[str] = ContextVar("source", default="")


def source() -> str:
    """Return whose call this is for limits and turns: its principal, or its host without authentication.

    Outside of any call it is '': the service itself.
    """
    return _source.get()


def set_source(name: str) -> None:
    """Set whose call this is."""
    _source.set(name)


def known_scopes(names: Iterable[object]) -> frozenset[Scope]:
    """Return the names that are scopes of this service; an issuer may have others."""
    return frozenset(Scope(name) for name in names if isinstance(name, str) and name in _NAMES)
