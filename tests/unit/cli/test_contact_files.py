"""Contact files as other programs write them: their columns, their kinds, and every bad row reported."""

from __future__ import annotations

import io
from typing import Any

import pytest

from mailing import FieldViolation
from mailing.client_columns import PRESETS, ColumnMap
from mailing.client_csv import ClientReader, CsvError, rows_of, text_of
from mailing.phones import Country
from mailing.v1.client_pb2 import Client
from tests.unit.cli.conftest import Run


def reader(text: str, columns: ColumnMap | None = None, **options: Any) -> ClientReader:
    return ClientReader(io.StringIO(text, newline=""), "clients.csv", columns, **options)


def facts(client: Client) -> tuple[str, str, dict[str, str]]:
    return client.phone, client.timezone, dict(client.attributes)


EXPORTS = {
    "google": (
        "First Name,Last Name,Notes,E-mail 1 - Value,Phone 1 - Label,Phone 1 - Value\n"
        'Ann,Lee,"a, b",ann@example.com,Mobile,+7 916 123-45-67 ::: +7 916 765-43-21\n',
        {"first_name": "Ann", "last_name": "Lee", "email": "ann@example.com"},
    ),
    "outlook": (
        "First Name,Last Name,E-mail Address,Home Phone,Mobile Phone\nAnn,Lee,,8 495 123-45-67,8 (916) 123-45-67\n",
        {"first_name": "Ann", "last_name": "Lee"},
    ),
    "mailchimp": (
        "Email Address,First Name,Last Name,Phone Number,TAGS,MEMBER_RATING\n"
        'ann@example.com,Ann,Lee,89161234567,"""vip""",2\n',
        {"first_name": "Ann", "last_name": "Lee", "email": "ann@example.com"},
    ),
    "hubspot": (
        "Record ID,First Name,Last Name,Email,Phone Number,Mobile Phone Number\n"
        "1,Ann,Lee,,8 495 1234567,+79161234567\n",
        {"first_name": "Ann", "last_name": "Lee"},
    ),
    "listmonk": (
        "uuid,email,name,attributes,status,created_at,updated_at\n"
        'x,ann@example.com,Ann,"{""phone"": ""+79161234567"", ""city"": ""Omsk"", ""age"": 30}",enabled,a,b\n',
        {"name": "Ann", "email": "ann@example.com", "city": "Omsk", "age": "30"},
    ),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_the_exports_of_others_are_read_as_they_are(preset: str) -> None:
    text, attributes = EXPORTS[preset]
    table = reader(text, ColumnMap(preset=preset), country=Country("RU"), timezone="Europe/Moscow")
    assert [facts(one) for one in table] == [("79161234567", "Europe/Moscow", attributes)]


def test_a_subscriber_on_the_blocklist_has_opted_out() -> None:
    text = EXPORTS["listmonk"][0].replace("enabled", "blocklisted")
    assert [one.opted_out for one in reader(text, ColumnMap(preset="listmonk"), timezone="UTC")] == [True]


def test_what_a_file_does_not_mention_is_not_changed() -> None:
    """Fails when a time zone for clients who have none in the file is written to everybody."""
    table = reader("Mobile;City;Notes\n+79161234567;Omsk;x\n", ColumnMap(MAPPED), timezone="Asia/Omsk")
    assert table.fields() == ["phone", "attributes.city"]
    assert [facts(one) for one in table] == [("79161234567", "Asia/Omsk", {"city": "Omsk"})]


MAPPED = {"mobile": "phone", "CITY": "attributes.city", "Notes": ""}


@pytest.mark.parametrize(
    ("pairs", "preset", "sentence"),
    [
        ({"a": "phone", "b": "phone"}, "", "'a' and 'b' are both mapped onto phone"),
        ({"a": "telephone"}, "", "'telephone' is no column: there are phone,"),
        ({}, "excel", "'excel' is no known export: there are google, outlook,"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(pairs: dict[str, str], preset: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ColumnMap(pairs, preset)


def test_a_mapping_of_a_column_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(CsvError, match="has no column 'Mobile'; its columns are 'Phone', 'City'"):
        reader("Phone,City\n", ColumnMap({"Mobile": "phone"})).fields()


def test_an_unknown_column_is_told_with_what_to_do() -> None:
    with pytest.raises(CsvError, match="--map 'City=COLUMN', leave it out with --map 'City=', or import all of them"):
        reader("phone,timezone,City\n").fields()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"PK\x03\x04rest", "is an Excel workbook or another zip file: save the sheet as CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "is an old Excel workbook"),
        (b"\n<!DOCTYPE html><table>", "is a web page, and not a table"),
        (b"\x89PNG\r\n\x1a\n\0\0", "is a picture"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "is a picture"),
        (b"\x7fELF\x02\0\0\x01\x03", "is no text at all"),
    ],
)
def test_a_file_of_another_kind_is_named(data: bytes, sentence: str) -> None:
    with pytest.raises(CsvError, match=sentence):
        text_of(io.BytesIO(data), name="contacts")


def test_an_encoding_is_found_however_late_it_shows() -> None:
    """Fails when only the beginning of a file is looked at."""
    text = "phone,timezone,tag\n" + "1000001,UTC,plain\n" * 200_000 + "1000002,UTC,новости\n"
    stream = text_of(io.BytesIO(text.encode("cp1251")))
    assert stream.encoding == "cp1251"
    assert list(ClientReader(stream, "x"))[-1].tag == "новости"


def test_bad_rows_are_left_out_and_the_service_speaks_of_the_right_ones() -> None:
    """Fails when the service's positions, which count what was sent, are taken for rows."""
    text = (
        "phone,timezone,opted_out\n1000001,UTC,\n1000002,UTC,perhaps\n\n1000003,UTC,\n1000004,UTC,maybe\n1000005,UTC,\n"
    )
    table = reader(text, skip_bad=True)
    assert [one.phone for one in table] == ["1000001", "1000003", "1000005"]
    assert table.bad_rows == 2
    told = table.bad | table.explain([FieldViolation(f"clients[{index}].phone", "x") for index in range(3)])
    assert {row: sentence.partition(":")[0] for row, sentence in told.items()} == {
        1: "row 1 (line 2), column phone",
        2: "row 2 (line 3), column opted_out",
        3: "row 3 (line 5), column phone",
        4: "row 4 (line 6), column opted_out",
        5: "row 5 (line 7), column phone",
    }
    assert list(rows_of(text.splitlines(keepends=True), {2, 4})) == [
        ["phone", "timezone", "opted_out"],
        ["1000002", "UTC", "perhaps"],
        ["1000004", "UTC", "maybe"],
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--map", "Phone"), "'Phone' is not HEADING=COLUMN"),
        (("--map", "a=phone", "--map", "b=phone"), "'a' and 'b' are both mapped onto phone"),
        (("--from", "excel"), "'excel' is no known export"),
        (("--country", "Mars"), "'Mars' is no country"),
        (("--dry-run", "--skip-invalid", "x.csv"), "needs a file that is saved"),
    ],
)
def test_bad_options_are_named_before_anything_is_sent(run: Run, arguments: tuple[str, ...], sentence: str) -> None:
    status, out, err = run("clients", "import", "examples/clients.csv", *arguments)
    assert (status, out) == (2, "")
    assert sentence in err
