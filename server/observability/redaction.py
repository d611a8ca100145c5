"""Removes the values of rows from logged exceptions: they contain phones, attributes and texts.

Postgres quotes values in the details of an error ("Failing row contains …") and, where a value
cannot be parsed, in its message; asyncpg quotes arguments that it cannot encode. The place in the
code and in the SQL is still logged. What libraries log is searched for bytes and credentials as well:
gRPC quotes metadata that it cannot decode.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

_ARGUMENT = re.compile(r"(invalid input for query argument \$\d+).*", re.DOTALL)
_BYTES = re.compile(r"""\bb(['"]).*\1""", re.DOTALL)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[^\s,;'\"]+")
_DATA_EXCEPTION = "22"
"""The class of SQLSTATEs whose messages contain the value."""


class Redaction(logging.Filter):
    """Lets every entry pass, without the values in its exceptions."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True."""
        shown = list(record.args) if isinstance(record.args, tuple) else []
        if record.exc_info:
            shown.append(record.exc_info[1])
        for value in shown:
            if isinstance(value, BaseException):
                for error in _chain(value, set()):
                    _without_values(error)
        return True


def without_raw_bytes(text: str) -> str:
    """Return what a library says without the bytes and the credentials that it quotes: they are its callers'."""
    return _BEARER.sub(r"\1 …", _BYTES.sub("b'…'", text))


def without_arguments(text: str) -> str:
    """Return a message without the values of arguments that asyncpg could not encode."""
    return _ARGUMENT.sub(r"\1", text)


def _chain(error: BaseException, seen: set[int]) -> Iterator[BaseException]:
    """Yield an exception and all others in its traceback, each once."""
    if id(error) in seen:
        return
    seen.add(id(error))
    yield error
    others = [error.__cause__, error.__context__]
    others += error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    for other in others:
        if other is not None:
            yield from _chain(other, seen)


def _without_values(error: BaseException) -> None:
    # By their attributes, since only the storage imports asyncpg.
    state = getattr(error, "sqlstate", None)
    if state is not None:
        error.detail = None  # type: ignore[attr-defined]
        if state.startswith(_DATA_EXCEPTION):
            error.args = (f"a value that SQL cannot take, SQLSTATE {state}",)
    elif error.args and isinstance(error.args[0], str):
        error.args = (without_arguments(error.args[0]), *error.args[1:])
