"""Tokens of an issuer: the good ones, and everything that only looks like one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest

from server.auth import Authenticator, KeySet
from server.auth import jwt_verifier as module
from server.auth.jwks import KeyTiming
from server.auth.jwt_verifier import JwtVerifier
from server.domain.errors import Unauthenticated
from server.domain.principals import Principal, Scope
from tests.support.bad_credentials import BAD_METADATA, BAD_TOKENS, published
from tests.support.issuer import AUDIENCE, NAME, claims, ec_key, jwk, key_set, rsa_key, token


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


async def loaded(document: Callable[[], bytes], clock: Clock | None = None) -> KeySet:
    """Return keys after one fetch of this document, and no more."""

    async def fetch() -> bytes:
        return document()

    keys = KeySet(fetch, KeyTiming(max_age=100), clock or Clock(0))
    await fetched(keys)
    return keys


async def fetched(keys: KeySet) -> None:
    running = asyncio.create_task(keys.run())
    await asyncio.sleep(0)  # it fetches at once
    await keys.first()
    running.cancel()


@pytest.fixture
async def authenticator() -> Authenticator:
    return Authenticator(jwts=JwtVerifier(NAME, AUDIENCE, await loaded(published)))


def by_token(authenticator: Authenticator, value: str) -> Principal | None:
    return authenticator.by_metadata([("user-agent", "test"), ("authorization", f"Bearer {value}")])


@pytest.mark.parametrize("wrong", BAD_TOKENS)
async def test_a_bad_token_is_rejected_without_a_reason(authenticator: Authenticator, wrong: str) -> None:
    """Each fails when its check is taken out; seen for alg, kid, typ, exp, duplicates, spelling and size."""
    for _ in range(2):  # a refusal is not remembered as anything else
        with pytest.raises(Unauthenticated) as raised:
            by_token(authenticator, BAD_TOKENS[wrong]())
        assert str(raised.value) == "No valid credentials came with the call."
        assert raised.value.facts == {}


@pytest.mark.parametrize("wrong", BAD_METADATA)
async def test_bad_metadata_is_rejected(authenticator: Authenticator, wrong: str) -> None:
    with pytest.raises(Unauthenticated):
        authenticator.by_metadata(BAD_METADATA[wrong]())


@pytest.mark.parametrize("wrong", BAD_METADATA)
async def test_only_where_there_is_no_token_a_certificate_is_asked_for(wrong: str) -> None:
    """Fails when a bad token is made up for by a certificate."""
    both = Authenticator(jwts=JwtVerifier(NAME, AUDIENCE, await loaded(published)), certificates=True)
    if wrong in ("nothing", "another header"):
        assert both.by_metadata(BAD_METADATA[wrong]()) is None
        return
    with pytest.raises(Unauthenticated):
        both.by_metadata(BAD_METADATA[wrong]())


@pytest.mark.parametrize(
    ("key", "kid", "header", "other"),
    [
        (rsa_key, "rsa", {}, {}),
        (ec_key, "ec", {}, {}),
        (rsa_key, "rsa", {"typ": "at+jwt"}, {}),
        (rsa_key, "rsa", {"typ": "application/at+JWT"}, {}),
        (rsa_key, "rsa", {"typ": None}, {}),
        (rsa_key, "rsa", {"jku": "https://evil.example"}, {}),
        (rsa_key, "rsa", {}, {"aud": ["https://other.example", AUDIENCE]}),
        (rsa_key, "rsa", {}, {"exp_in": -30}),
        (rsa_key, "rsa", {}, {"nbf_in": 30}),
    ],
)
async def test_valid_tokens_are_accepted(
    authenticator: Authenticator, key: Callable[[], Any], kid: str, header: dict[str, Any], other: dict[str, Any]
) -> None:
    principal = by_token(authenticator, token(key(), kid, header, **other))
    assert principal == Principal("somebody", frozenset({Scope.MAILINGS_READ}), "jwt")
    assert str(principal) == "jwt:somebody"


@pytest.mark.parametrize(
    ("other", "scopes"),
    [
        ({"scope": "openid mailings.read  clients.write"}, {Scope.MAILINGS_READ, Scope.CLIENTS_WRITE}),
        ({"scope": None, "scp": ["admin", "profile"]}, {Scope.ADMIN}),
        ({"scope": None, "scp": "messages.read"}, {Scope.MESSAGES_READ}),
        ({"scope": "openid", "permissions": ["clients.read"]}, {Scope.CLIENTS_READ}),
        ({"scope": "all ADMIN admin.x"}, set()),
        ({"scope": {"admin": True}, "permissions": [["admin"]]}, set()),
        ({"scope": None}, set()),
    ],
)
async def test_scopes_are_found_where_issuers_put_them(
    authenticator: Authenticator, other: dict[str, Any], scopes: set[Scope]
) -> None:
    principal = by_token(authenticator, token(**other))
    assert principal is not None
    assert principal.scopes == scopes


class Counted(KeySet):
    """Counts how often a key was asked for: that is, how often a signature was looked at."""

    looks = 0

    def get(self, kid: str) -> Any:
        self.looks += 1
        return super().get(kid)


async def counted(document: Callable[[], bytes], clock: Clock) -> Counted:
    async def fetch() -> bytes:
        return document()

    keys = Counted(fetch, KeyTiming(max_age=100), clock)
    await fetched(keys)
    return keys


def verified(verifier: JwtVerifier, value: str) -> Principal:
    return verifier.verify(value, sha256(value.encode()).digest())


async def test_a_good_token_is_verified_once_and_no_longer_than_it_is_valid() -> None:
    """Fails when the time is not looked at for remembered tokens."""
    wall = Clock(time.time())
    keys = await counted(published, Clock(0))
    verifier = JwtVerifier(NAME, AUDIENCE, keys, wall)
    good = token(exp=int(wall.now) + 5)
    for _ in range(3):
        verified(verifier, good)
    assert keys.looks == 1
    wall.now += 66  # its end and the leeway
    verified(verifier, good)  # looked at again: the library has the real time
    assert keys.looks == 2


async def test_a_token_is_rejected_as_soon_as_its_key_is_taken_back() -> None:
    """Fails when remembered tokens do not look at the generation of the keys."""
    documents = [key_set(jwk("rsa", rsa_key()), jwk("ec", ec_key())), key_set(jwk("ec", ec_key()))]
    keys = await loaded(lambda: documents.pop(0))
    verifier = JwtVerifier(NAME, AUDIENCE, keys)
    good = token()
    verified(verifier, good)
    await fetched(keys)
    with pytest.raises(module.BadToken):
        verified(verifier, good)


async def test_a_token_is_rejected_when_the_keys_are_too_old() -> None:
    """Fails when remembered tokens do not look at the age of the keys."""
    clock = Clock(0)
    keys = await loaded(published, clock)
    verifier = JwtVerifier(NAME, AUDIENCE, keys)
    good = token()
    clock.now = 99
    verified(verifier, good)
    clock.now = 100
    with pytest.raises(module.BadToken):
        verified(verifier, good)


async def test_the_cache_of_tokens_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CACHED", 2)
    keys = await counted(published, Clock(0))
    verifier = JwtVerifier(NAME, AUDIENCE, keys)
    tokens = [token(sub=name) for name in "abc"]
    for one in tokens:
        verified(verifier, one)
    verified(verifier, tokens[2])
    assert keys.looks == 3
    verified(verifier, tokens[0])
    assert keys.looks == 4


async def test_what_a_token_says_is_never_logged(
    authenticator: Authenticator, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG"):
        made = [make() for make in BAD_TOKENS.values()]
        for bad in made:
            with pytest.raises(Unauthenticated):
                by_token(authenticator, bad)
    assert "rejected: ExpiredSignatureError" in caplog.text
    assert not [bad for bad in made if bad[:24] in caplog.text]
    assert claims()["sub"] not in caplog.text
