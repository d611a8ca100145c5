"""How requests show that they come from the gateway: what is right is taken, and everything near it is not."""

from __future__ import annotations

import base64
import hmac
import json
from hashlib import sha1, sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from server.domain import signatures
from server.domain.signatures import Signed, Verifier, standard_webhooks, webhook_key, webhook_signature

BODY = b'{"id":"1","status":"delivered"}'
KEY = "whsec_" + base64.b64encode(b"k" * 24).decode()


def signed(secret: str = "", url: str = "", body: bytes = BODY, **headers: str) -> Signed:
    return Signed(secret, url, named(headers), body)


def named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


HEX = hmac.new(b"s3cret", BODY, sha256).hexdigest()
BASE64 = base64.b64encode(hmac.new(b"s3cret", BODY, sha256).digest()).decode()


@pytest.mark.parametrize(
    ("verifier", "right", "wrong"),
    [
        (signatures.by_path("s3cret"), signed("s3cret"), signed("s3cret ")),
        (
            signatures.by_header("authorization", "Bearer t"),
            signed(authorization="Bearer t"),
            signed(authorization="t"),
        ),
        (signatures.basic("u", "p"), signed(authorization="Basic dTpw"), signed(authorization="Basic dTpx")),
        (signatures.hmac_sha256("x-sig", "s3cret"), signed(x_sig=HEX), signed(x_sig=HEX, body=BODY + b" ")),
        (signatures.hmac_sha256("x-sig", "s3cret"), signed(x_sig=HEX.upper()), signed(x_sig=HEX[:-1])),
        (signatures.hmac_sha256("x-sig", "s3cret", "sha256="), signed(x_sig=f"sha256={HEX}"), signed(x_sig=HEX)),
        (signatures.hmac_sha256("x-sig", "s3cret", "", "base64"), signed(x_sig=BASE64), signed(x_sig=BASE64.lower())),
    ],
)
def test_who_knows_the_secret_is_believed_and_nobody_else(verifier: Verifier, right: Signed, wrong: Signed) -> None:
    assert verifier(right)
    assert not verifier(wrong)
    assert not verifier(signed())


def test_twilio_signs_its_url_and_the_sorted_fields() -> None:
    """The example is that of the documentation: docs/usage/security."""
    url = "https://example.com/myapp.php?foo=1&bar=2"
    body = b"Digits=1234&To=%2B18005551212&From=%2B14158675310&Caller=%2B14158675310&CallSid=CA1234567890ABCDE"
    text = url + ("CallSidCA1234567890ABCDECaller+14158675310Digits1234From+14158675310To+18005551212")
    signature = base64.b64encode(hmac.new(b"12345", text.encode(), sha1).digest()).decode()
    assert signature == "L/OH5YylLD5NRKLltdqwSvS0BnU="
    verify = signatures.twilio("12345")
    assert verify(signed(url=url, body=body, x_twilio_signature=signature))
    assert not verify(signed(url=url + "x", body=body, x_twilio_signature=signature))
    assert not verify(signed(url=url, body=body + b"&a=b", x_twilio_signature=signature))


def test_mailgun_signs_its_time_and_token_within_the_body() -> None:
    """https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks."""
    made = hmac.new(b"key", b"1529006854" + b"a8ce0edb", sha256).hexdigest()
    shown = {"timestamp": "1529006854", "token": "a8ce0edb", "signature": made}
    verify = signatures.mailgun("key")
    assert verify(signed(body=json.dumps({"signature": shown, "event-data": {}}).encode()))
    for change in ({"timestamp": "1529006855"}, {"token": "b"}, {"signature": made[:-1]}, {"token": None}):
        assert not verify(signed(body=json.dumps({"signature": {**shown, **change}}).encode()))
    for body in (b"", b"[]", b"{}", b'{"signature":"x"}', b'{"signature":{}}', b"\xff"):
        assert not verify(signed(body=body))


def test_sendgrid_signs_the_time_and_the_body_with_its_key() -> None:
    """https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event#security-features."""
    key = generate_private_key(SECP256R1())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    signature = base64.b64encode(key.sign(b"1600112502" + BODY, ECDSA(SHA256()))).decode()
    verify = signatures.sendgrid(base64.b64encode(public).decode())

    def shown(signature: str, timestamp: str = "1600112502", body: bytes = BODY) -> Signed:
        prefix = "x-twilio-email-event-webhook"
        return Signed("", "", {f"{prefix}-signature": signature, f"{prefix}-timestamp": timestamp}, body)

    assert verify(shown(signature))
    assert not verify(shown(signature, "1600112503"))
    assert not verify(shown(signature, body=BODY + b" "))
    for wrong in ("", "AAAA", "ä", signature[:-4]):
        assert not verify(shown(wrong))
    assert not verify(signed())


@pytest.mark.parametrize("key", ["", "key", "AAAA", base64.b64encode(b"k" * 91).decode()])
def test_a_key_of_sendgrid_is_a_public_key(key: str) -> None:
    with pytest.raises(ValueError, match="is no verification key of SendGrid"):
        signatures.sendgrid(key)


def test_a_standard_webhook_is_verified_with_its_time() -> None:
    verify = standard_webhooks(["whsec_" + base64.b64encode(b"old").decode(), KEY], lambda: 1_000_000.0)
    made = webhook_signature(webhook_key(KEY), "msg_1", 1_000_000, BODY)
    headers = {"webhook_id": "msg_1", "webhook_timestamp": "1000000", "webhook_signature": f"v1,AAAA {made}"}
    assert verify(Signed("", "", named(headers), BODY))
    for change in ({"webhook_id": "msg_2"}, {"webhook_timestamp": "1000301"}, {"webhook_timestamp": "999699"}):
        assert not verify(Signed("", "", named({**headers, **change}), BODY))
    for change in ({"webhook_timestamp": "x"}, {"webhook_timestamp": "²"}, {"webhook_signature": made[:-2]}):
        assert not verify(Signed("", "", named({**headers, **change}), BODY))
    assert not verify(Signed("", "", named(headers), b"other"))


def test_a_secret_of_standard_webhooks_is_base64() -> None:
    with pytest.raises(ValueError, match="is no secret of Standard Webhooks"):
        webhook_key("whsec_not base64!")


@given(
    st.text(),
    st.text(),
    st.binary(),
    st.dictionaries(st.sampled_from(["x-sig", "webhook-id", "webhook-timestamp"]), st.text()),
)
def test_nothing_odd_is_believed_or_raises(secret: str, url: str, body: bytes, headers: dict[str, str]) -> None:
    given = Signed(secret, url, headers, body)
    for verify in (signatures.hmac_sha256("x-sig", "s3cret"), signatures.twilio("t"), standard_webhooks([KEY])):
        assert not verify(given)
