"""Keeps what the database says of rows out of the logs: phones, attributes and texts are in it.

Postgres names values in the details of an error ("Failing row contains …") and, where a value
cannot be read, in its message; asyncpg names arguments it cannot send. Where in the code and
in the SQL something failed stays.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

_ARGUMENT = re.compile(r"(invalid input for query argument \$\d+).*", re.DOTALL)
_DATA_EXCEPTION = "22"
"""SQLSTATEs of errors whose message has the value in it."""


class Redaction(logging.Filter):
    """Lets every entry pass; takes the values out of the exceptions that it shows."""

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


def _chain(error: BaseException, seen: set[int]) -> Iterator[BaseException]:
    """Yield an exception and all that a traceback shows with it, each once."""
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
    # By their attributes, since only the stores know asyncpg.
    state = getattr(error, "sqlstate", None)
    if state is not None:
        error.detail = None  # type: ignore[attr-defined]
        if state.startswith(_DATA_EXCEPTION):
            error.args = (f"a value that SQL cannot take, SQLSTATE {state}",)
    elif error.args and isinstance(error.args[0], str):
        error.args = (_ARGUMENT.sub(r"\1", error.args[0]), *error.args[1:])
