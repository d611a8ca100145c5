"""Tokens of an issuer over the wire, while its server is well, down, slow, lying, or changes keys."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import grpc
import pytest

from mailing.v1.mailing_service_pb2 import ListMailingsRequest
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub
from server.auth import Authenticator, KeySet, KeyTiming
from server.auth import oidc_discovery as module
from server.auth.jwt_verifier import JwtVerifier
from server.auth.oidc_discovery import BadAnswer, Issuer
from tests.integration.api.calls import refused
from tests.integration.auth.conftest import Guarded, Start, bearer
from tests.support.bad_credentials import BAD_METADATA, BAD_TOKENS, published
from tests.support.issuer import AUDIENCE, NAME, IssuerServer, Reply, answer, ec_key, jwk, key_set, rsa_key, token

QUICK = KeyTiming(refresh=0.02, retry_first=0.01, retry_longest=0.02, cool_down=0.01)


@pytest.fixture
def issuer() -> Iterator[IssuerServer]:
    with IssuerServer() as server:
        yield server


async def call(guarded: Guarded, metadata: list[tuple[str, str]]) -> Any:
    stub: Any = MailingServiceStub(guarded.channel)
    return await stub.ListMailings(ListMailingsRequest(), metadata=metadata, timeout=10)


class Watched:
    """An issuer whose fetches can be waited for."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._ended = asyncio.Condition()
        self.ended = 0

    async def fetch(self) -> bytes:
        try:
            return await self._issuer.fetch_keys()
        finally:
            async with self._ended:
                self.ended += 1
                self._ended.notify_all()

    async def more(self, count: int = 2) -> None:
        """Return when so many more fetches have ended; with two, the last has begun after the call."""
        goal = self.ended + count
        async with asyncio.timeout(20), self._ended:
            await self._ended.wait_for(lambda: self.ended >= goal)


@asynccontextmanager
async def trusting(
    start: Start, issuer: IssuerServer, timing: KeyTiming = QUICK, timeout: float = 5.0
) -> AsyncIterator[tuple[Guarded, Watched]]:
    """A server that takes the issuer's tokens, after the first fetch of its keys."""
    fetches = Watched(Issuer(NAME, issuer.keys_url, timeout))
    keys = KeySet(fetches.fetch, timing)
    running = asyncio.create_task(keys.run())
    await keys.first()
    try:
        yield await start(authenticator=Authenticator(jwts=JwtVerifier(NAME, AUDIENCE, keys))), fetches
    finally:
        running.cancel()


async def test_every_bad_credential_is_unauthenticated(start: Start, issuer: IssuerServer) -> None:
    issuer.replies["/keys"] = answer(published())
    async with trusting(start, issuer) as (guarded, _):
        for bad in BAD_METADATA.values():
            with refused("UNAUTHENTICATED", "UNAUTHENTICATED") as info:
                await call(guarded, bad())
            assert not info.metadata
        for make in BAD_TOKENS.values():
            with refused("UNAUTHENTICATED", "UNAUTHENTICATED") as info:
                await call(guarded, bearer(make()))
            assert not info.metadata
        await call(guarded, bearer(token()))


async def test_the_right_token_without_the_scope_gets_the_missing_scope(start: Start, issuer: IssuerServer) -> None:
    issuer.publish(jwk("rsa", rsa_key()))
    async with trusting(start, issuer) as (guarded, _):
        with refused("PERMISSION_DENIED", "SCOPE_MISSING") as info:
            await call(guarded, bearer(token(scope="clients.read")))
        assert dict(info.metadata) == {"scope": "mailings.read"}


async def test_known_keys_work_while_the_issuer_is_down(start: Start, issuer: IssuerServer) -> None:
    issuer.publish(jwk("rsa", rsa_key()))
    async with trusting(start, issuer) as (guarded, fetches):
        issuer.go_down()
        await fetches.more()
        await call(guarded, bearer(token()))
        with refused("UNAUTHENTICATED", "UNAUTHENTICATED"):
            await call(guarded, bearer(token(kid="new")))


async def test_no_call_waits_while_the_issuer_is_slow(start: Start, issuer: IssuerServer) -> None:
    """Calls are answered while a request for keys is held; fails when `get` waits for the fetch."""
    issuer.publish(jwk("rsa", rsa_key()))
    asked, go_on = threading.Event(), threading.Event()

    def held(request: BaseHTTPRequestHandler) -> None:
        asked.set()
        go_on.wait(20)
        answer(key_set(jwk("rsa", rsa_key())))(request)

    async with trusting(start, issuer) as (guarded, fetches):
        issuer.replies["/keys"] = held
        await asyncio.to_thread(asked.wait, 10)
        before = fetches.ended
        await call(guarded, bearer(token(sub="known key")))
        with refused("UNAUTHENTICATED", "UNAUTHENTICATED"):
            await call(guarded, bearer(token(kid="new")))
        assert fetches.ended == before
        go_on.set()
        await fetches.more()
        await call(guarded, bearer(token()))


async def test_a_slow_answer_is_given_up(start: Start, issuer: IssuerServer) -> None:
    """One that comes byte by byte never lets a single read time out; fails without the limit for all of it."""
    issuer.publish(jwk("rsa", rsa_key()))
    stop = threading.Event()

    def dripping(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while not stop.wait(0.02):
            request.wfile.write(b" ")

    async with trusting(start, issuer, timeout=0.3) as (guarded, fetches):
        issuer.replies["/keys"] = dripping
        await fetches.more()
        await call(guarded, bearer(token()))
        stop.set()


def _lies(elsewhere: str) -> dict[str, Reply]:
    return {
        "500": answer(key_set(jwk("evil", rsa_key("evil"))), 500),
        "401": answer(b"", 401),
        "html": answer(b"<html>sign in</html>"),
        "empty": answer(b""),
        "no keys": answer(b'{"keys": []}'),
        "half": answer(key_set(jwk("rsa", rsa_key()))[:-40]),
        "fewer bytes than promised": answer(key_set(), content_length="1000"),
        "secrets": answer(key_set({"kty": "oct", "kid": "rsa", "k": "c2VjcmV0"})),
        "redirect": answer(b"", 302, location=f"{elsewhere}evil"),
        "gigabytes": answer(b" " * (2 << 20) + key_set(jwk("evil", rsa_key("evil")))),
    }


@pytest.mark.parametrize("lie", _lies(""))
async def test_known_keys_work_while_the_issuer_lies(start: Start, issuer: IssuerServer, lie: str) -> None:
    """No lie takes a known key away, and none brings one in."""
    issuer.publish(jwk("rsa", rsa_key()))
    issuer.replies["/evil"] = answer(key_set(jwk("evil", rsa_key("evil"))))
    async with trusting(start, issuer) as (guarded, fetches):
        issuer.replies["/keys"] = _lies(issuer.url)[lie]
        await fetches.more()
        await call(guarded, bearer(token()))
        with refused("UNAUTHENTICATED", "UNAUTHENTICATED"):
            await call(guarded, bearer(token(rsa_key("evil"), "evil")))
        assert "/evil" not in issuer.asked


async def test_a_new_key_is_found_when_a_token_needs_it_and_an_old_one_ends(start: Start, issuer: IssuerServer) -> None:
    issuer.publish(jwk("rsa", rsa_key()))
    timing = KeyTiming(refresh=3600, cool_down=0.01)
    async with trusting(start, issuer, timing) as (guarded, fetches):
        await call(guarded, bearer(token()))
        issuer.publish(jwk("new", ec_key()))
        with refused("UNAUTHENTICATED", "UNAUTHENTICATED"):  # nobody waits, so the first one comes too early
            await call(guarded, bearer(token(ec_key(), "new")))
        await fetches.more(2 - fetches.ended)
        await call(guarded, bearer(token(ec_key(), "new")))
        with refused("UNAUTHENTICATED", "UNAUTHENTICATED"):  # although it was found good before
            await call(guarded, bearer(token()))


async def test_many_unknown_keys_cause_one_request(start: Start, issuer: IssuerServer) -> None:
    issuer.publish(jwk("rsa", rsa_key()))
    timing = KeyTiming(refresh=3600, cool_down=0.3)
    async with trusting(start, issuer, timing) as (guarded, fetches):
        calls = [call(guarded, bearer(token(kid=f"unknown {number}"))) for number in range(50)]
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(error) for error in errors} == {grpc.aio.AioRpcError}
        await fetches.more(2 - fetches.ended)
        assert issuer.asked == ["/keys", "/keys"]
        assert issuer.most_at_once == 1


CONFIGURATION = "/.well-known/openid-configuration"
Configure = Callable[[str], bytes]


async def test_discovery_finds_the_keys(issuer: IssuerServer) -> None:
    issuer.publish(jwk("rsa", rsa_key()))
    configuration = b'{"issuer": "%s", "jwks_uri": "%s"}' % (issuer.url.encode(), issuer.keys_url.encode())
    issuer.replies[CONFIGURATION] = answer(configuration)
    assert await Issuer(issuer.url).fetch_keys() == key_set(jwk("rsa", rsa_key()))


async def test_without_a_configuration_keys_are_where_they_usually_are(issuer: IssuerServer) -> None:
    issuer.replies["/.well-known/jwks.json"] = answer(b"keys")
    assert await Issuer(issuer.url).fetch_keys() == b"keys"


@pytest.mark.parametrize(
    "configuration",
    [
        b"",
        b"[]",
        b'{"issuer": "https://other.example/", "jwks_uri": "URLkeys"}',
        b'{"issuer": "URLx", "jwks_uri": "URLkeys"}',
        b'{"issuer": "URL"}',
        b'{"jwks_uri": "URLkeys"}',
    ],
)
async def test_a_configuration_of_somebody_else_is_rejected(issuer: IssuerServer, configuration: bytes) -> None:
    issuer.publish(jwk("rsa", rsa_key()))
    issuer.replies[CONFIGURATION] = answer(configuration.replace(b"URL", issuer.url.encode()))
    with pytest.raises(BadAnswer):
        await Issuer(issuer.url).fetch_keys()
    assert issuer.asked == [CONFIGURATION]


async def test_an_answer_without_end_is_cut_off(issuer: IssuerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    issuer.replies["/keys"] = answer(b" " * 5000)
    with pytest.raises(BadAnswer, match="more than 1,000 bytes"):
        await Issuer(NAME, issuer.keys_url).fetch_keys()


async def test_a_compressed_answer_is_refused_before_it_is_read(issuer: IssuerServer) -> None:
    """Fails, by gigabytes, when an answer is decompressed before its size is looked at."""
    bomb = gzip.compress(gzip.compress(bytes(200 << 20)))
    issuer.replies["/keys"] = compressed(bomb)
    with pytest.raises(BadAnswer, match="compressed"):
        await Issuer(NAME, issuer.url + "keys").fetch_keys()


async def test_keys_come_past_the_proxies_of_the_environment(
    issuer: IssuerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    issuer.publish(jwk("one", rsa_key()))
    assert b"one" in await Issuer(NAME, issuer.url + "keys").fetch_keys()


def compressed(body: bytes) -> Reply:
    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Encoding", "gzip, gzip")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return reply
