"""Where CSV comes from: its encoding, its separator, and what its headings mean.

Tables are read as people export them: UTF-8 with or without a byte order mark, UTF-16 with one, and
separated by commas, semicolons or tabs. Any other encoding is named in one sentence, not guessed.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import BinaryIO, TextIO

COLUMNS = ("phone", "operator_code", "tag", "timezone", "window_start", "window_end", "opted_out")
ATTRIBUTE_PREFIX = "attributes."

SEPARATORS = ",;\t"

_HEAD = 4096
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BY_HEADING = {column.replace("_", ""): column for column in COLUMNS}
_CYRILLIC_WORD = re.compile(r"[\u0401\u0410-\u044f\u0451]{2,}")
_NOT_ASCII = re.compile("[^\x00-\x7f]")


def open_csv(path: str, encoding: str | None = None) -> TextIO:
    """Open a CSV file for `ClientReader`; without an encoding: UTF-8, or UTF-16 with its mark.

    Raise OSError, and LookupError for an encoding that does not exist.
    """
    codecs.lookup(encoding or "utf-8")
    return text_of(open(path, "rb", buffering=1 << 16), encoding)


def text_of(stream: BinaryIO, encoding: str | None = None) -> TextIO:
    """Return a binary stream, such as standard input, as text for `ClientReader`. Raise LookupError for no encoding."""
    buffered = stream if hasattr(stream, "peek") else io.BufferedReader(stream)  # type: ignore[type-var]
    head = buffered.peek(_HEAD)[:_HEAD]
    return io.TextIOWrapper(buffered, encoding=encoding or _encoding_of(head), newline="")


def _encoding_of(head: bytes) -> str:
    return "utf-16" if head.startswith(_UTF16) else "utf-8-sig"


def wrong_encoding(error: UnicodeError) -> str:
    """Return a sentence about bytes that are not in the encoding they were read in."""
    data = error.object if isinstance(error, UnicodeDecodeError) else b""
    if _looks_like_cp1251(data):
        return "not UTF-8; it looks like windows-1251: repeat with --encoding cp1251, or save it as UTF-8"
    return "not UTF-8; name its encoding, as in --encoding cp1252, or save it as UTF-8"


def _looks_like_cp1251(data: bytes) -> bool:
    text = data.decode("cp1251", errors="replace")
    return 2 * sum(map(len, _CYRILLIC_WORD.findall(text))) > len(_NOT_ASCII.findall(text))


def looks_like_utf16(line: str) -> bool:
    """Return whether a line read as UTF-8 is UTF-16 without its mark: every other byte is a NUL."""
    return "\0" in line


def with_separator(lines: Iterable[str]) -> tuple[Iterator[str], str]:
    """Return the same lines, and the separator of their first one that is not empty."""
    rest = iter(lines)
    read: list[str] = []
    for line in rest:
        read.append(line)
        if line.strip():
            break
    return chain(read, rest), _separator_of(read[-1] if read else "")


def _separator_of(header: str) -> str:
    def rank(separator: str) -> tuple[int, int]:
        cells = next(csv.reader([header], delimiter=separator), [])
        return sum(column_of(cell) is not None for cell in cells), len(cells)

    return max(SEPARATORS, key=rank)


def column_of(heading: str) -> str | None:
    """Return the column that a heading means, whatever its case, spaces and hyphens; None for an unknown one."""
    heading = heading.strip()
    if heading.startswith(ATTRIBUTE_PREFIX) and len(heading) > len(ATTRIBUTE_PREFIX):
        return heading
    return _BY_HEADING.get(re.sub(r"[\s_-]+", "", heading).lower())


def attribute_column(heading: str) -> str | None:
    """Return the column that makes an attribute of an unknown heading, such as `attributes.first_name`."""
    name = re.sub(r"\W+", "_", heading.strip()).strip("_").lower()
    return ATTRIBUTE_PREFIX + name if 0 < len(name) <= 64 else None
