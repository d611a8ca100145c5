"""How the service logs: one line per entry on standard error, for people or for programs, and into a file.

The product's modules and all libraries use the standard `logging`; structlog renders
whatever they say. Standard output is left alone.
"""

from __future__ import annotations

import logging
import signal
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from server.observability.redaction import Redaction

LEVELS = ("debug", "info", "warning", "error")
"""From the most to the least that is logged."""

LEVEL_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)
"""The first one makes the log of a running process tell one level more, the second one less."""

FILE_BYTES = 20_000_000
FILES_KEPT = 5
"""How large the log file grows, and how many older ones are kept beside it."""

_CHATTY = ("asyncio", "grpc", "httpx", "httpcore", "hpack")
"""Libraries whose debug and info entries tell of every single request."""


def configure_logs(level: str = "info", form: str = "auto", file: Path | None = None) -> None:
    """Send all entries of at least `level` to standard error, in place of what was configured before.

    `form` is console, json, or auto: console on a terminal, JSON otherwise. `file` gets them,
    too, always as JSON, and is rotated; one that cannot be written any more stops nothing.
    """
    people = form == "console" or (form == "auto" and sys.stderr.isatty())
    root = logging.getLogger()
    root.handlers[:] = [_formatted(logging.StreamHandler(sys.stderr), people)]
    if file is not None:
        rotating = RotatingFileHandler(file, maxBytes=FILE_BYTES, backupCount=FILES_KEPT, encoding="utf-8", delay=True)
        root.addHandler(_formatted(rotating, people=False))
    _set_level(level)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *_common(people), _wrap],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def shift_level(steps: int) -> None:
    """Log more by so many levels, or less by as many if negative, and say so whatever the level."""
    level = LEVELS[min(max(LEVELS.index(present_level()) - steps, 0), len(LEVELS) - 1)]
    _set_level(level)
    logging.getLogger(__name__).log(max(logging.getLogger().level, logging.INFO), "the log level is %s", level)


def present_level() -> str:
    """Return the least grave level that is logged now."""
    return logging.getLevelName(logging.getLogger().level).lower()


def _set_level(level: str) -> None:
    root = logging.getLogger()
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _formatted(handler: logging.Handler, people: bool) -> logging.Handler:
    handler.addFilter(Redaction())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_common(people),
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(people)],
        )
    )
    return handler


_wrap = structlog.stdlib.ProcessorFormatter.wrap_for_formatter


def _common(people: bool) -> list[Processor]:
    """Return what every entry gets, whoever wrote it."""
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if people else "iso", utc=not people),
        structlog.processors.StackInfoRenderer(),
    ]


def _renderers(people: bool) -> list[Processor]:
    if people:
        # The plain form: the other one shows local variables, and those hold tokens and phones.
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    return [structlog.processors.format_exc_info, _named, structlog.processors.JSONRenderer(ensure_ascii=False)]


def _named(_: WrappedLogger, __: str, entry: EventDict) -> EventDict:
    """Return the usual names in the usual order, then the rest."""
    first = {"timestamp": entry.pop("timestamp"), "level": entry.pop("level"), "logger": entry.pop("logger", None)}
    return {**first, "message": entry.pop("event"), **entry}
