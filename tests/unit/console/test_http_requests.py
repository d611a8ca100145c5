"""What becomes of the path, the query and the body of an HTTP request, and which sentence a bad one gets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from server.console.http_api.bindings import Routes, bindings
from server.console.http_api.requests import BadField, request_of

ROUTES = Routes()


def read(line: str, body: object = None) -> dict[str, Any]:
    """Return the request of a line such as `GET /v1/clients/27?x=y`, with names as the protos have them."""
    verb, _, address = line.partition(" ")
    path, _, query = address.partition("?")
    binding, in_path = ROUTES.at(path)[verb]
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return MessageToDict(request_of(binding, in_path, query, data), preserving_proto_field_name=True)


@pytest.mark.parametrize(
    ("line", "body", "request_"),
    [
        ("GET /v1/clients/27", None, {"client_id": "27"}),
        ("GET /v1/clients?page_size=5&receivingNow=true", None, {"page_size": 5, "receiving_now": True}),
        ("GET /v1/clients?filter.tags=a&filter.tags=b%26c", None, {"filter": {"tags": ["a", "b&c"]}}),
        ("GET /v1/mailings?states=STATE_RUNNING", None, {"states": ["STATE_RUNNING"]}),
        ("GET /v1/mailings/1:watch?minInterval=1.5s", None, {"mailing_id": "1", "min_interval": "1.500s"}),
        ("DELETE /v1/clients/27?etag=x", None, {"client_id": "27", "etag": "x"}),
        ("POST /v1/clients?requestId=u", {"tag": "a"}, {"client": {"tag": "a"}, "request_id": "u"}),
        ("PATCH /v1/clients/27", {"operatorCode": "916"}, {"client": {"id": "27", "operator_code": "916"}}),
        ("PATCH /v1/clients/27", {"id": "27"}, {"client": {"id": "27"}}),
        ("POST /v1/clients:get", {"phone": "79161234567"}, {"phone": "79161234567"}),
        ("POST /v1/dispatch:pause", None, {}),
        ("POST /v1/webhooks/my%20shop:test", {}, {"webhook": "my%20shop"}),
    ],
)
def test_a_request_is_read(line: str, body: object, request_: dict[str, Any]) -> None:
    assert read(line, body) == request_


@pytest.mark.parametrize(
    ("mask", "paths"),
    [
        ("receiveWindow.start,tag", "receiveWindow.start,tag"),
        ("receive_window.start, tag", "receiveWindow.start,tag"),
        ("attributes.city", "attributes.city"),
        ("*", "*"),
    ],
)
def test_a_mask_is_read_in_either_spelling(mask: str, paths: str) -> None:
    assert read(f"PATCH /v1/clients/27?updateMask={mask}", {"tag": "a"})["update_mask"] == paths


def test_the_name_of_an_attribute_in_a_mask_stays_as_it_is() -> None:
    """Fails where masks are left to protobuf's JSON, which makes `first_name` of it."""
    (binding,) = (one for one in bindings() if one.template == "/v1/clients:update")
    body = json.dumps({"client": {"id": 1}, "updateMask": "attributes.firstName"}).encode()
    assert list(request_of(binding, {}, "", body).update_mask.paths) == ["attributes.firstName"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("line", "body", "refusal"),
    [
        ("GET /v1/clients?phone=79161234567", None, "phone: A phone does not belong into an address"),
        ("GET /v1/clients?filter.phonePrefixes=7916", None, "filter.phonePrefixes: A phone does not belong"),
        ("GET /v1/clients?filterText=PHONE%3D7", None, "filterText: A phone does not belong"),
        ("PATCH /v1/clients/1?phone=7", {}, "phone: A phone does not belong"),
        ("GET /v1/clients?colour=red", None, "colour: is no parameter of this path. It has filter."),
        ("GET /v1/clients?page_size=many", None, "page_size: "),
        ("GET /v1/clients?page_size=1&pageSize=2", None, "page_size: stands twice."),
        ("GET /v1/clients?receiving_now=perhaps", None, "receiving_now: should be true or false."),
        ("GET /v1/clients?page_token=%ff", None, "The query is not UTF-8"),
        ("GET /v1/clients?" + "&" * 2000, None, "The query is not UTF-8, or has more than 2,000 parameters"),
        ("GET /v1/clients/27", {"x": 1}, "A GET of this path takes no body."),
        ("GET /v1/clients/9999999999999999999", None, "client_id: is larger than any id."),
        ("POST /v1/clients", b"{", "The body is not JSON: expecting property name"),
        ("POST /v1/clients", b"\xff", "The body is not UTF-8."),
        ("POST /v1/clients", [1], "The body should be a JSON object."),
        ("POST /v1/clients", b'{"tag": "a", "tag": "b"}', "tag: stands twice in one object."),
        ("POST /v1/clients", b'{"tag": NaN}', "The body is not JSON: NaN"),
        ("POST /v1/clients", b'{"id": ' + b"9" * 5000 + b"}", "The body has a number or a depth"),
        ("POST /v1/clients", b'{"a":' * 100_000, "The body has a number or a depth"),
        ("POST /v1/clients", {"phone": 7}, "client.phone: expected string"),
        ("POST /v1/clients", {"nope": 7}, "client.nope: is no field of this request."),
        ("POST /v1/clients", {"receiveWindow": {"start": {"x": 1}}}, "client.receive_window.start.x: is no field"),
        ("POST /v1/clients", {"receiveWindow": 5}, "client.receive_window: "),
        ("POST /v1/clients", {"optedOut": "yes"}, "client.opted_out: Expected true or false"),
        ("PATCH /v1/clients/27", {"id": 28}, "client.id: differs between the path and the body."),
        ("POST /v1/clients:update", {"updateMask": {"paths": ["a"]}}, "update_mask: should be one text"),
        ("POST /v1/segments:preview", {"filter": {"anyOf": "x"}}, "filter: repeated field anyOf must be in []"),
    ],
)
def test_a_bad_request_gets_a_sentence_that_names_the_field(line: str, body: object, refusal: str) -> None:
    with pytest.raises(BadField) as caught:
        read(line, body)
    assert str(caught.value).startswith(refusal)
    assert len(str(caught.value)) < 700


def test_deep_nesting_of_messages_is_a_sentence() -> None:
    document: dict[str, Any] = {}
    for _ in range(90):
        document = {"anyOf": [document]}
    with pytest.raises(BadField):
        read("POST /v1/clients:list", {"filter": document})


@pytest.mark.parametrize("path", ["/v1/clients/x", "/v1/clients/-1", "/v1/clients/1/", "/v1/clients/٣", "/v1/nothing"])
def test_ids_in_paths_are_digits(path: str) -> None:
    assert ROUTES.at(path) == {}


def test_no_query_takes_a_phone() -> None:
    assert [path for one in bindings() for path in one.in_query() if "phone" in path] == []


def test_every_method_that_takes_a_phone_can_be_called_by_post() -> None:
    taking = {
        one.method.name for one in bindings() if any("phone" in field.name for field in one.method.input_type.fields)
    }
    assert taking == {one.method.name for one in bindings() if one.method.name in taking and one.verb == "POST"}
