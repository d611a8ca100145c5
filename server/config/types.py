"""Types of settings: values from the environment or a file, validated by pydantic, and their fields.

An invalid value raises ValueError, never with a secret in it; the sentence for people is made
where the setting's name is known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import time, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from platformdirs import user_data_dir
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from dispatcher.model.endpoints import Endpoint
from server.config.cpus import usable_cpus
from server.domain.clients import ReceiveWindow
from server.domain.inbound import InboundSource
from server.domain.message_retention import parse_retention
from server.domain.receipts import ReceiptSource

_QUIET = re.compile(r"(\d\d:\d\d)-(\d\d:\d\d)")


def setting(default: Any, meaning: str, expects: str, *names: str, shown: str | None = None, **limits: Any) -> Any:
    """Return a field: its meaning, what its value should be, its variables if they differ from the field's name."""
    extra: dict[str, Any] = {"expects": expects, "shown": shown, "names": names}
    if callable(default):
        return Field(default_factory=default, description=meaning, json_schema_extra=extra, **limits)
    return Field(default, description=meaning, json_schema_extra=extra, **limits)


def number(default: float, meaning: str, lowest: float, highest: float, unit: str = "") -> Any:
    """Return a field for a number within limits, both included."""
    whole = "a whole number" if isinstance(default, int) and not unit else "a number"
    expects = f"{whole}{f' of {unit}' if unit else ''} from {lowest:g} to {highest:g}"
    return setting(default, meaning, expects, ge=lowest, le=highest)


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT` or `[IPv6]:PORT`. Raise ValueError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535 or (":" in host and host[0] != "["):
        raise ValueError(address)
    return host, int(port)


def _address(value: str) -> str:
    split_address(value)
    return value


def _address_or_off(value: str) -> str:
    return "off" if value.lower() == "off" else _address(value)


def lower(value: object) -> object:
    """Return a text in lower case, anything else as it is."""
    return value.lower() if isinstance(value, str) else value


def endpoint_url(value: str) -> str:
    """Return the URL if requests can be made to it. Raise ValueError."""
    parts = urlsplit(value)
    _ = parts.port  # raises ValueError for a port out of range
    plain = value.isascii() and value.isprintable() and " " not in value
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or "#" in value or not plain:
        raise ValueError(value)
    return value


def _issuer(value: str) -> str:
    """Return the issuer; a domain is short for the issuer of Auth0, slash included."""
    return endpoint_url(value if "://" in value else f"https://{value}/")


def _postgres_url(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().startswith(("postgresql://", "postgres://")):
        raise ValueError
    return value


def _header_value(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError
    return value


def default_folder() -> Path:
    """Return the folder of the embedded Postgres unless another one is set."""
    return Path(user_data_dir("mailing"))


def _absolute(value: Path) -> Path:
    return value.expanduser().absolute()


def _writable_file(value: Path) -> Path:
    path = _absolute(value)
    try:
        with path.open("ab"):
            return path
    except OSError as error:
        raise ValueError(str(path)) from error


def _readable_file(value: Path) -> Path:
    try:
        with value.open("rb"):
            return value
    except OSError as error:
        raise ValueError(str(value)) from error


def _retention(value: str) -> str:
    parse_retention(value)
    return value


_ADDRESS = re.compile(r"[^@\s,;<>\"]+@[^@\s,;<>\"]+")


def addresses_of(text: str) -> tuple[str, ...]:
    """Return the e-mail addresses of a list with commas. Raise ValueError for what is none."""
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for one in found:
        if not (one.isascii() and _ADDRESS.fullmatch(one)):
            raise ValueError(one)
    return found


def _addresses(value: str) -> str:
    return ", ".join(addresses_of(value))


def _mail_address(value: str) -> str:
    (one,) = addresses_of(value)
    return one


def _clock_time(value: str) -> str:
    time.fromisoformat(value)
    return value


def _zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError(value)
    return value


MailAddresses = Annotated[str, AfterValidator(_addresses)]
"""E-mail addresses, with commas between."""

MailAddress = Annotated[str, AfterValidator(_mail_address)]
"""An e-mail address."""

ClockTime = Annotated[str, AfterValidator(_clock_time)]
"""A time of day."""

ZoneName = Annotated[str, AfterValidator(_zone)]
"""The IANA name of a time zone."""

Address = Annotated[str, AfterValidator(_address)]
"""An address to listen on."""

OptionalAddress = Annotated[str, AfterValidator(_address_or_off)]
"""An address to listen on, or `off`."""

IssuerUrl = Annotated[str, AfterValidator(_issuer)]
"""The exact name of an OIDC issuer."""

PostgresUrl = Annotated[SecretStr, AfterValidator(_postgres_url)]
"""The DSN of a database."""

FilePath = Annotated[Path, AfterValidator(_absolute)]
"""A file or folder that only some processes open: those check it."""

WritableFile = Annotated[Path, AfterValidator(_writable_file)]
"""A file that can be appended to now."""

EndpointUrl = Annotated[str, AfterValidator(endpoint_url)]
"""An absolute http(s) URL without userinfo and fragment."""

Token = Annotated[SecretStr, AfterValidator(_header_value)]
"""A header value: printable ASCII without spaces."""


def _quiet_hours(value: str) -> str:
    """Return the hours. Raise ValueError for what is not HH:MM-HH:MM with different times."""
    open_hours(value)
    return value


def open_hours(quiet: str) -> ReceiveWindow:
    """Return the window that quiet hours such as 21:00-09:00 leave open. Raise ValueError."""
    match = _QUIET.fullmatch(quiet)
    if match is None:
        raise ValueError(quiet)
    begin, end = (time.fromisoformat(text) for text in match.groups())
    if begin == end:
        raise ValueError(quiet)
    minutes = (begin.hour * 60 + begin.minute - end.hour * 60 - end.minute) % 1440
    return ReceiveWindow(end, timedelta(minutes=minutes))


QuietHours = Annotated[str, AfterValidator(_quiet_hours)]
"""Hours of every day, HH:MM-HH:MM, in which nothing is sent."""

ReadableFile = Annotated[Path, AfterValidator(_readable_file)]
"""A file that can be opened now."""


def default_dispatchers() -> int:
    """Return 1 where the API can keep a CPU to itself, else 0."""
    return int(usable_cpus() >= 2)


def _dispatchers(value: object) -> object:
    return default_dispatchers() if lower(value) == "auto" else value


DispatcherCount = Annotated[int, BeforeValidator(_dispatchers)]
"""Dispatcher processes beside the server; `auto` is replaced by what fits this machine."""
Retention = Annotated[str, AfterValidator(_retention)]
"""For how long messages are kept, as `parse_retention` reads it."""

Transport = Annotated[Literal["fast", "httpx"], BeforeValidator(lower)]
"""The sender that makes the requests."""


class TokenGrant(NamedTuple):
    """Where an endpoint's access tokens come from, and what shows who asks for them."""

    url: str
    client_id: str
    client_secret: str
    scope: str = ""

    def __repr__(self) -> str:
        return f"TokenGrant({self.client_id!r})"


def _unchanged() -> ConfiguredEndpoint:
    raise ValueError


class ConfiguredEndpoint(NamedTuple):
    """An endpoint, its transport, the variable or file that defines it, and what its gateway may send.

    `reread` returns all of it with the secrets as the `secret_files` have them now, or raises ValueError.
    """

    endpoint: Endpoint
    transport: Literal["fast", "httpx"]
    source: str
    receipts: ReceiptSource | None = None
    inbound: InboundSource | None = None
    secret_files: tuple[Path, ...] = ()
    reread: Callable[[], ConfiguredEndpoint] = _unchanged
    grant: TokenGrant | None = None

    def values_of(self, title: str, attributes: Mapping[str, str]) -> tuple[str, ...]:
        """Return the values that the requests need for a client beside id, phone and text."""
        form = self.endpoint.request
        return () if form is None else form.values_of(title, attributes)
