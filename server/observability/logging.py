"""Logging: one line per entry on standard error, as text or JSON, and optionally into a file.

The service's modules and all libraries use the standard `logging`; structlog renders the entries.
Nothing is written to standard output.
"""

from __future__ import annotations

import logging
import signal
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from server.observability.library_errors import LibraryErrors
from server.observability.redaction import Redaction

LEVELS = ("debug", "info", "warning", "error")
"""From the most to the fewest entries."""

LEVEL_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)
"""The first one lowers the minimum log level of a running process, the second one raises it."""

FILE_BYTES = 20_000_000
FILES_KEPT = 5
"""Maximum size of the log file, and the number of older ones that are kept."""

_VERBOSE = ("asyncio", "grpc", "httpx", "httpcore", "hpack")
"""Libraries whose debug and info entries describe every single request."""


def configure_logs(level: str = "info", form: str = "auto", file: Path | None = None) -> None:
    """Send all entries of at least `level` to standard error, replacing any earlier configuration.

    `form` is console, json, or auto: console on a terminal, JSON otherwise. `file` gets the same
    entries, always as JSON, and is rotated; failing to write to it stops nothing.
    """
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    root = logging.getLogger()
    libraries = LibraryErrors()
    root.handlers[:] = [_formatted(logging.StreamHandler(sys.stderr), console, libraries)]
    if file is not None:
        rotating = RotatingFileHandler(file, maxBytes=FILE_BYTES, backupCount=FILES_KEPT, encoding="utf-8", delay=True)
        root.addHandler(_formatted(rotating, False, libraries))
    _set_level(level)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *_common(console), _wrap],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def shift_level(steps: int) -> None:
    """Lower the minimum log level by `steps`, or raise it if negative, and log the new level in any case."""
    level = LEVELS[min(max(LEVELS.index(current_level()) - steps, 0), len(LEVELS) - 1)]
    _set_level(level)
    logging.getLogger(__name__).log(max(logging.getLogger().level, logging.INFO), "the log level is %s", level)


def current_level() -> str:
    """Return the minimum log level."""
    return logging.getLevelName(logging.getLogger().level).lower()


def _set_level(level: str) -> None:
    root = logging.getLogger()
    root.setLevel(level.upper())
    for name in _VERBOSE:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _formatted(handler: logging.Handler, console: bool, libraries: LibraryErrors) -> logging.Handler:
    handler.addFilter(Redaction())
    handler.addFilter(libraries)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_common(console),
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(console)],
        )
    )
    return handler


_wrap = structlog.stdlib.ProcessorFormatter.wrap_for_formatter


def _common(console: bool) -> list[Processor]:
    """Return the processors of every entry, including those of libraries."""
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console),
        structlog.processors.StackInfoRenderer(),
    ]


def _renderers(console: bool) -> list[Processor]:
    if console:
        # Plain tracebacks: the rich ones show local variables, which hold tokens and phones.
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    return [structlog.processors.format_exc_info, _named, structlog.processors.JSONRenderer(ensure_ascii=False)]


def _named(_: WrappedLogger, __: str, entry: EventDict) -> EventDict:
    """Return the standard keys in a fixed order, then the rest."""
    first = {"timestamp": entry.pop("timestamp"), "level": entry.pop("level"), "logger": entry.pop("logger", None)}
    return {**first, "message": entry.pop("event"), **entry}
