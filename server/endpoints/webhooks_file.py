"""The webhooks file: a table `[webhooks.NAME]` for each subscriber, read once at the start and checked as a whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple, Self

from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic import model_validator as checked

from server.config import ConfigError
from server.config.types import EndpointUrl
from server.domain.signatures import webhook_key
from server.domain.webhooks import EVENTS, WebhookConfig
from server.endpoints.endpoints_file import sentences_of, tables_of
from server.endpoints.entry_types import STRICT, Reading, SecretFile, key, refuse

_SECRET = "whsec_ and base64"  # noqa: S105


class WebhookEntry(BaseModel):
    """The keys of a subscriber."""

    model_config = STRICT

    url: EndpointUrl = key("an http:// or https:// address with a host and without user or password")
    secret: SecretStr | None = key(_SECRET, None, strict=False)
    secret_file: SecretFile | None = key(
        "the path of a file that can be read and holds secrets, with spaces between", None
    )
    secrets: list[Annotated[SecretStr, Field(strict=False)]] = key("a list of secrets, the newest first", [])
    events: list[str] = key(f"a list of {', '.join(EVENTS[:-1])} and {EVENTS[-1]}", [])
    labels: dict[str, str] = key("a table of texts", {})
    timeout: float = key("a number of seconds from 1 to 60", 15.0, ge=1, le=60)

    @checked(mode="after")
    def _it_can_work(self) -> Self:
        if unknown := [one for one in self.events if one not in EVENTS]:
            raise refuse(f"events has {unknown[0][:60]!r}: there are {', '.join(EVENTS)}")
        keys = self.all_secrets()
        if not keys:
            raise refuse("one of secret, secret_file and secrets is missing")
        try:
            for secret in keys:
                webhook_key(secret)
        except ValueError as error:
            raise refuse(f"a secret {error}") from None
        return self

    def all_secrets(self) -> list[str]:
        """Return the secrets, the newest first."""
        single = [one.get_secret_value() for one in (self.secret, self.secret_file) if one]
        return [*" ".join(single).split(), *(one.get_secret_value() for one in self.secrets)]


class ConfiguredWebhook(NamedTuple):
    """A subscriber and the files of its secrets; `reread` returns both as these are now, or raises ValueError."""

    config: WebhookConfig
    secret_files: tuple[Path, ...]
    reread: Callable[[], ConfiguredWebhook]


def read_webhooks(path: Path) -> list[ConfiguredWebhook]:
    """Return the subscribers of a file, in its order. Raise ConfigError."""
    found, problems = list[ConfiguredWebhook](), list[str]()
    for name, table in tables_of(path, "webhooks").items():
        try:
            found.append(_webhook_of(name, table, path.parent))
        except ValidationError as error:
            problems += [f"{path}: webhook {name[:80]}: {one}" for one in sentences_of(error, WebhookEntry)]
    if problems:
        raise ConfigError(problems)
    return found


def _webhook_of(name: str, table: object, folder: Path) -> ConfiguredWebhook:
    reading = Reading(folder, [])
    entry = WebhookEntry.model_validate(table, context=reading)
    secrets = tuple(entry.all_secrets())
    config = WebhookConfig(name, entry.url, secrets, frozenset(entry.events), entry.labels, entry.timeout)
    return ConfiguredWebhook(config, tuple(reading.secret_files), lambda: _webhook_of(name, table, folder))
