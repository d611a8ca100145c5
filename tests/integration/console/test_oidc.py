"""Signing in at an issuer: a real one on loopback, and everything that could be slipped in on the way."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import httpx
import pytest

from dispatcher.tasks import in_background
from server.auth import Authenticator, KeySet
from server.auth.jwt_verifier import JwtVerifier
from server.auth.oidc_discovery import Issuer
from server.console import OidcOptions
from tests.support.api import serving
from tests.support.console import Browser, console_of
from tests.support.issuer import AUDIENCE, IssuerServer, answer, jwk, rsa_key, token

CLIENT = "console"


@pytest.fixture
async def issuer(pool: asyncpg.Pool) -> AsyncIterator[tuple[IssuerServer, Browser]]:
    """Yield an issuer, and a browser at a console whose people sign in there."""
    with IssuerServer() as issuer:
        issuer.publish(jwk("rsa", rsa_key()))
        configuration = {
            "issuer": issuer.url,
            "authorization_endpoint": f"{issuer.url}authorize",
            "token_endpoint": f"{issuer.url}token",
            "jwks_uri": issuer.keys_url,
            "end_session_endpoint": f"{issuer.url}logout",
        }
        issuer.replies["/.well-known/openid-configuration"] = answer(json.dumps(configuration).encode())
        keys = KeySet(Issuer(issuer.url).fetch_keys)
        authenticator = Authenticator(jwts=JwtVerifier(issuer.url, AUDIENCE, keys))
        options = OidcOptions(issuer.url, AUDIENCE, CLIENT, "secret")
        async with (
            in_background(keys.run(), "keys"),
            serving(pool, authenticator=authenticator) as (_, address),
            console_of(address, oidc=options) as browser,
        ):
            await keys.first()
            yield issuer, browser


async def begin(browser: Browser) -> dict[str, str]:
    """Go to the issuer and return what it is asked."""
    went = await browser.get("/sign-in/oidc?next=/mailings")
    assert went.status_code == 303
    return {name: values[0] for name, values in parse_qs(urlsplit(went.headers["location"]).query).items()}


def grant(issuer: IssuerServer, nonce: str, scope: str = "mailings.read", **identity: Any) -> None:
    """Let the issuer give tokens for the next code."""
    key = identity.pop("key", None)
    claims = {"iss": issuer.url, "aud": CLIENT, "nonce": nonce, "name": "Ann"} | identity
    tokens = {
        "access_token": token(iss=issuer.url, scope=scope, sub="ann"),
        "id_token": token(key, **claims),
    }
    issuer.replies["/token"] = answer(json.dumps(tokens).encode())


async def come_back(browser: Browser, **query: str) -> httpx.Response:
    return await browser.client.get("/sign-in/oidc/callback", params=query)


async def test_the_issuer_s_scopes_are_those_of_the_person(issuer: tuple[IssuerServer, Browser]) -> None:
    """Also proves that the verifier is that of the challenge, and that the secret is sent to the issuer alone."""
    server, browser = issuer
    asked = await begin(browser)
    assert asked["code_challenge_method"] == "S256"
    grant(server, asked["nonce"])
    back = await come_back(browser, code="c", state=asked["state"])
    assert back.headers["location"] == "/mailings"
    digest = sha256(server.posted[0]["code_verifier"].encode()).digest()
    assert urlsafe_b64encode(digest).rstrip(b"=").decode() == asked["code_challenge"]
    page = (await browser.get("/mailings")).text
    assert "Ann" in page
    assert "New mailing</a>" not in page


async def test_another_state_or_browser_is_refused(issuer: tuple[IssuerServer, Browser]) -> None:
    server, browser = issuer
    asked = await begin(browser)
    grant(server, asked["nonce"])
    assert (await come_back(browser, code="c", state="other")).status_code == 401
    asked = await begin(browser)
    browser.client.cookies.clear()
    assert (await come_back(browser, code="c", state=asked["state"])).status_code == 401
    assert server.posted == []


@pytest.mark.parametrize(
    "identity",
    [
        {"nonce": "other"},
        {"aud": "another client"},
        {"iss": "https://other.example/"},
        {"exp_in": -3600},
        {"key": rsa_key("second")},
    ],
    ids=["nonce", "audience", "issuer", "expired", "another's key"],
)
async def test_an_id_token_that_is_not_of_this_sign_in_is_refused(
    issuer: tuple[IssuerServer, Browser], identity: dict[str, Any]
) -> None:
    server, browser = issuer
    asked = await begin(browser)
    grant(server, **{"nonce": asked["nonce"]} | identity)
    back = await come_back(browser, code="c", state=asked["state"])
    assert back.status_code == 401
    assert "did not succeed" in back.text
    assert (await browser.get("/mailings")).status_code == 303


async def test_what_the_issuer_refuses_leads_back_to_the_sign_in(issuer: tuple[IssuerServer, Browser]) -> None:
    server, browser = issuer
    asked = await begin(browser)
    assert (await come_back(browser, error="access_denied", state=asked["state"])).status_code == 401
    asked = await begin(browser)
    server.replies["/token"] = answer(b'{"error": "invalid_grant"}', 400)
    assert (await come_back(browser, code="c", state=asked["state"])).status_code == 401


async def test_signing_out_ends_the_issuer_s_session_too(issuer: tuple[IssuerServer, Browser]) -> None:
    server, browser = issuer
    asked = await begin(browser)
    grant(server, asked["nonce"])
    await come_back(browser, code="c", state=asked["state"])
    left = await browser.send("/mailings", "/sign-out")
    assert f"{server.url}logout?id_token_hint=" in left.text
    assert (await browser.get("/mailings")).status_code == 303
