"""Establishes who calls and whether they may, before anything of the request is read.

The interceptor stands within the one that answers errors; what it refuses it refuses by raising.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from server.api.interceptors.handlers import Context, Handler, Interceptor, around, rebuilt
from server.api.interceptors.permissions import PERMISSIONS, Access
from server.auth import Authenticator
from server.domain.errors import MethodClosed, ScopeMissing
from server.domain.principals import ANONYMOUS, NOBODY, Principal, Scope, set_caller

MAX_NAME = 255
"""Characters of a name in a certificate."""


class IdentityInterceptor(Interceptor):
    """Lets a call through whose caller is known and has the method's scope."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def wrap(self, handler: Handler, call: grpc.HandlerCallDetails) -> Handler:
        """Wrap nothing when the metadata says it all, which is the usual call."""
        needed = PERMISSIONS.get(call.method)
        if needed is Access.OPEN:
            set_caller(ANONYMOUS if self._authenticator.open else NOBODY)
            return handler
        try:
            if needed is None:
                raise MethodClosed
            principal = self._authenticator.by_metadata(call.invocation_metadata or ())
            if principal is None:
                return self._by_certificate(handler, needed)
            _admit(principal, needed)
        except Exception as error:
            return _refusing(handler, error)
        return handler

    def _by_certificate(self, handler: Handler, needed: Scope) -> Handler:
        """Judge in the handler: gRPC tells of certificates no earlier."""

        @asynccontextmanager
        async def admitted(context: Context) -> AsyncIterator[None]:
            _admit(self._authenticator.by_certificate(_names(context)), needed)
            yield

        return around(handler, admitted)


def _admit(principal: Principal, needed: Scope) -> None:
    if needed not in principal.scopes:
        raise ScopeMissing(needed)
    set_caller(principal)


def _names(context: Context) -> list[str]:
    """Return the names of the caller's certificate: its alternative names if it has any, else its common name.

    Those that no line of a log should have are left out.
    """
    if context.auth_context().get("transport_security_type") != [b"ssl"]:
        return []
    names = [name.decode("utf-8", "replace") for name in context.peer_identities() or ()]
    return [name for name in names if name.isprintable() and 0 < len(name) <= MAX_NAME]


def _refusing(handler: Handler, error: Exception) -> Handler:
    """Return a handler that raises; do not even parse what the caller sent."""

    async def refuse(request: Any, context: Context) -> Any:
        raise error

    return rebuilt(handler, refuse, decode=bytes)
