"""openapi.json is valid, is what the protos say, and describes each path that is served."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV30SpecValidator

from docs.api import File, read_protos
from docs.openapi import PAGE, document, text_of
from server.console.http_api.bindings import bindings

TEXT = PAGE.read_text(encoding="utf-8")
DOCUMENT: dict[str, Any] = json.loads(TEXT)
OPERATIONS = [(verb, path, one) for path, verbs in DOCUMENT["paths"].items() for verb, one in verbs.items()]

GOOGLES = ("Status", "ErrorInfo", "BadRequest", "RetryInfo", "LocalizedMessage")


@pytest.fixture(scope="module")
def files() -> list[File]:
    return read_protos()


def test_the_file_is_what_the_protos_say(files: list[File]) -> None:
    assert text_of(document(files)) == TEXT, "run `make docs`"


def test_the_file_is_valid() -> None:
    assert [str(error) for error in OpenAPIV30SpecValidator(DOCUMENT).iter_errors()] == []


def test_a_change_of_a_comment_changes_the_file(files: list[File]) -> None:
    place = next(path for path in files[-1].comments if len(path) == 2 and files[-1].comments[path])
    changed: Any = {**files[-1].comments, place: "Another one."}
    assert text_of(document([*files[:-1], files[-1]._replace(comments=changed)])) != TEXT


def test_each_path_that_is_served_is_described() -> None:
    served = {(one.verb.lower(), re.sub(r"\{.+?\}", "{}", one.template)) for one in bindings()}
    assert {(verb, re.sub(r"\{.+?\}", "{}", path)) for verb, path, _ in OPERATIONS} == served


def test_everything_has_a_description() -> None:
    without = [
        f"{name}.{field}"
        for name, one in DOCUMENT["components"]["schemas"].items()
        for field, shape in one.get("properties", {}).items()
        if not shape.get("description") and not name.startswith(GOOGLES)
    ]
    assert without == []
    assert [one["operationId"] for _, _, one in OPERATIONS if not one["summary"] or not one["description"]] == []


def test_ids_are_text_and_paths_take_digits() -> None:
    """Scripts count to 2^53, ids do not stop there."""
    shapes = DOCUMENT["components"]["schemas"]
    assert shapes["Client"]["properties"]["id"]["type"] == "string"
    numbers = [one["schema"] for _, _, each in OPERATIONS for one in each["parameters"] if one["name"].endswith("Id")]
    assert all(one["type"] == "string" for one in numbers)
    assert {"type": "string", "pattern": "^[0-9]+$"} in numbers


def test_no_phone_is_a_parameter() -> None:
    assert [
        one["name"] for _, _, each in OPERATIONS for one in each["parameters"] if "phone" in one["name"].lower()
    ] == []


def test_only_what_every_caller_sends_is_required() -> None:
    """An update sends a part of a resource, so that a resource by itself needs nothing."""
    assert "required" not in DOCUMENT["components"]["schemas"]["Client"]
    body = DOCUMENT["paths"]["/v1/clients"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["allOf"][1] == {"required": ["phone", "timezone"]}
