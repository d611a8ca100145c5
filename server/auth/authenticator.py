"""Combines the kinds of credentials in one order: a token first, then the certificate.

A call with a token is authenticated by its token alone: a valid certificate does not make up for
an invalid token.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import NoReturn

from server.auth.jwt_verifier import BadToken, JwtVerifier
from server.auth.tokens_file import TokensFile
from server.domain.errors import Unauthenticated
from server.domain.principals import ALL_SCOPES, ANONYMOUS, Principal

MAX_TOKEN_BYTES = 16_384
"""Longer tokens are rejected unread."""

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""The characters of a bearer token: RFC 6750, section 2.1."""

_log = logging.getLogger(__name__)


class Authenticator:
    """The configured kinds of credentials; without any, every caller is ANONYMOUS.

    `certificates` means that callers have certificates of our authority. Their scopes are in the
    tokens file; where certificates are the only credentials and there is no such file, they have
    all scopes.
    """

    def __init__(
        self, tokens: TokensFile | None = None, jwts: JwtVerifier | None = None, certificates: bool = False
    ) -> None:
        self._tokens = tokens
        self._jwts = jwts
        self.certificates = certificates
        self.certificates_may_all = certificates and tokens is None and jwts is None
        self.open = tokens is None and jwts is None and not certificates

    def by_metadata(self, metadata: Iterable[tuple[str, str | bytes]]) -> Principal | None:
        """Return the principal of a call's metadata, None if only a certificate can decide. Raise Unauthenticated."""
        if self.open:
            return ANONYMOUS
        given = [value for name, value in metadata if name == "authorization"]
        if not given and self.certificates:
            return None
        if not given:
            _reject("no credentials")
        if len(given) > 1:
            _reject("several credentials")
        return self._by_token(given[0])

    def by_certificate(self, names: Sequence[str]) -> Principal:
        """Return the principal of a certificate with these names. Raise Unauthenticated."""
        if not names:
            _reject("no name in the certificate")
        if self.certificates_may_all:
            return Principal(names[0], ALL_SCOPES, "certificate")
        listed = self._tokens.by_certificate(names) if self._tokens else None
        return listed or Principal(names[0], frozenset(), "certificate")

    def _by_token(self, value: str | bytes) -> Principal:
        scheme, _, token = (value if isinstance(value, str) else value.decode("latin-1")).partition(" ")
        if scheme.lower() != "bearer" or len(token) > MAX_TOKEN_BYTES or not _TOKEN.fullmatch(token):
            _reject("no bearer token")
        digest = sha256(token.encode()).digest()
        found = self._tokens.by_digest(digest) if self._tokens else None
        if found:
            return found
        if self._jwts is None:
            _reject("not a token of the file")
        try:
            return self._jwts.verify(token, digest)
        except BadToken as error:
            _reject(str(error))


def _reject(why: str) -> NoReturn:
    """Raise Unauthenticated; `why` is for the log only."""
    _log.debug("rejected: %s", why)
    raise Unauthenticated
