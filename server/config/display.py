"""Settings for display: the table of all of them, and the values in force with secrets masked."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import SecretStr

from server.config.settings import Settings, default_of, is_secret, variables_of
from server.config.sources import Loaded

MASK = "***"


def settings_table() -> str:
    """Return all settings as a Markdown table for the documents."""
    rows = ["| Variable | Default | Meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        variable, *older = variables_of(name)
        also = f" Older name: {', '.join(f'`{other}`' for other in older)}." if older else ""
        rows.append(f"| `{variable}` | {default_of(name)} | {field.description}{also} |")
    return "\n".join(rows) + "\n"


def rows_in_force(loaded: Loaded) -> list[dict[str, str | int | float | bool | None]]:
    """Return name, variable, value and source of every setting; secrets are masked."""
    return [
        {
            "name": name,
            "variable": variables_of(name)[0],
            "value": _shown(name, getattr(loaded.settings, name)),
            "from": loaded.places.get(name, "default"),
        }
        for name in Settings.model_fields
    ]


def settings_in_force(settings: Settings) -> list[tuple[str, str, bool]]:
    """Return variable and value of every setting, secrets masked, and whether it was set, in order of the names."""
    shown = [
        (variables_of(name)[0], _shown(name, getattr(settings, name)), name in settings.model_fields_set)
        for name in Settings.model_fields
    ]
    return sorted((name, "" if value is None else _words(value), is_set) for name, value, is_set in shown)


def masked(dsn: str) -> str:
    """Return a DSN without its passwords."""
    without = re.sub(r"(?<=://)([^:/?#@]*):.*@", r"\1:***@", dsn)
    return re.sub(r"(?<=[?&])((?:ssl)?password=)[^&]*", r"\1***", without)


def _shown(name: str, value: object) -> str | int | float | bool | None:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, SecretStr):
        secret = value.get_secret_value()
        return masked(secret) if name == "dsn" else MASK if secret else None
    if is_secret(name):
        return MASK
    text = str(value) if isinstance(value, str | Path) else ", ".join(map(str, value))  # type: ignore[call-overload]
    return _without_query(text)


def _words(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _without_query(text: str) -> str:
    """Return a URL without the values of its query, which may contain a key; other texts as they are."""
    return re.sub(r"(?<=[?&])([^=&]*=)[^&]+", rf"\1{MASK}", text) if "://" in text else text
