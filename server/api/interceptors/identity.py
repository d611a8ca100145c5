"""Authenticates the caller and checks the method's scope, before the request is decoded where that is possible."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from server.api.handlers import Context, Handler, Interceptor, around, rebuilt
from server.api.permissions import PARTLY, PERMISSIONS, Public
from server.auth import Authenticator
from server.domain.errors import MethodClosed, ScopeMissing
from server.domain.principals import ANONYMOUS, SERVICE, Principal, Scope, set_caller

MAX_NAME = 255
"""Maximum length of a name in a certificate."""


class IdentityInterceptor(Interceptor):
    """Lets a call through if its caller is authenticated and has the method's scope."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def wrap(self, handler: Handler, call: grpc.HandlerCallDetails) -> Handler:
        """Wrap only what the metadata cannot decide: the usual call costs nothing more."""
        needed = PERMISSIONS.get(call.method)
        if needed is Public.PUBLIC:
            set_caller(ANONYMOUS if self._authenticator.open else SERVICE)
            return handler
        try:
            if needed is None:
                raise MethodClosed
            principal = self._authenticator.by_metadata(call.invocation_metadata or ())
            if principal is None:
                return self._by_certificate(handler, call.method, needed)
            _admit(principal, call.method, needed)
        except Exception as error:
            return _rejecting(handler, error)
        return handler

    def _by_certificate(self, handler: Handler, method: str, needed: Scope) -> Handler:
        """Authenticate in the handler: gRPC shows certificates no earlier."""

        @asynccontextmanager
        async def admitted(context: Context) -> AsyncIterator[None]:
            _admit(self._authenticator.by_certificate(_names(context)), method, needed)
            yield

        return around(handler, admitted)


def _admit(principal: Principal, method: str, needed: Scope) -> None:
    if not (principal.may(needed) or PARTLY.get(method) in principal.scopes):
        raise ScopeMissing(needed)
    set_caller(principal)


def _names(context: Context) -> list[str]:
    """Return the names of the caller's certificate: its alternative names if it has any, else its common name.

    Names that would break a log line are left out.
    """
    if context.auth_context().get("transport_security_type") != [b"ssl"]:
        return []
    names = [name.decode("utf-8", "replace") for name in context.peer_identities() or ()]
    return [name for name in names if name.isprintable() and 0 < len(name) <= MAX_NAME]


def _rejecting(handler: Handler, error: Exception) -> Handler:
    """Return a handler that raises, without decoding the request."""

    async def reject(request: Any, context: Context) -> Any:
        raise error

    return rebuilt(handler, reject, decode=bytes)
