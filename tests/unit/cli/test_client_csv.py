"""The CSV format: what is read, what is refused and where it says the fault is, and that it round-trips."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailing import FieldViolation, new_client, new_window
from mailing.client_columns import ColumnMap
from mailing.client_csv import ClientReader, CsvError, open_csv, text_of, write_clients
from mailing.phones import Country
from mailing.v1.client_pb2 import Client, ReceiveWindow


def read(text: str) -> list[Client]:
    return list(ClientReader(io.StringIO(text, newline=""), "clients.csv"))


def refusal(text: str) -> str:
    with pytest.raises(CsvError) as raised:
        read(text)
    return str(raised.value)


def test_every_column_is_read() -> None:
    text = (
        "attributes.name,phone,operator_code,tag,timezone,window_start,window_end,opted_out\n"
        "Anna,70100000001,010,news,Europe/Moscow,09:00,21:00,true\n"
        '"Lee, ""A""",70100000002,,,UTC,,,\n'
    )
    assert read(text) == [
        new_client(
            "70100000001",
            "Europe/Moscow",
            operator_code="010",
            tag="news",
            window=("09:00", "21:00"),
            attributes={"name": "Anna"},
            opted_out=True,
        ),
        new_client("70100000002", "UTC", attributes={"name": 'Lee, "A"'}),
    ]


def test_an_empty_cell_is_an_attribute_the_client_does_not_have() -> None:
    assert dict(read("phone,timezone,attributes.name\n70100000001,UTC,\n")[0].attributes) == {}


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ("", "empty, where a header with at least phone and timezone is needed"),
        ("phone,timezone,colour,shoe size", "unknown column 'colour', 'shoe size'; known are phone,"),
        ("phone|timezone", "unknown column 'phone|timezone'"),
        ("phone;timezone;Phone", "column phone occurs twice"),
        ("Phone;First name;Time zone", "unknown column 'First name'; known are phone,"),
        ("phone,timezone,attributes.", "unknown column 'attributes.'"),
        ("phone,timezone,", "unknown column ''"),
        ("phone,tag", "column timezone is missing"),
        ("tag", "column phone and timezone is missing"),
        ("phone,timezone,phone", "column phone occurs twice"),
    ],
)
def test_a_wrong_header_is_refused_by_column(header: str, complaint: str) -> None:
    assert complaint in refusal(header)


@pytest.mark.parametrize(
    ("row", "place"),
    [
        ("70100000002,UTC,25:00,21:00", "row 2 (line 3), column window_start: '25:00' is not a time of day"),
        ("70100000002,UTC,09:00,late", "row 2 (line 3), column window_end: 'late' is not a time of day"),
        ("70100000002,UTC,09:00,", "row 2 (line 3), column window_end: needed"),
        ("70100000002,UTC,,09:00", "row 2 (line 3), column window_start: needed"),
        ("70100000002,UTC", "row 2 (line 3), column window_start: 2 cells where the header has 4"),
        ("70100000002,UTC,,,news", "row 2 (line 3): 5 cells where the header has 4"),
    ],
)
def test_a_bad_cell_is_named_by_row_and_column(row: str, place: str) -> None:
    text = f"phone,timezone,window_start,window_end\n70100000001,UTC,09:00,21:00\n{row}\n70100000003,UTC,,\n"
    assert refusal(text).startswith(f"clients.csv, {place}")


def test_a_flag_that_is_neither_true_nor_false_is_refused() -> None:
    assert read("phone,timezone,opted_out\n1234567,UTC,TRUE\n")[0].opted_out
    assert "column opted_out: 'maybe'" in refusal("phone,timezone,opted_out\n1234567,UTC,maybe\n")


def test_what_is_no_csv_is_refused_by_line() -> None:
    assert refusal('phone,timezone\n70100000001,"UTC\n').startswith("clients.csv, line 2: ")
    assert refusal('phone,timezone\n70100000001,"UTC"x\n').startswith("clients.csv, line 2: ")


def test_a_file_that_is_not_utf_8_is_refused() -> None:
    reader = ClientReader(text_of(io.BytesIO("phone,timezone,tag\n1234567,UTC,é\n".encode("latin-1"))), "clients.csv")
    with pytest.raises(CsvError, match="not UTF-8"):
        list(reader)


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path: Path) -> None:
    path = tmp_path / "clients.csv"
    path.write_bytes(b"\xef\xbb\xbfphone,timezone\r\n1234567,UTC\r\n")
    with open_csv(str(path)) as lines:
        assert [one.phone for one in ClientReader(lines, "clients.csv")] == ["1234567"]


def test_rows_are_found_behind_empty_lines_and_line_breaks_in_quotes() -> None:
    text = 'phone,timezone,tag\n1000001,UTC,\n\n\n1000002,UTC,"two\nlines"\n1000003,UTC,"a\nb\nc"\n1000004,UTC,\n'
    reader = ClientReader(io.StringIO(text, newline=""), "clients.csv")
    phones = [one.phone for one in reader]
    lines = text.split("\n")
    assert len(phones) == reader.rows == 4
    for index, phone in enumerate(phones):
        row, line = reader.position(index)
        assert row == index + 1
        assert lines[line - 1].startswith(phone)


@pytest.mark.parametrize(
    ("field", "place"),
    [
        ("clients[1].timezone", "row 2 (line 3), column timezone: x"),
        ("clients[0].receive_window.duration", "row 1 (line 2), column window_end: x"),
        ("clients[0].receive_window.start", "row 1 (line 2), column window_start: x"),
        ("clients[0].receive_window", "row 1 (line 2), column window_start: x"),
        ("clients[0].attributes.name", "row 1 (line 2), column attributes.name: x"),
        ("clients[0].attributes", "row 1 (line 2), column attributes: x"),
        ("clients[0]", "row 1 (line 2): x"),
    ],
)
def test_a_complaint_of_the_service_is_told_by_row_and_column(field: str, place: str) -> None:
    reader = ClientReader(io.StringIO("phone,timezone\n1000001,UTC\n1000002,UTC\n"), "clients.csv")
    list(reader)
    assert [*reader.explain([FieldViolation(field, "x")]).values()] == [place]


def test_a_complaint_about_anything_else_is_not_about_the_file() -> None:
    assert ClientReader([], "clients.csv").explain([FieldViolation("page_size", "x")]) == {}


def test_windows_are_shared_but_not_kept_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def make(start: str, end: str) -> ReceiveWindow:
        made.append(start[-2:])
        return new_window(start, end)

    monkeypatch.setattr("mailing.client_csv.CACHED_WINDOWS", 3)
    monkeypatch.setattr("mailing.client_csv.new_window", make)
    minutes = [1, 2, 3, 3, 2, 1, 4, 1, 4]
    rows = "".join(f"1000001,UTC,08:{minute:02},09:00\n" for minute in minutes)
    read_ones = read("phone,timezone,window_start,window_end\n" + rows)
    assert [one.receive_window.start.minutes for one in read_ones] == minutes
    assert made == ["01", "02", "03", "04", "01"]


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
clients = st.builds(
    new_client,
    phone=st.from_regex(r"[1-9][0-9]{6,14}", fullmatch=True),
    timezone=st.sampled_from(["UTC", "Europe/Moscow"]),
    operator_code=st.sampled_from(["", "010"]),
    tag=cells,
    window=st.one_of(st.none(), st.tuples(st.sampled_from(["00:00", "22:30:15"]), st.sampled_from(["00:00", "6:00"]))),
    attributes=st.dictionaries(st.sampled_from(["name", "city", "имя"]), cells.filter(bool)),
    opted_out=st.booleans(),
)


def test_a_phone_that_looks_national_is_written_with_a_plus() -> None:
    """Fails when a file that was exported is refused by the import."""
    out = io.StringIO()
    write_clients([new_client("89000000000", "UTC")], out)
    assert "\n+89000000000," in out.getvalue()


@given(st.lists(clients, max_size=5))
def test_what_was_written_reads_the_same(some: list[Client]) -> None:
    out = io.StringIO(newline="")
    assert write_clients(some, out) == len(some)
    assert read(out.getvalue()) == some


def read_bytes(data: bytes, encoding: str | None = None, **options: Any) -> list[Client]:
    return list(ClientReader(text_of(io.BytesIO(data), encoding), "clients.csv", **options))


TABLE = "phone;timezone;tag\n79160000004;Europe/Moscow;новости\n"
ROW = new_client("79160000004", "Europe/Moscow", tag="новости")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1251"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_are_read_as_people_export_them(encoding: str, separator: str) -> None:
    assert read_bytes(TABLE.replace(";", separator).encode(encoding)) == [ROW]


def test_a_separator_inside_quotes_is_none() -> None:
    assert read('"phone",timezone,"tag"\n1000001,UTC,"a;b;c;d"\n')[0].tag == "a;b;c;d"


def test_another_encoding_is_to_be_named() -> None:
    with pytest.raises(CsvError, match="not UTF-8; name its encoding"):
        read_bytes("phone,timezone,tag\n1,UTC,Zoë\n".encode("latin-1"))


def test_an_encoding_that_is_given_is_used() -> None:
    assert read_bytes(TABLE.encode("cp1251"), "cp1251") == [ROW]


@pytest.mark.parametrize(
    ("written", "digits"),
    [
        ("+7 (916) 000-00-01", "79160000001"),
        ("7.916.000.00.01", "79160000001"),
        ("+7\u00a0916\u2011000\u201100\u201101", "79160000001"),
        ("0049 170 1234567", "491701234567"),
        (" 79160000001 ", "79160000001"),
        ("somebody", "somebody"),
    ],
)
def test_phones_are_read_as_people_write_them(written: str, digits: str) -> None:
    assert read(f"phone,timezone\n{written},UTC\n")[0].phone == digits


@pytest.mark.parametrize("written", ["8 916 000-00-02", "89160000002", "(8916) 000 00 02"])
def test_a_national_number_needs_a_country(written: str) -> None:
    table = f"phone,timezone\n{written},UTC\n"
    complaint = "row 1 (line 2), column phone: is a national number, since it begins with 89: write it with +"
    assert complaint in refusal(table)
    reader = ClientReader(io.StringIO(table), "clients.csv", country=Country("RU"))
    assert [one.phone for one in reader] == ["79160000002"]


def test_headings_are_read_whatever_their_case_and_spaces() -> None:
    table = "\ufeffPhone;First name;City;Time zone;Opted-Out\r\n+7 (916) 000-00-01;Анна;Москва;Europe/Moscow;\r\n"
    reader = ClientReader(
        io.StringIO(table.removeprefix("\ufeff"), newline=""), "clients.csv", ColumnMap(other_columns=True)
    )
    assert reader.fields() == ["phone", "attributes.first_name", "attributes.city", "timezone", "opted_out"]
    (one,) = reader
    assert (one.phone, dict(one.attributes)) == ("79160000001", {"first_name": "Анна", "city": "Москва"})
    assert not one.HasField("opted_out")


def test_every_bad_row_is_reported_and_counted() -> None:
    rows = [f"7916{n:07},UTC,{'maybe' if n % 3 == 0 else 'true'}" for n in range(3600)]
    with pytest.raises(CsvError) as raised:
        read("phone,timezone,opted_out\n" + "\n".join(rows) + "\n")
    assert (raised.value.bad_rows, len(raised.value.complaints)) == (1200, 1000)
    assert raised.value.complaints[1] == "row 4 (line 5), column opted_out: 'maybe' is neither true nor false"
    assert str(raised.value).endswith("; and 1,180 more bad rows")


def test_long_cells_are_read_and_endless_ones_are_not() -> None:
    assert len(read(f"phone,timezone,tag\n1000001,UTC,{'x' * 200_000}\n")[0].tag) == 200_000
    assert "is a quote not closed before it?" in refusal(f'phone,timezone,tag\n1000001,UTC,"{"x" * 1_100_000}\n')
