"""Shortens what libraries log: one sentence instead of a traceback, and the same one once a minute.

A library repeats its complaint for every connection or request, thousands of times while an endpoint
or the database is away. The tracebacks of this service's own loggers stay, and at the level debug all do.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from weakref import WeakKeyDictionary

from server.observability.redaction import without_arguments, without_raw_bytes

OWN = frozenset({"server", "dispatcher", "mailing", "root"})
"""The first part of the names of this service's loggers."""

INTERVAL = 60.0
"""Seconds between two entries that are alike."""

_MOST_KINDS = 500
_LONGEST = 500  # characters


class LibraryErrors(logging.Filter):
    """Lets the first of alike warnings and errors of a library pass, as one sentence.

    One instance may serve several handlers: all of them get the same entries.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._decided: WeakKeyDictionary[logging.LogRecord, bool] = WeakKeyDictionary()
        self._last: dict[tuple[object, ...], tuple[float, int]] = {}

    @property
    def kinds(self) -> int:
        """How many kinds of errors are remembered."""
        return len(self._last)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the entry is logged."""
        own = record.name.partition(".")[0] in OWN or not isinstance(record.msg, str)  # structlog's are no text
        if own:
            return True
        template = record.msg
        record.msg, record.args = without_raw_bytes(_message(record)), None
        if record.levelno < logging.WARNING:
            return True
        if (passed := self._decided.get(record)) is None:
            passed = self._decided[record] = self._pass(record, template)
        return passed

    def _pass(self, record: logging.LogRecord, template: str) -> bool:
        kind = (record.name, _first_line(template), record.exc_info[0] if record.exc_info else None)
        now = self._monotonic()
        at, alike = self._last.get(kind, (-INTERVAL, 0))
        if now - at < INTERVAL:
            self._last[kind] = (at, alike + 1)
            return False
        self._last.pop(kind, None)  # so that the oldest kind stands first
        self._last[kind] = (now, 0)
        if len(self._last) > _MOST_KINDS:
            del self._last[next(iter(self._last))]
        if logging.getLogger().level > logging.DEBUG:
            _shorten(record)
        if alike:
            record.msg, record.args = f"{_message(record)} ({alike:,} like it since the last one)", None
        return True


def _shorten(record: logging.LogRecord) -> None:
    """Make the entry one sentence. Only the first line: what follows quotes the exception with its values."""
    sentence = without_arguments(_first_line(_message(record)))
    if record.exc_info and (error := record.exc_info[1]) is not None:
        why = without_raw_bytes(without_arguments(" ".join(str(error).split())))
        sentence += f": {type(error).__name__}" + (f": {why}" if why and why not in sentence else "")
    record.msg, record.args, record.exc_info, record.exc_text = sentence[:_LONGEST], None, None, None


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # a library's arguments that do not fit its own text
        return str(record.msg)


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].strip()
