"""Who may report: how a request to the receipts listener shows that it comes from the gateway.

Pure but for the clock of Standard Webhooks. Secrets are compared in constant time, and a request that shows
nothing, or something odd, is just not verified.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha1, sha256
from typing import NamedTuple
from urllib.parse import parse_qsl

import orjson
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

TOLERANCE = 300.0
"""Seconds by which the time of a Standard Webhook may differ from ours."""


class Signed(NamedTuple):
    """What can be verified of a request: the secret in its path, its public URL, headers and body."""

    secret: str
    url: str
    headers: Mapping[str, str]
    body: bytes


Verifier = Callable[[Signed], bool]
"""Return whether a request comes from a holder of the secret."""


def same(given: str, wanted: str) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode("utf-8", "replace"))


def by_path(secret: str) -> Verifier:
    """Verify the last part of the path."""
    return lambda signed: same(signed.secret, secret)


def by_header(header: str, value: str) -> Verifier:
    """Verify the whole value of a header, such as `Bearer TOKEN` in authorization."""
    return lambda signed: same(signed.headers.get(header, ""), value)


def basic(user: str, password: str) -> Verifier:
    """Verify a user and password."""
    encoded = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
    return by_header("authorization", f"Basic {encoded}")


def hmac_sha256(header: str, secret: str, prefix: str = "", encoding: str = "hex") -> Verifier:
    """Verify an HMAC-SHA256 of the body in a header, `hex` or `base64`, behind a prefix such as `sha256=`."""

    def verify(signed: Signed) -> bool:
        digest = hmac.new(secret.encode(), signed.body, sha256)
        given = signed.headers.get(header, "")
        if encoding == "hex":
            return same(given.lower(), prefix.lower() + digest.hexdigest())
        return same(given, prefix + base64.b64encode(digest.digest()).decode("ascii"))

    return verify


def twilio(token: str) -> Verifier:
    """Verify X-Twilio-Signature: HMAC-SHA1 of the public URL and the sorted fields of the form."""

    def verify(signed: Signed) -> bool:
        fields = parse_qsl(signed.body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=1000)
        text = signed.url + "".join(name + value for name, value in sorted(fields))
        made = base64.b64encode(hmac.new(token.encode(), text.encode(), sha1).digest()).decode("ascii")
        return same(signed.headers.get("x-twilio-signature", ""), made)

    return verify


def mailgun(key: str) -> Verifier:
    """Verify the `signature` in a JSON body: HMAC-SHA256 of its timestamp and token."""

    def verify(signed: Signed) -> bool:
        try:
            shown = orjson.loads(signed.body)["signature"]
            made = hmac.new(key.encode(), f"{shown['timestamp']}{shown['token']}".encode(), sha256).hexdigest()
            return same(str(shown["signature"]), made)
        except (orjson.JSONDecodeError, KeyError, TypeError, UnicodeEncodeError):
            return False

    return verify


def sendgrid(public_key: str) -> Verifier:
    """Verify X-Twilio-Email-Event-Webhook-Signature: ECDSA of the timestamp's header and the body.

    Raise ValueError for a key that is not the base64 of a public key on an elliptic curve.
    """
    try:
        key = load_der_public_key(base64.b64decode(public_key, validate=True))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, EllipticCurvePublicKey):
        raise ValueError("is no verification key of SendGrid: base64 of a public key")
    header = "x-twilio-email-event-webhook"

    def verify(signed: Signed) -> bool:
        moment = signed.headers.get(f"{header}-timestamp", "").encode("latin-1", "replace")
        try:
            given = base64.b64decode(signed.headers.get(f"{header}-signature", ""), validate=True)
            key.verify(given, moment + signed.body, ECDSA(SHA256()))
        except (ValueError, InvalidSignature):
            return False
        return True

    return verify


def standard_webhooks(secrets: Sequence[str], clock: Callable[[], float] = time.time) -> Verifier:
    """Verify a Standard Webhook (standardwebhooks.com) by any of the secrets, which may begin with `whsec_`."""
    keys = [webhook_key(secret) for secret in secrets]

    def verify(signed: Signed) -> bool:
        identity, moment = signed.headers.get("webhook-id", ""), signed.headers.get("webhook-timestamp", "")
        if not (identity and moment.isascii() and moment.isdecimal() and len(moment) < 15):
            return False
        if abs(clock() - int(moment)) > TOLERANCE:
            return False
        wanted = [webhook_signature(key, identity, int(moment), signed.body) for key in keys]
        given = signed.headers.get("webhook-signature", "").split(" ")[:20]
        return any(same(one, made) for one in given for made in wanted)

    return verify


def webhook_key(secret: str) -> bytes:
    """Return the key of a Standard Webhooks secret. Raise ValueError for one that is no base64."""
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise ValueError("is no secret of Standard Webhooks: whsec_ and base64") from None


def webhook_signature(key: bytes, identity: str, moment: int, body: bytes) -> str:
    """Return the signature `v1,…` of a Standard Webhook; `moment` is in seconds since the epoch."""
    digest = hmac.new(key, f"{identity}.{moment}.".encode() + body, sha256).digest()
    return f"v1,{base64.b64encode(digest).decode('ascii')}"
