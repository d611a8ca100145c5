"""The delivery protocol: what is written for a message, and what no endpoint may be."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.delivery.http1 import FastSender
from dispatcher.delivery.httpx_sender import HttpxSender
from dispatcher.delivery.protocol import encode_body, parse_target
from dispatcher.model.endpoints import Endpoint


def target(url: str, token: str = "secret-token") -> dict[str, object]:
    return parse_target(Endpoint("one", url, token))._asdict()


@given(st.integers(0, (1 << 63) - 1), st.from_regex(r"[0-9]{1,15}", fullmatch=True), st.text())
def test_a_body_says_what_it_was_given(message_id: int, phone: str, text: str) -> None:
    assert orjson.loads(encode_body(message_id, phone, text)) == {"id": message_id, "phone": int(phone), "text": text}


def test_a_body_is_the_shortest_json() -> None:
    assert encode_body(7, "79001234567", 'Ж"\n') == '{"id":7,"phone":79001234567,"text":"Ж\\"\\n"}'.encode()


def test_leading_zeros_are_no_octal() -> None:
    assert orjson.loads(encode_body(1, "007", ""))["phone"] == 7


@pytest.mark.parametrize("phone", ["", " 7", "+7", "-7", "7_0", "7.0", "0x7", "\u0667", "²", "9" * 5000])
def test_a_phone_of_anything_but_digits_is_refused(phone: str) -> None:
    with pytest.raises(ValueError):
        encode_body(1, phone, "")


def test_half_a_surrogate_pair_does_not_stop_the_text() -> None:
    assert orjson.loads(encode_body(1, "7", "a\ud83db"))["text"] == "a\ufffdb"


BAD_ENDPOINTS = {
    "no scheme": ("example.com/", ""),
    "another scheme": ("ftp://example.com/", ""),
    "a file": ("file:///etc/passwd", ""),
    "no host": ("http:///send/", ""),
    "a user name": ("http://user@example.com/", ""),
    "a password": ("https://user:pass@example.com/", ""),
    "an empty user name": ("http://@example.com/", ""),
    "a fragment": ("http://example.com/#", ""),
    "a line break": ("http://example.com/\r\nX: y", ""),
    "a line feed": ("http://example.com/\n", ""),
    "a space": ("http://example.com/ HTTP/1.1", ""),
    "a tab": ("http://exa\tmple.com/", ""),
    "a NUL": ("http://example.com/\0", ""),
    "letters beyond ASCII": ("http://пример.рф/", ""),
    "port 0": ("http://example.com:0/", ""),
    "port 65536": ("http://example.com:65536/", ""),
    "a port that is no number": ("http://example.com:http/", ""),
    "half an IPv6 address": ("http://[::1/", ""),
    "a name in brackets": ("http://[example.com]/", ""),
    "an IPv6 zone": ("http://[fe80::1%25eth0]/", ""),
    "an empty label": ("http://a..b/", ""),
    "a label of 64 letters": (f"http://{'a' * 64}.example/", ""),
    "a name of 300 letters": (f"http://{'a.' * 150}example/", ""),
    "a backslash for a host": ("http://\\example.com/", ""),
    "a token with a line break": ("http://example.com/", "secret\r\nX: y"),
    "a token with a space": ("http://example.com/", "secret two"),
    "a token beyond ASCII": ("http://example.com/", "sécret"),
}


@pytest.mark.parametrize("make", [FastSender, HttpxSender])
@pytest.mark.parametrize("what", BAD_ENDPOINTS)
def test_no_sender_takes_an_endpoint_with(what: str, make: type[FastSender] | type[HttpxSender]) -> None:
    url, token = BAD_ENDPOINTS[what]
    with pytest.raises(ValueError) as error:
        make(Endpoint("the-endpoint", url, token))
    assert "the-endpoint" in str(error.value)
    assert not token or token not in str(error.value)
    assert "pass" not in str(error.value).replace("password", "")


@pytest.mark.parametrize("make", [FastSender, HttpxSender])
@pytest.mark.parametrize("content", [None, "", "no certificate\n"])
def test_no_sender_takes_a_ca_file_without_a_certificate(
    content: str | None, make: type[FastSender] | type[HttpxSender], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=r"ca\.pem"):
        make(Endpoint("one", "https://example.com/", "", ca_file=str(path)))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://example.com", {"secure": False, "host": "example.com", "port": 80, "path": "/"}),
        ("https://example.com/send/", {"secure": True, "host": "example.com", "port": 443, "path": "/send/"}),
        ("http://example.com:81?to=", {"host": "example.com", "port": 81, "path": "/?to="}),
        ("http://[::1]:8080/a%20b/", {"host": "::1", "port": 8080, "path": "/a%20b/"}),
        ("HTTP://127.0.0.1/", {"secure": False, "host": "127.0.0.1", "port": 80}),
        ("http://my_host-1.internal./", {"host": "my_host-1.internal."}),
    ],
)
def test_a_url_is_taken_apart(url: str, expected: dict[str, object]) -> None:
    assert expected.items() <= target(url).items()


@pytest.mark.parametrize(
    ("url", "host"),
    [("http://a.example/", "a.example"), ("https://a.example:443/", "a.example:443"), ("http://[::1]/", "[::1]")],
)
def test_the_host_header_is_as_the_url_wrote_it(url: str, host: str) -> None:
    assert dict(parse_target(Endpoint("one", url, "")).headers)["Host"] == host


def test_there_is_no_authorization_without_a_token() -> None:
    assert "Authorization" not in dict(parse_target(Endpoint("one", "http://a.example/", "")).headers)
    assert dict(parse_target(Endpoint("one", "http://a.example/", "x")).headers)["Authorization"] == "Bearer x"
