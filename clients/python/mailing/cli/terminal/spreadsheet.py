"""CSV for spreadsheets: cells that a spreadsheet would run as a formula get an apostrophe in front."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from datetime import UTC
from typing import IO

from google.protobuf.timestamp_pb2 import Timestamp

_STARTS = ("=", "+", "-", "@", "\t", "\r")


def write_rows(out: IO[str], header: Sequence[str], rows: Iterable[Sequence[str]], raw: bool = False) -> None:
    """Write a table; with `raw` every cell as it is."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow(row if raw else [harmless(value) for value in row])


def harmless(value: str) -> str:
    """Return a cell that no spreadsheet runs; a negative number is one."""
    return f"'{value}" if value.startswith(_STARTS) and not _is_number(value) else value


def utc(timestamp: Timestamp) -> str:
    """Return a moment in RFC 3339 to the second; '' when it is not set."""
    if not (timestamp.seconds or timestamp.nanos):
        return ""
    return timestamp.ToDatetime(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _is_number(value: str) -> bool:
    return value[1:].replace(".", "", 1).isdecimal() and value[0] in "+-"
