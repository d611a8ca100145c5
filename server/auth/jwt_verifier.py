"""The tokens of an OIDC issuer: whether one is good, and whom it names.

Good means: a well-formed JWT (RFC 7519, checked as RFC 8725 says) that one of the issuer's
keys has signed by an algorithm of that key, whose issuer and audience are exactly ours and
whose time has come and not passed. What has been found good is remembered by its hash.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import time
from typing import Any

import jwt

from server.auth.jwks import KeySet
from server.domain.principals import Principal, Scope, known_scopes

LEEWAY = 60.0
"""Seconds by which clocks may differ."""

MAX_REMEMBERED = 10_000
"""Tokens found good, at the most; the oldest are forgotten first."""

_END_OF_TIME = 2**53
"""A time behind it, in seconds, is a mistake or an attempt to make arithmetic fail."""

_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")
_REQUIRED = ["exp", "iss", "aud", "sub"]


class BadToken(Exception):
    """The token is not good. `str()` of it says why, for the log; nothing of the token is in it."""


@dataclass(frozen=True, slots=True)
class _Good:
    principal: Principal
    until: float
    generation: int


class JwtVerifier:
    """Verifies tokens of `issuer` for `audience`, which is us."""

    def __init__(self, issuer: str, audience: str, keys: KeySet, clock: Callable[[], float] = time) -> None:
        self._issuer = issuer
        self._audience = audience
        self._keys = keys
        self._clock = clock
        self._good: dict[bytes, _Good] = {}

    def verify(self, token: str, digest: bytes) -> Principal:
        """Return whom the token names; `digest` is its SHA-256. Raise BadToken."""
        known = self._good.get(digest)
        if known:
            if known.generation == self._keys.generation and self._keys.in_force and self._clock() < known.until:
                return known.principal
            del self._good[digest]
        claims = self._claims(token)
        principal = Principal(claims["sub"], _scopes(claims), "jwt")
        if len(self._good) >= MAX_REMEMBERED:
            del self._good[next(iter(self._good))]
        self._good[digest] = _Good(principal, claims["exp"] + LEEWAY, self._keys.generation)
        return principal

    def _claims(self, token: str) -> Mapping[str, Any]:
        segments = token.split(".")
        if len(segments) != 3:
            raise BadToken("not three segments")
        _bytes_of(segments[2])
        header = _object(segments[0])
        _check_payload(_object(segments[1]))
        algorithm, kid = _check_header(header)
        key = self._keys.get(kid)
        if key is None:
            raise BadToken("its key is not known")
        if algorithm not in key.algorithms:
            raise BadToken("not an algorithm of its key")
        try:
            # All of it is said again here, where the signature is looked at.
            claims: Mapping[str, Any] = jwt.decode(
                token,
                key.public,
                algorithms=[algorithm],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY,
                options={"require": _REQUIRED},
            )
        except jwt.PyJWTError as error:
            raise BadToken(type(error).__name__) from None
        return claims


def _check_header(header: Mapping[str, Any]) -> tuple[str, str]:
    """Return algorithm and key id."""
    kind, algorithm, kid = header.get("typ", "JWT"), header.get("alg"), header.get("kid")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise BadToken("another type of token")
    if {"crit", "b64", "zip"} & header.keys():
        raise BadToken("asks for extensions")
    if not isinstance(algorithm, str) or not isinstance(kid, str):
        raise BadToken("names no algorithm or no key")
    return algorithm, kid


def _check_payload(claims: Mapping[str, Any]) -> None:
    """Look at the types that the library is generous about."""
    for name in ("exp", "nbf", "iat"):
        value = claims.get(name, 0)
        if not isinstance(value, int | float) or not 0 <= value < _END_OF_TIME:
            raise BadToken(f"{name} is no time")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= 255 or not subject.isprintable():
        raise BadToken("sub is no name")


def _bytes_of(segment: str) -> bytes:
    """Decode base64url in its one canonical form, so that a token has one spelling only."""
    if not _SEGMENT.fullmatch(segment) or len(segment) % 4 == 1:
        raise BadToken("not base64url")
    data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != segment:
        raise BadToken("not canonical base64url")
    return data


def _object(segment: str) -> dict[str, Any]:
    """Read a JSON object, in which no name comes twice and no number is none."""
    try:
        found = json.loads(_bytes_of(segment), object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise BadToken("not JSON") from None
    if not isinstance(found, dict):
        raise BadToken("no JSON object")
    return found


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadToken("a name comes twice")
    return found


def _no_number(name: str) -> None:
    raise BadToken(f"{name} is no number")


def _scopes(claims: Mapping[str, Any]) -> frozenset[Scope]:
    """Return the scopes, wherever the issuer puts them.

    That is `scope` (RFC 8693, RFC 9068), `scp` (Okta, Entra) or `permissions` (Auth0).
    """
    names = list[object]()
    for claim in ("scope", "scp", "permissions"):
        value = claims.get(claim)
        names += value.split(" ") if isinstance(value, str) else value if isinstance(value, list) else ()
    return known_scopes(names)
