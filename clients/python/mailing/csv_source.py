"""Where CSV comes from: its encoding and its separator, found by looking, and other kinds of files, which are named.

Tables are read as people export them: UTF-8 with or without a byte order mark, UTF-16, windows-1251, and separated by
commas, semicolons or tabs. Any other encoding is named in one sentence, not guessed.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import BinaryIO, TextIO

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
"""Each separator, and its name."""

HEAD = 4096
"""Bytes of a file by which its kind is known."""

_BLOCK = 1 << 20
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_CYRILLIC_WORD = re.compile(r"[\u0401\u0410-\u044f\u0451]{2,}")
_NOT_ASCII = re.compile("[^\x00-\x7f]")
_KINDS = (
    (b"PK\x03\x04", "an Excel workbook or another zip file: save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook: save the sheet as CSV"),
    (b"%PDF", "a PDF document: export the table as CSV"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"\x1f\x8b", "a gzip file: unpack it first"),
)
_HTML = re.compile(rb"\s*(?:<!doctype\s+html|<html|<\?xml|<table)", re.IGNORECASE)


class CsvError(Exception):
    """A file cannot be imported; the message names row and column.

    `bad_rows` counts the rows that are bad, and `complaints` says why, for the first ones.
    """

    def __init__(self, message: str, complaints: Sequence[str] = (), bad_rows: int = 0) -> None:
        super().__init__(message)
        self.complaints = tuple(complaints)
        self.bad_rows = bad_rows


def open_csv(path: str, encoding: str | None = None) -> TextIO:
    """Open a CSV file for `ClientReader`; without an encoding the one it is written in is found.

    Raise OSError, LookupError for an encoding that does not exist, and CsvError for a file of another kind.
    """
    codecs.lookup(encoding or "utf-8")
    return text_of(open(path, "rb", buffering=1 << 16), encoding, path)


def text_of(stream: BinaryIO, encoding: str | None = None, name: str = "standard input") -> TextIO:
    """Return a binary stream, such as standard input, as text for `ClientReader`.

    Raise LookupError for no encoding, and CsvError, naming the stream, for a file of another kind.
    """
    buffered: io.BufferedReader = stream if hasattr(stream, "peek") else io.BufferedReader(stream)  # type: ignore[arg-type, assignment]
    head = buffered.peek(HEAD)[:HEAD]
    if encoding is None:
        check_kind(head, name)
        encoding = _encoding_of(buffered, head)
    return io.TextIOWrapper(buffered, encoding=encoding, newline="")


def check_kind(head: bytes, name: str) -> None:
    """Raise CsvError for the beginning of a file that is no table of text."""
    found = next((what for start, what in _KINDS if head.startswith(start)), None)
    if found is None and _HTML.match(head.removeprefix(codecs.BOM_UTF8)):
        found = "a web page, and not a table: export it as CSV"
    if found is None and b"\0" in head and not (head.startswith(_UTF16) or _bare_utf16(head)):
        found = "no text at all"
    if found is not None:
        raise CsvError(f"{name}: is {found}")


def _encoding_of(stream: io.BufferedReader, head: bytes) -> str:
    if head.startswith(_UTF16):
        return "utf-16"
    if bare := _bare_utf16(head):
        return bare
    wrong = _first_wrong(stream, head)
    return "cp1251" if wrong and _looks_like_cp1251(wrong) else "utf-8-sig"


def _bare_utf16(head: bytes) -> str | None:
    """Return which UTF-16 without a mark this is: every other byte of Latin letters and digits is a NUL."""
    zeros = head[1::2].count(0), head[::2].count(0)
    if len(head) >= 8 and max(zeros) * 4 > len(head) and min(zeros) == 0:
        return "utf-16-le" if zeros[0] > zeros[1] else "utf-16-be"
    return None


def _first_wrong(stream: io.BufferedReader, head: bytes) -> bytes:
    """Return the first part of the stream that is not UTF-8; of a pipe only its beginning is looked at."""
    if not stream.seekable():
        return _wrong(head, codecs.getincrementaldecoder("utf-8")().decode)
    start = stream.tell()
    try:
        decode = codecs.getincrementaldecoder("utf-8")().decode
        while block := stream.read(_BLOCK):
            if wrong := _wrong(block, decode):
                return wrong
        return b""
    finally:
        stream.seek(start)


def _wrong(block: bytes, decode: Callable[[bytes], str]) -> bytes:
    try:
        decode(block)
    except UnicodeDecodeError:
        return block
    return b""


def wrong_encoding(error: UnicodeError) -> str:
    """Return a sentence about bytes that are not in the encoding they were read in."""
    data = error.object if isinstance(error, UnicodeDecodeError) else b""
    if _looks_like_cp1251(data):
        return "not UTF-8; it looks like windows-1251: repeat with --encoding cp1251, or save it as UTF-8"
    return "not UTF-8; name its encoding, as in --encoding cp1252, or save it as UTF-8"


def _looks_like_cp1251(data: bytes) -> bool:
    text = data.decode("cp1251", errors="replace")
    return 2 * sum(map(len, _CYRILLIC_WORD.findall(text))) > len(_NOT_ASCII.findall(text))


def with_separator(lines: Iterable[str], known: Callable[[str], bool]) -> tuple[Iterator[str], str]:
    """Return the same lines, and the separator of their first one that is not empty.

    It is the one that makes the most headings which are `known`, else the most cells.
    """
    rest = iter(lines)
    read: list[str] = []
    for line in rest:
        read.append(line)
        if line.strip():
            break
    header = read[-1] if read else ""

    def rank(separator: str) -> tuple[int, int]:
        cells = next(csv.reader([header], delimiter=separator), [])
        return sum(map(known, cells)), len(cells)

    return chain(read, rest), max(SEPARATORS, key=rank)
