"""The CSV format: what is read, what is refused and where it says the fault is, and that it round-trips."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailing import FieldViolation, new_client, new_window
from mailing.client_csv import ClientReader, CsvError, open_csv, text_of, write_clients
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
        ("phone;timezone", "unknown column 'phone;timezone'"),
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
    assert reader.explain([FieldViolation(field, "x")]) == [place]


def test_a_complaint_about_anything_else_is_not_about_the_file() -> None:
    assert ClientReader([], "clients.csv").explain([FieldViolation("page_size", "x")]) == []


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


@given(st.lists(clients, max_size=5))
def test_what_was_written_reads_the_same(some: list[Client]) -> None:
    out = io.StringIO(newline="")
    assert write_clients(some, out) == len(some)
    assert read(out.getvalue()) == some
