"""What several settings share: values from the environment or a file, checked by pydantic.

What is wrong raises ValueError, never with a secret in it; the sentence for people is made
where the setting's name is known.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr

from dispatcher.model.records import Endpoint


def lower(value: object) -> object:
    """Return a text in lower case, anything else as it is."""
    return value.lower() if isinstance(value, str) else value


def endpoint_url(value: str) -> str:
    """Return the URL if it is one to make requests to. Raise ValueError."""
    parts = urlsplit(value)
    _ = parts.port  # raises ValueError for a port out of range
    plain = value.isascii() and value.isprintable() and " " not in value
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or "#" in value or not plain:
        raise ValueError(value)
    return value


def _header_value(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError
    return value


def _readable_file(value: Path) -> Path:
    try:
        with value.open("rb"):
            return value
    except OSError as error:
        raise ValueError(str(value)) from error


EndpointUrl = Annotated[str, AfterValidator(endpoint_url)]
"""An absolute http(s) URL without userinfo and fragment."""

Token = Annotated[SecretStr, AfterValidator(_header_value)]
"""What may stand in a header: printable ASCII without spaces."""

ReadableFile = Annotated[Path, AfterValidator(_readable_file)]
"""A file that can be opened now."""

Transport = Annotated[Literal["fast", "httpx"], BeforeValidator(lower)]
"""Which sender makes the requests."""


class ConfiguredEndpoint(NamedTuple):
    """An endpoint, the sender that reaches it, and the variable or file that says so."""

    endpoint: Endpoint
    transport: Literal["fast", "httpx"]
    source: str
