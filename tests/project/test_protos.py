"""The contract's options: HTTP paths, idempotency, behaviour of fields, packages of other languages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from google.api import annotations_pb2, field_behavior_pb2
from google.protobuf.descriptor_pb2 import MethodDescriptorProto, MethodOptions

from docs.api import File, read_protos

READING = re.compile(r"(Get|List|Export|Preview|Watch|Verify)[A-Z]")
REPEATABLE = re.compile(r"(Update|Delete|Pause|Resume|Cancel)[A-Z]")
VERBS = ("get", "post", "patch", "delete", "put")
_MESSAGE, _NESTED, _FIELD = 4, 3, 2
"""Field numbers of descriptors, of which the paths to comments are made."""


class Field(NamedTuple):
    name: str
    comment: str
    behaviours: tuple[int, ...]


@pytest.fixture(scope="module")
def files() -> list[File]:
    return read_protos()


@pytest.fixture(scope="module")
def methods(files: list[File]) -> list[MethodDescriptorProto]:
    return [method for file in files for service in file.proto.service for method in service.method]


@pytest.fixture(scope="module")
def fields(files: list[File]) -> list[Field]:
    return [
        field
        for file in files
        for number, message in enumerate(file.proto.message_type)
        for field in fields_of(file, message, (_MESSAGE, number))
    ]


def fields_of(file: File, message: Any, path: tuple[int, ...]) -> Iterator[Field]:
    for number, field in enumerate(message.field):
        comment = " ".join(file.comments.get((*path, _FIELD, number), "").split())
        behaviours = field.options.Extensions[field_behavior_pb2.field_behavior]
        yield Field(f"{message.name}.{field.name}", comment, tuple(behaviours))
    for number, nested in enumerate(message.nested_type):
        yield from fields_of(file, nested, (*path, _NESTED, number))


def bindings(method: MethodDescriptorProto) -> list[tuple[str, str]]:
    """Return the method's HTTP bindings: verb and path."""
    if not method.options.HasExtension(annotations_pb2.http):
        return []
    rule = method.options.Extensions[annotations_pb2.http]
    return [
        (verb, getattr(one, verb)) for one in (rule, *rule.additional_bindings) for verb in VERBS if getattr(one, verb)
    ]


def idempotency(name: str) -> int:
    if READING.match(name):
        return MethodOptions.NO_SIDE_EFFECTS
    return MethodOptions.IDEMPOTENT if REPEATABLE.match(name) else MethodOptions.IDEMPOTENCY_UNKNOWN


def test_every_method_has_http_but_one_that_takes_a_stream(methods: list[MethodDescriptorProto]) -> None:
    assert [method.name for method in methods if not bindings(method)] == ["ImportClients"]


def test_no_two_methods_share_an_http_path(methods: list[MethodDescriptorProto]) -> None:
    counts = Counter(binding for method in methods for binding in bindings(method))
    assert [binding for binding, count in counts.items() if count > 1] == []


def test_no_http_path_has_a_phone(methods: list[MethodDescriptorProto]) -> None:
    """Paths end in the logs of proxies."""
    assert [path for method in methods for _, path in bindings(method) if "phone" in path] == []


def test_the_name_of_a_method_tells_its_idempotency(methods: list[MethodDescriptorProto]) -> None:
    levels = {method.name: method.options.idempotency_level for method in methods}
    assert levels == {name: idempotency(name) for name in levels}


def test_a_get_has_no_side_effects(methods: list[MethodDescriptorProto]) -> None:
    """Fails for a GET of a method that changes something: browsers and proxies repeat those."""
    changing = [method for method in methods if not READING.match(method.name)]
    assert [path for method in changing for verb, path in bindings(method) if verb == "get"] == []


@pytest.mark.parametrize(
    ("words", "behaviour"),
    [
        ("Required.", field_behavior_pb2.REQUIRED),
        ("Output only.", field_behavior_pb2.OUTPUT_ONLY),
        ("Input only.", field_behavior_pb2.INPUT_ONLY),
    ],
)
def test_the_comment_of_a_field_says_how_it_behaves(fields: list[Field], words: str, behaviour: int) -> None:
    """The ids that updates read say "Output only." too, and are identifiers."""
    said = {one.name for one in fields if one.comment.startswith(words)}
    identifiers = {one.name for one in fields if field_behavior_pb2.IDENTIFIER in one.behaviours}
    assert said - identifiers == {one.name for one in fields if behaviour in one.behaviours}


def test_every_file_names_the_packages_of_other_languages(files: list[File]) -> None:
    names = set()
    for file in files:
        options, stem = file.proto.options, file.proto.name.rpartition("/")[2].removesuffix(".proto")
        assert options.java_outer_classname == "".join(word.capitalize() for word in stem.split("_")) + "Proto"
        assert options.java_multiple_files
        assert options.php_metadata_namespace == f"{options.php_namespace}\\Metadata"
        names.add(
            (
                options.go_package,
                options.java_package,
                options.csharp_namespace,
                options.php_namespace,
                options.ruby_package,
            )
        )
    assert names == {
        (
            "example.com/mailing/clients/go/gen/mailing/v1;mailingv1",
            "com.example.mailing.v1",
            "MailingApi.V1",
            "Mailing\\V1",
            "Mailing::V1",
        )
    }
