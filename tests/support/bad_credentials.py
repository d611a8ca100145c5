"""Everything that must not pass for a credential, by what is wrong with it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.issuer import AUDIENCE, NAME, claims, ec_key, jwk, key_set, rsa_key, segment, token

SECRET = b"0123456789abcdef0123456789abcdef"


@cache
def published() -> bytes:
    """Return the key set that the tokens below are judged by, with entries that must not verify anything."""
    secret = {"kty": "oct", "kid": "oct", "k": segment(SECRET), "alg": "HS256", "use": "sig"}
    return key_set(
        jwk("rsa", rsa_key()),
        jwk("ec", ec_key()),
        jwk("only-rs512", rsa_key("512"), alg="RS512"),
        jwk("encrypts", rsa_key("enc"), use="enc"),
        jwk("short", rsa_key("short", 1024)),
        secret,
    )


def _signed(header: Any, payload: Any, key: Any = None) -> str:
    """Return a token whose first two segments are exactly these; bytes are taken as they are."""
    signing = f"{segment(header)}.{segment(payload)}"
    algorithm = jwt.get_algorithm_by_name("RS256")
    return f"{signing}.{segment(algorithm.sign(signing.encode(), key or rsa_key()))}"


def _with_signature(of: str, signature: str) -> str:
    return f"{of.rpartition('.')[0]}.{signature}"


def _header(**other: Any) -> dict[str, Any]:
    return {"alg": "RS256", "typ": "JWT", "kid": "rsa", **other}


def _by_shared_secret(secret: bytes, kid: str) -> str:
    signing = f"{segment(_header(alg='HS256', kid=kid))}.{segment(claims())}"
    return f"{signing}.{segment(jwt.get_algorithm_by_name('HS256').sign(signing.encode(), secret))}"


def _other_spelling(good: str) -> str:
    """Return the same bytes in base64 that is not canonical: the spare bits of the last digit are set."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return good[:-1] + digits[digits.index(good[-1]) | 1]


def _in(seconds: int) -> int:
    return int(time.time()) + seconds


@cache
def _good() -> str:
    return token(exp=_in(36_000))


def _part(name: str) -> str:
    return dict(zip(("head", "body", "signature"), _good().split("."), strict=True))[name]


def _public() -> bytes:
    return rsa_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


_DUPLICATE = b'{"alg":"none","alg":"RS256","typ":"JWT","kid":"rsa"}'


def _again() -> bytes:
    return f'{{"aud":"x","iss":"{NAME}","aud":"{AUDIENCE}","sub":"a","exp":{_in(600)}}}'.encode()


BAD_TOKENS: Mapping[str, Callable[[], str]] = {
    "alg none": lambda: f"{segment(_header(alg='none'))}.{_part('body')}.",
    "alg none with a signature": lambda: f"{segment(_header(alg='none'))}.{_part('body')}.{_part('signature')}",
    "alg nOnE": lambda: f"{segment(_header(alg='nOnE'))}.{_part('body')}.{_part('signature')}",
    "alg missing": lambda: _signed({"typ": "JWT", "kid": "rsa"}, claims()),
    "alg no text": lambda: _signed(_header(alg=["RS256"]), claims()),
    "alg unknown": lambda: _signed(_header(alg="RS257"), claims()),
    "HS256 by the public key": lambda: _by_shared_secret(_public(), "rsa"),
    "HS256 by the key set": lambda: _by_shared_secret(published(), "rsa"),
    "HS256 by a published secret": lambda: _by_shared_secret(SECRET, "oct"),
    "algorithm of another kind of key": lambda: _signed(_header(kid="ec"), claims()),
    "algorithm the key is not for": lambda: _signed(_header(kid="only-rs512"), claims(), rsa_key("512")),
    "RS256 called PS256": lambda: _with_signature(
        f"{segment(_header(alg='PS256'))}.{_part('body')}.x", _part("signature")
    ),
    "another issuer": lambda: token(iss="https://evil.example/"),
    "issuer without its slash": lambda: token(iss=NAME.rstrip("/")),
    "issuer in capitals": lambda: token(iss=NAME.upper()),
    "issuer missing": lambda: token(iss=None),
    "issuers in a list": lambda: _signed(_header(), claims(iss=[NAME])),
    "another audience": lambda: token(aud="https://other.example"),
    "audience that begins like ours": lambda: token(aud=f"{AUDIENCE}.evil"),
    "list of other audiences": lambda: token(aud=["a", "b"]),
    "audience missing": lambda: token(aud=None),
    "kid unknown": lambda: token(kid="unknown"),
    "kid missing": lambda: token(kid=None),
    "kid no text": lambda: _signed(_header(kid=7), claims()),
    "kid a path": lambda: token(kid="../../dev/null"),
    "kid of a key for encryption": lambda: token(rsa_key("enc"), "encrypts"),
    "kid of a short key": lambda: token(rsa_key("short", 1024), "short"),
    "typ of another token": lambda: token(header={"typ": "logout+jwt"}),
    "typ no text": lambda: _signed(_header(typ=1), claims()),
    "expired": lambda: token(exp=_in(-61)),
    "exp missing": lambda: token(exp=None),
    "exp a text": lambda: _signed(_header(), claims(exp=str(_in(600)))),
    "exp true": lambda: _signed(_header(), claims(exp=True)),
    "exp infinite": lambda: _signed(_header(), json.dumps(claims()).replace(str(claims()["exp"]), "1e999").encode()),
    "exp behind all time": lambda: token(exp=10**400),
    "exp not a number": lambda: _signed(_header(), claims(exp=float("nan"))),
    "not yet valid": lambda: token(nbf=_in(120)),
    "issued in the future": lambda: token(iat=_in(120)),
    "subject missing": lambda: token(sub=None),
    "subject empty": lambda: token(sub=""),
    "subject no text": lambda: _signed(_header(), claims(sub=7)),
    "subject of two lines": lambda: token(sub="a\nb"),
    "huge": lambda: token(more="x" * 30_000),
    "signature cut off": lambda: f"{_part('head')}.{_part('body')}",
    "signature empty": lambda: f"{_part('head')}.{_part('body')}.",
    "signature truncated": lambda: _good()[:-40],
    "one character short": lambda: _good()[:-1],
    "one character more": lambda: f"{_good()}A",
    "another spelling of the signature": lambda: _other_spelling(_good()),
    "padded": lambda: f"{_good()}==",
    "five segments": lambda: f"{_good()}.{_part('body')}.{_part('signature')}",
    "claims of another token": lambda: f"{_part('head')}.{segment(claims(sub='admin'))}.{_part('signature')}",
    "claims no object": lambda: _signed(_header(), [claims()]),
    "claims no JSON": lambda: _signed(_header(), b"not json"),
    "claims no UTF-8": lambda: _signed(_header(), b'{"sub":"\xff"}'),
    "header no JSON": lambda: _signed(b"{", claims()),
    "header no object": lambda: _signed(["RS256"], claims()),
    "header deeply nested": lambda: _signed(b"[" * 5000, claims()),
    "name twice in the header": lambda: _signed(_DUPLICATE, claims()),
    "name twice in the claims": lambda: _signed(_header(), _again()),
    "critical extension": lambda: _signed(_header(crit=["b64"], b64=True), claims()),
    "signed by another key": lambda: token(rsa_key("evil")),
    "signed by a key it brings along": lambda: token(rsa_key("evil"), header={"jwk": jwk("rsa", rsa_key("evil"))}),
    "signed by a key it links to": lambda: token(rsa_key("evil"), header={"jku": "https://evil.example/keys"}),
    "signature of zeros": lambda: _with_signature(token(ec_key(), "ec"), segment(b"\0" * 64)),
    "garbage": lambda: "x" * 200,
    "static token that is in no file": lambda: "mlg_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
}
"""The tokens by what is wrong with them, each to be made when it is needed."""


BAD_METADATA: Mapping[str, Callable[[], list[tuple[str, str]]]] = {
    "nothing": list,
    "empty": lambda: [("authorization", "")],
    "scheme only": lambda: [("authorization", "Bearer")],
    "scheme and a space": lambda: [("authorization", "Bearer ")],
    "no scheme": lambda: [("authorization", _good())],
    "another scheme": lambda: [("authorization", f"Basic {_good()}")],
    "two spaces": lambda: [("authorization", f"Bearer  {_good()}")],
    "two tokens in one": lambda: [("authorization", f"Bearer {_good()} {_good()}")],
    "two tokens joined": lambda: [("authorization", f"Bearer {_good()},Bearer {_good()}")],
    "the header twice": lambda: [("authorization", f"Bearer {_good()}")] * 2,
    "another header": lambda: [("x-authorization", f"Bearer {_good()}")],
}
"""What may stand in a call's metadata instead of a good token."""
