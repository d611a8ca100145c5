"""How settings are shown: as a table of all there are, and as those in force, secrets masked."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import SecretStr

from server.config.settings import Settings, default_of, is_secret, variables_of
from server.config.sources import Loaded

MASK = "***"


def settings_table() -> str:
    """Return all settings as a Markdown table, as the documents have it."""
    rows = ["| Variable | Default | Meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        variable, *older = variables_of(name)
        also = f" Older name: {', '.join(f'`{other}`' for other in older)}." if older else ""
        rows.append(f"| `{variable}` | {default_of(name)} | {field.description}{also} |")
    return "\n".join(rows) + "\n"


def rows_in_force(loaded: Loaded) -> list[dict[str, str | int | float | bool | None]]:
    """Return name, variable, value and place of every setting; of secrets only that they are set."""
    return [
        {
            "name": name,
            "variable": variables_of(name)[0],
            "value": _shown(name, getattr(loaded.settings, name)),
            "from": loaded.places.get(name, "default"),
        }
        for name in Settings.model_fields
    ]


def masked(dsn: str) -> str:
    """Return a DSN as it may be shown: without its passwords."""
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


def _without_query(text: str) -> str:
    """Return an address without the values of its query, which may hold a key; other texts as they are."""
    return re.sub(r"(?<=[?&])([^=&]*=)[^&]+", rf"\1{MASK}", text) if "://" in text else text
