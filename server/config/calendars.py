"""The file of holidays: calendars by name, each a list of dates. Read once at the start and checked as a whole."""

from __future__ import annotations

import tomllib
from datetime import date, datetime
from pathlib import Path
from typing import Any

from server.config.settings import ConfigError

MAX_NAME = 100


def read_calendars(path: Path) -> dict[str, list[date]]:
    """Return the dates of each calendar, ascending. Raise ConfigError with a sentence for each bad entry."""
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError([f"{path} is not a TOML file: {error}."]) from error
    problems = [problem for name, days in entries.items() for problem in _problems(path, name, days)]
    if problems:
        raise ConfigError(problems)
    return {name: sorted(set(days)) for name, days in entries.items()}


def _problems(path: Path, name: str, days: Any) -> list[str]:
    if not 0 < len(name) <= MAX_NAME:
        return [f"{path}: the name {name[:MAX_NAME]!r} of a calendar should have 1 to {MAX_NAME} characters."]
    if not isinstance(days, list):
        return [f"{path}: {name} should be a list of dates, such as [2026-12-25, 2026-12-26]."]
    wrong = [day for day in days if not isinstance(day, date) or isinstance(day, datetime)]
    return [f"{path}: {name} has {str(day)[:40]!r}, which should be a date such as 2026-12-25." for day in wrong]
