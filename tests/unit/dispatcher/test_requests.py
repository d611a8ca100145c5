"""Described requests: what they are filled with, and that no value becomes structure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.delivery.described import DescribedRequests
from dispatcher.delivery.protocol import encode_body
from dispatcher.model.endpoints import Endpoint
from dispatcher.model.placeholders import national
from dispatcher.model.requests import DescriptionError, RequestForm, RequestText, compile_request

URL = "https://host/send"


class Message(NamedTuple):
    message_id: int
    phone: str
    text: str
    values: Sequence[str] = ()


def compiled(url: str = URL, **keys: Any) -> RequestForm:
    return compile_request(RequestText(url=url, **keys))


def body(form: RequestForm, text: str = "Hi", values: tuple[str, ...] = ()) -> Any:
    return json.loads(form.render(5, "79161234567", text, values).body)


def test_what_is_not_described_is_the_delivery_protocol_byte_for_byte() -> None:
    """Fails when the body of the protocol, or the place of the id, changes in one of the two."""
    request = compiled("https://host/send/").render(5, "79161234567", 'Hi "ё"\n')
    assert request.target == b"/send/5"
    assert request.body == encode_body(5, "79161234567", 'Hi "ё"\n')


def test_every_placeholder_is_filled_in() -> None:
    form = compiled(
        json={
            "a": ["{phone}", "{phone:plus}", "{phone:national}", "{phone:int}"],
            "b": ["{id}", "{id:int}", "n{id:int}", "{text}", "{title}"],
            "c": ["{attributes.name}", "{attributes.none}", "{secret.key}", "{{x}}", 1.5, True, None],
        },
        constants={"secret.key": 's"3'},
    )
    assert form.needs == ("title", "attributes.name", "attributes.none")
    values = form.values_of("News", {"name": "Anna"})
    assert body(form, "Hi", values) == {
        "a": ["79161234567", "+79161234567", "9161234567", 79161234567],
        "b": ["5", 5, "n5", "Hi", "News"],
        "c": ["Anna", "", 's"3', "{x}", 1.5, True, None],
    }


@pytest.mark.parametrize(
    ("phone", "digits"),
    [
        ("79161234567", "9161234567"),
        ("14155550100", "4155550100"),
        ("442071838750", "2071838750"),
        ("380441234567", "441234567"),
        ("35312345678", "12345678"),
    ],
)
def test_national_digits_come_behind_the_country_code(phone: str, digits: str) -> None:
    assert national(phone) == digits


@pytest.mark.parametrize(
    ("url", "keys", "target"),
    [
        ("https://host", {}, b"/5"),
        ("https://host/send/", {}, b"/send/5"),
        ("https://host/send?id=", {}, b"/send?id=5"),
        ("https://host/send/", {"json": ["{phone}"]}, b"/send/5"),
        ("https://host/send", {"json": ["{phone}"]}, b"/send"),
        ("https://host/{secret.a}/send/", {"json": ["{phone}"], "constants": {"secret.a": "A/C"}}, b"/A%2FC/send/"),
        ("https://host/{phone}/x?q=a%20b", {}, b"/79161234567/x?q=a%20b"),
        ("https://host/x?to={phone:plus}", {"query": {"t": "{text}"}}, b"/x?to=%2B79161234567&t=a%26b%23"),
        ("https://host/x", {"query": {"to": ["{phone}", "2"], "n": 1}}, b"/x?to=79161234567&to=2&n=1"),
    ],
)
def test_the_id_follows_a_url_that_names_nothing(url: str, keys: dict[str, Any], target: bytes) -> None:
    assert compiled(url, **keys).render(5, "79161234567", "a&b#").target == target


def test_a_get_has_no_body_and_a_query_alone_neither() -> None:
    assert compiled("https://host/{phone}", method="GET").render(5, "7916", "x").body == b""
    assert compiled(query={"to": "{phone}"}).render(5, "7916", "x").body == b""


@given(st.text(), st.text())
def test_no_value_becomes_structure(text: str, name: str) -> None:
    """Fails for every escape that is left out."""
    leaves = {"t": "<{text}>", "n": "{attributes.name}", "p": "{phone}"}
    valid = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    valid_name = name.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    in_json = compiled(json=leaves)
    assert body(in_json, text, (name,)) == {"t": f"<{valid}>", "n": valid_name, "p": "79161234567"}
    in_form = compiled(form=leaves).render(5, "7916", text, (name,)).body.decode("ascii")
    assert parse_qs(in_form, keep_blank_values=True) == {"t": [f"<{valid}>"], "n": [valid_name], "p": ["7916"]}
    url = "https://host/a/{attributes.name}/{phone}?x={text}"
    target = compiled(url).render(5, "7916", text, (name,)).target.decode("ascii")
    parts = urlsplit(f"https://host{target}")
    segments = parts.path.split("/")
    assert (len(segments), unquote(segments[2]), segments[3]) == (4, valid_name, "7916")
    assert segments[2] not in (".", "..")
    assert parse_qs(parts.query, keep_blank_values=True) == {"x": [valid]}


@given(st.text())
def test_no_value_becomes_a_header_or_a_request(text: str) -> None:
    form = compiled(json=["{phone}"], headers={"X-Text": "{text}"})
    request = DescribedRequests(Endpoint("x", URL, "", request=form)).http1(Message(5, "7916", text))
    head, _, rest = request.partition(b"\r\n\r\n")
    assert rest == b'["7916"]'
    assert [line.split(b":")[0] for line in head.split(b"\r\n")[1:]].count(b"X-Text") == 1
    assert len(head.split(b"\r\n")) == 9


def test_headers_of_the_description_replace_ours() -> None:
    form = compiled(form={"to": "{phone}"}, headers={"user-agent": "me", "Idempotency-Key": "k-{id}"})
    request = DescribedRequests(Endpoint("x", URL, "t0ken", request=form)).http1(Message(5, "7916", "x"))
    lines = request.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert lines == [
        b"POST /send HTTP/1.1",
        b"Host: host",
        b"Authorization: Bearer t0ken",
        b"Accept: application/json",
        b"Accept-Encoding: identity",
        b"Content-Type: application/x-www-form-urlencoded",
        b"user-agent: me",
        b"Idempotency-Key: k-5",
        b"Content-Length: 7",
    ]


@pytest.mark.parametrize(
    ("keys", "key", "what"),
    [
        ({"json": {"to": "{fone}"}}, "json.to", "unknown placeholder {fone}"),
        ({"json": {"to": ["{phone:minus}"]}}, "json.to[0]", "unknown placeholder {phone:minus}"),
        ({"json": {"to": "{phone"}}, "json.to", "a single '{'"),
        ({"json": {"to": "phone}"}}, "json.to", "a single '}'"),
        ({"json": {"to": "{attributes.}"}}, "json.to", "unknown placeholder"),
        ({"json": {"to": "{secret.key}"}}, "json.to", "secrets has no key"),
        ({"json": {"to": "{receipt_url}{phone}"}}, "json.to", "this endpoint has no receipts"),
        ({"json": {"t": "{text}"}}, "json", "names nobody"),
        ({"form": {"t": "{text}", "i": "{id}"}}, "form", "names nobody"),
        ({"form": {"t": {"a": "b"}}}, "form.t", "should be a text"),
        ({"json": ["{phone}"], "form": {}}, "form", "one should go"),
        ({"headers": {"a b": "x"}}, "headers.a b", "no name of a header"),
        ({"headers": {"Content-Length": "5"}}, "headers.Content-Length", "made by the service"),
        ({"headers": {"X": "a\nb"}}, "headers.X", "control characters"),
        ({"url": "https://{secret.a}.host/"}, "url", "before its path"),
        ({"url": "https://host/{title}"}, "url", ""),
    ],
)
def test_what_cannot_work_is_told_with_its_key(keys: dict[str, Any], key: str, what: str) -> None:
    if keys == {"url": "https://host/{title}"}:
        keys = {**keys, "method": "GET"}
    with pytest.raises(DescriptionError) as raised:
        compiled(**keys)
    assert raised.value.key == key
    assert what in str(raised.value)


def test_a_client_needs_what_the_endpoint_requires() -> None:
    form = compiled(json=["{attributes.email}"], requires=["email", "lang"])
    assert form.has_address({"email": "a@b", "lang": "en"})
    assert not form.has_address({"email": "a@b", "lang": ""})
    assert not form.has_address({})
