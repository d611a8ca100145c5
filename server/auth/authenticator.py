"""Puts the ways to show who one is together, in one order: a token first, then the certificate.

A call with a token is judged by its token alone; a bad one is not made up for by a good
certificate.
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
"""A longer one is not looked at."""

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""What a bearer token is made of: RFC 6750, section 2.1."""

_log = logging.getLogger(__name__)


class Authenticator:
    """What is configured to tell callers apart; with nothing at all everybody is ANONYMOUS.

    `certificates` says that callers are known to have certificates of our authority. What
    they may do stands in the tokens file; where they are the only way to show who one is and
    no file says what they may do, they may do everything.
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
        """Return whom the call's metadata names, None if only a certificate can tell. Raise Unauthenticated."""
        if self.open:
            return ANONYMOUS
        given = [value for name, value in metadata if name == "authorization"]
        if not given and self.certificates:
            return None
        if not given:
            _refuse("no credentials")
        if len(given) > 1:
            _refuse("several credentials")
        return self._by_token(given[0])

    def by_certificate(self, names: Sequence[str]) -> Principal:
        """Return who the caller is whose certificate has these names. Raise Unauthenticated."""
        if not names:
            _refuse("no name in the certificate")
        if self.certificates_may_all:
            return Principal(names[0], ALL_SCOPES, "certificate")
        listed = self._tokens.by_certificate(names) if self._tokens else None
        return listed or Principal(names[0], frozenset(), "certificate")

    def _by_token(self, value: str | bytes) -> Principal:
        scheme, _, token = (value if isinstance(value, str) else value.decode("latin-1")).partition(" ")
        if scheme.lower() != "bearer" or len(token) > MAX_TOKEN_BYTES or not _TOKEN.fullmatch(token):
            _refuse("no bearer token")
        digest = sha256(token.encode()).digest()
        found = self._tokens.by_digest(digest) if self._tokens else None
        if found:
            return found
        if self._jwts is None:
            _refuse("not a token of the file")
        try:
            return self._jwts.verify(token, digest)
        except BadToken as error:
            _refuse(str(error))


def _refuse(why: str) -> NoReturn:
    """Raise Unauthenticated; why is for the log only."""
    _log.debug("refused: %s", why)
    raise Unauthenticated
