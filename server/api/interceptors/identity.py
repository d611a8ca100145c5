"""Authenticates the caller and checks the method's scope, before anything of the request is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from cryptography.x509 import DNSName, SubjectAlternativeName, load_pem_x509_certificate
from cryptography.x509.extensions import ExtensionNotFound

from server.api.handlers import Context
from server.api.permissions import PARTLY, PERMISSIONS, Public
from server.auth import Authenticator
from server.domain.errors import MethodClosed, ScopeMissing
from server.domain.principals import ANONYMOUS, SERVICE, Principal, Scope, set_caller

MAX_NAME = 255
"""Maximum length of a name in a certificate."""


Names = Callable[[], Sequence[str]]
"""Returns the names of a certificate, which is read only where they decide."""


def needed_scope(method: str) -> Scope | Public | None:
    """Return the scope of a method; None for one that nobody may call."""
    return PERMISSIONS.get(method)


class Identity:
    """Lets a call through if its caller is authenticated and has the method's scope."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def check(
        self, method: str, needed: Scope | Public | None, metadata: Iterable[tuple[str, str | bytes]], context: Context
    ) -> None:
        """Set the principal of the call. Raise Unauthenticated, ScopeMissing or MethodClosed."""
        if needed is Public.PUBLIC:
            set_caller(ANONYMOUS if self._authenticator.open else SERVICE)
            return
        if needed is None:
            raise MethodClosed
        set_caller(self._authorized(method, needed, metadata, lambda: _names(context)))

    def check_again(
        self, method: str, needed: Scope | Public | None, metadata: Iterable[tuple[str, str | bytes]], context: Context
    ) -> Callable[[], None]:
        """Return what raises the same errors when the caller of an open stream may not have it any more."""
        if needed is None or needed is Public.PUBLIC or self._authenticator.open:
            return lambda: None
        names = _names(context)

        def check() -> None:
            self._authorized(method, needed, metadata, lambda: names)

        return check

    def _authorized(
        self, method: str, needed: Scope, metadata: Iterable[tuple[str, str | bytes]], names: Names
    ) -> Principal:
        principal = self._authenticator.by_metadata(metadata) or self._authenticator.by_certificate(names())
        if not (principal.may(needed) or PARTLY.get(method) in principal.scopes):
            raise ScopeMissing(needed)
        return principal


def _names(context: Context) -> list[str]:
    """Return the names of the caller's certificate, which gRPC has verified."""
    found = context.auth_context().get("x509_pem_cert")
    return [*dns_names(next(iter(found)))] if found else []


@lru_cache(maxsize=1024)
def dns_names(pem: bytes) -> tuple[str, ...]:
    """Return the DNS names among a certificate's alternative names, and nothing else that it says.

    gRPC gives all kinds of alternative names as one list, cut at a NUL: there, an address or a URI that
    somebody may choose passes for the name of a host. Names that would break a log line are left out.
    """
    try:
        extensions = load_pem_x509_certificate(pem).extensions
        names = extensions.get_extension_for_class(SubjectAlternativeName).value.get_values_for_type(DNSName)
    except (ValueError, ExtensionNotFound):
        return ()
    return tuple(name for name in names if name.isascii() and name.isprintable() and 0 < len(name) <= MAX_NAME)
