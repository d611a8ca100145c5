"""Signing in at an OIDC issuer: authorization code with PKCE, state and nonce (OpenID Connect Core, RFC 7636, 9700).

The access token is what the API is called with; the id token only tells who it is. What the issuer says is
bounded in time and size, its redirects are not followed, and its signature is checked against its keys.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from hmac import compare_digest
from secrets import token_urlsafe
from time import monotonic
from typing import Any
from urllib.parse import urlencode

import httpx
import jwt

from server.console.options import OidcOptions

TIMEOUT = 10.0
"""Maximum seconds of one request."""

MAX_BYTES = 1 << 20
"""Maximum size of an answer."""

FLOW_SECONDS = 600
"""Seconds that somebody has to sign in at the issuer."""

_KEPT = 600.0
_LEEWAY = 60
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")


class OidcError(Exception):
    """The sign-in did not succeed. `str()` of it says why, for the log."""


@dataclass(frozen=True, slots=True)
class Flow:
    """What the browser keeps while somebody is at the issuer, sealed."""

    state: str
    nonce: str
    verifier: str
    redirect_uri: str
    after: str
    until: float


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the issuer gave."""

    access: str
    identity: str


class Oidc:
    """One client of one issuer."""

    def __init__(self, options: OidcOptions) -> None:
        self._options = options
        self._found: tuple[float, Mapping[str, Any]] | None = None

    async def begin(self, redirect_uri: str, after: str, until: float) -> tuple[str, Flow]:
        """Return the address to send the browser to, and what to remember. Raise OidcError."""
        found = await self._configuration()
        flow = Flow(token_urlsafe(24), token_urlsafe(24), token_urlsafe(48), redirect_uri, after, until)
        challenge = urlsafe_b64encode(sha256(flow.verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "client_id": self._options.client_id,
            "redirect_uri": redirect_uri,
            "scope": self._options.scopes,
            "audience": self._options.audience,
            "state": flow.state,
            "nonce": flow.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        address = str(found["authorization_endpoint"])
        return f"{address}{'&' if '?' in address else '?'}{urlencode(asked)}", flow

    async def finish(self, flow: Flow, given: Mapping[str, str]) -> Tokens:
        """Return the tokens for what the browser came back with. Raise OidcError."""
        if not compare_digest(given.get("state", "").encode(), flow.state.encode()):
            raise OidcError("the state is another one")
        if "code" not in given:
            raise OidcError(f"the issuer says {given.get('error', 'nothing')[:100]!r}")
        found = await self._configuration()
        # RFC 9207: a code of another issuer is not taken.
        if given.get("iss", found["issuer"]) != found["issuer"]:
            raise OidcError("the answer is of another issuer")
        answer = await self._exchanged(found, flow, given["code"])
        access, identity = answer.get("access_token"), answer.get("id_token")
        if not isinstance(access, str) or not isinstance(identity, str):
            raise OidcError("the issuer gave no tokens")
        await self._check(found, identity, flow.nonce)
        return Tokens(access, identity)

    async def end_session(self, identity: str, redirect_uri: str) -> str:
        """Return the address at which the issuer ends its session, '' if it has none."""
        try:
            address = (await self._configuration()).get("end_session_endpoint", "")
        except OidcError:
            return ""
        query = {
            "id_token_hint": identity,
            "client_id": self._options.client_id,
            "post_logout_redirect_uri": redirect_uri,
        }
        return f"{address}?{urlencode(query)}" if isinstance(address, str) and address else ""

    async def _exchanged(self, found: Mapping[str, Any], flow: Flow, code: str) -> Mapping[str, Any]:
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": flow.redirect_uri,
            "client_id": self._options.client_id,
            "code_verifier": flow.verifier,
        }
        secret, auth = self._options.client_secret, None
        if secret and "client_secret_post" in found.get("token_endpoint_auth_methods_supported", ()):
            fields["client_secret"] = secret
        elif secret:
            auth = httpx.BasicAuth(self._options.client_id, secret)
        return await _asked("POST", str(found["token_endpoint"]), data=fields, auth=auth)

    async def _check(self, found: Mapping[str, Any], identity: str, nonce: str) -> None:
        """Raise OidcError unless the id token is for us, now, and of this sign-in."""
        keys = await _asked("GET", str(found["jwks_uri"]))
        try:
            header = jwt.get_unverified_header(identity)
            usable = [one for one in keys["keys"] if one.get("kid", header.get("kid")) == header.get("kid")]
            if header.get("alg") not in _ALGORITHMS or len(usable) != 1:
                raise OidcError("the id token's key or algorithm is not known")
            claims = jwt.decode(
                identity,
                jwt.PyJWK(usable[0], header["alg"]).key,
                algorithms=[header["alg"]],
                audience=self._options.client_id,
                issuer=found["issuer"],
                leeway=_LEEWAY,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, KeyError, TypeError, AttributeError) as error:
            raise OidcError(f"the id token is invalid: {type(error).__name__}") from None
        if not compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
            raise OidcError("the nonce is another one")

    async def _configuration(self) -> Mapping[str, Any]:
        if self._found is None or self._found[0] < monotonic():
            issuer = self._options.issuer
            found = await _asked("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration")
            needed = ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri")
            if not all(isinstance(found.get(name), str) for name in needed) or found["issuer"] != issuer:
                raise OidcError("the issuer's configuration is incomplete, or of another issuer")
            if issuer.startswith("https://") and not all(found[name].startswith("https://") for name in needed):
                raise OidcError("the issuer's configuration has addresses without https")
            self._found = monotonic() + _KEPT, found
        return self._found[1]


def flow_of(text: str) -> Flow | None:
    """Return a flow from its text, the inverse of `text_of`; None for anything else."""
    try:
        return Flow(**json.loads(text))
    except (ValueError, TypeError):
        return None


def text_of(flow: Flow) -> str:
    """Return a flow as text."""
    return json.dumps(asdict(flow))


_HEADERS = {"accept": "application/json", "accept-encoding": "identity"}


async def _asked(method: str, url: str, **options: Any) -> Mapping[str, Any]:
    body = bytearray()
    try:
        async with (
            httpx.AsyncClient(follow_redirects=False, timeout=TIMEOUT, trust_env=False) as client,
            client.stream(method, url, headers=_HEADERS, **options) as answer,
        ):
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise OidcError(f"{url} answered with a compressed body, which nobody asked for")
            async for piece in answer.aiter_raw():
                body += piece
                if len(body) > MAX_BYTES:
                    raise OidcError(f"{url} answered with more than {MAX_BYTES:,} bytes")
        found = json.loads(body) if answer.status_code == httpx.codes.OK else None
    except (httpx.HTTPError, ValueError) as error:
        raise OidcError(f"{url}: {type(error).__name__}") from None
    if not isinstance(found, dict):
        raise OidcError(f"{url} answered with status {answer.status_code} and no JSON object")
    return found
