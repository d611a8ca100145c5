"""The API reference is what the protos say, and shows a call of every method that can be made."""

from __future__ import annotations

import re
from typing import Any

import pytest

from docs.api import PAGE, SERVICES, File, grpcurl, read_protos, reference
from docs.api_examples import EXAMPLES
from tests.project.test_readme import SERVICES as DESCRIPTORS
from tests.project.test_readme import check_call, shell_lines

TEXT = PAGE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def files() -> list[File]:
    return read_protos()


def test_the_page_is_what_the_protos_say(files: list[File]) -> None:
    assert reference(files) == TEXT, "run `make docs`"


def test_every_method_has_a_section_and_one_call(files: list[File]) -> None:
    methods = [
        f"{service.name}.{method.name}" for one in files for service in one.proto.service for method in service.method
    ]
    assert sorted(methods) == sorted(EXAMPLES)
    assert sorted({name.split(".")[0] for name in methods}) == sorted(SERVICES)
    assert sorted(shell_lines(TEXT, "grpcurl")) == sorted(grpcurl(*name.split(".")) for name in methods)


@pytest.mark.parametrize("line", shell_lines(TEXT, "grpcurl"), ids=lambda line: line.rpartition("/")[2])
def test_a_call_names_its_method_and_parses_into_its_request(line: str) -> None:
    """Fails for a field that is misspelled or was renamed in the protos."""
    check_call(line)
    assert len(line) < 260


def test_a_change_of_a_comment_changes_the_page(files: list[File]) -> None:
    place, comment = next((path, text) for path, text in files[-1].comments.items() if text)
    changed: Any = {**files[-1].comments, place: f"{comment} And more."}
    assert reference([*files[:-1], files[-1]._replace(comments=changed)]) != TEXT


def test_every_field_and_value_has_a_meaning() -> None:
    assert [row for row in re.findall(r"^\| .*", TEXT, re.MULTILINE) if row.rstrip("|").rstrip().endswith("|")] == []


def test_the_services_of_the_page_are_served() -> None:
    assert {f"mailing.v1.{name}" for name in SERVICES} <= set(DESCRIPTORS)
