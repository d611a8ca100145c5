"""How requests show that they come from the gateway: what is right is taken, and everything near it is not."""

from __future__ import annotations

import base64
import hmac
from hashlib import sha1, sha256

import pytest
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
