"""What can be set: each setting with its meaning, its default, its limits and its names.

Everything else about a setting follows from here: its variable, its key in the file, its row
in the documents. Secrets are `SecretStr`, which no repr shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote

from platformdirs import user_data_dir
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from server.config.types import EndpointUrl, ReadableFile, Token, Transport, endpoint_url, lower

PREFIX = "MAILING_"
"""Begins the variables of all settings that have no older, well-known name."""

DEFAULT_ADMIN_LISTEN = "127.0.0.1:9464"
"""Where metrics are unless something else is set."""


class ConfigError(Exception):
    """The settings cannot be used. `problems` has one sentence per bad one."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _setting(default: Any, meaning: str, expects: str, *names: str, shown: str | None = None, **limits: Any) -> Any:
    """Return a field: what it means, what its value should be, its variable names if they differ from the field's."""
    extra: dict[str, Any] = {"expects": expects, "shown": shown, "names": names}
    if callable(default):
        return Field(default_factory=default, description=meaning, json_schema_extra=extra, **limits)
    return Field(default, description=meaning, json_schema_extra=extra, **limits)


def _number(default: float, meaning: str, lowest: float, highest: float, unit: str = "") -> Any:
    """Return a field for a number within limits, both included."""
    whole = "a whole number" if isinstance(default, int) and not unit else "a number"
    expects = f"{whole}{f' of {unit}' if unit else ''} from {lowest:g} to {highest:g}"
    return _setting(default, meaning, expects, ge=lowest, le=highest)


def _address(value: str) -> str:
    split_address(value)
    return value


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT` or `[IPv6]:PORT`. Raise ValueError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535 or (":" in host and host[0] != "["):
        raise ValueError(address)
    return host, int(port)


def _address_or_off(value: str) -> str:
    return "off" if value.lower() == "off" else _address(value)


def _issuer(value: str) -> str:
    """Return the issuer; a domain stands for the name that Auth0 gives itself, slash included."""
    return endpoint_url(value if "://" in value else f"https://{value}/")


def _server_url(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().startswith(("postgresql://", "postgres://")):
        raise ValueError
    return value


def _writable_file(value: Path) -> Path:
    path = _folder(value)
    try:
        with path.open("ab"):
            return path
    except OSError as error:
        raise ValueError(str(path)) from error


def _folder(value: Path) -> Path:
    return value.expanduser().absolute()


FilePath = Annotated[Path, AfterValidator(_folder)]
"""A file that only some processes need to read: it is looked at by those."""


def _default_folder() -> Path:
    return Path(user_data_dir("mailing"))


class Settings(BaseModel):
    """Everything about the service that can be set. Make one with `load_settings`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    listen: Annotated[str, AfterValidator(_address)] = _setting(
        "127.0.0.1:50051",
        "Address of the gRPC API. Port 0 takes any free one.",
        "HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051",
    )
    admin_listen: Annotated[str, AfterValidator(_address_or_off)] | None = _setting(
        None,
        "Address of `/metrics`, `/healthz` and `/readyz`. Port 0 takes any free one, `off` none.",
        "HOST:PORT, such as 127.0.0.1:9464, or off",
        shown=f"`{DEFAULT_ADMIN_LISTEN}`, if it is free",
    )
    channelz_listen: Annotated[str, AfterValidator(_address_or_off)] = _setting(
        "off",
        "Address of `grpc.channelz.v1`, which shows connections while one looks for a fault.",
        "HOST:PORT, such as 127.0.0.1:50052, or off",
    )
    insecure: bool = _setting(
        False,
        "Listen on other addresses than loopback although anybody may then do anything.",
        "true or false",
        shown="`false`",
    )
    tls_cert_file: FilePath | None = _setting(
        None, "PEM file with the certificate of the API and its chain; plain text without.", "the path of a PEM file"
    )
    tls_key_file: FilePath | None = _setting(None, "PEM file with its key.", "the path of a PEM file")
    tls_client_ca_file: FilePath | None = _setting(
        None,
        "PEM file with the authority that callers must have a certificate from (mTLS).",
        "the path of a PEM file",
    )
    oidc_issuer: Annotated[str, AfterValidator(_issuer)] | None = _setting(
        None,
        "Issuer of the tokens to accept, exactly as they name it; of Auth0 the domain is enough.",
        "an http:// or https:// address, or a domain",
        "MAILING_OIDC_ISSUER",
        "OAUTHDOMAIN",
    )
    oidc_audience: str | None = _setting(
        None, "Audience that tokens must be for.", "a text", "MAILING_OIDC_AUDIENCE", "OAUTHAUDIENCE"
    )
    oidc_jwks_url: EndpointUrl | None = _setting(
        None, "Where the issuer's keys are.", "an http:// or https:// address", shown="what the issuer's discovery says"
    )
    tokens_file: FilePath | None = _setting(
        None,
        "File of static tokens, by their hashes, and of certificates; see [docs/security.md](docs/security.md).",
        "the path of a file",
    )
    reflection: Annotated[Literal["auto", "on", "off"], BeforeValidator(lower)] = _setting(
        "auto", "Server reflection; `auto`: on loopback only.", "auto, on or off"
    )
    dsn: Annotated[SecretStr, AfterValidator(_server_url)] | None = _setting(
        None,
        "The Postgres to use, version 15 or later. Without it, and without `POSTGRES_HOST`, the service runs its own.",
        "an address like postgresql://user:password@host:5432/database",
    )
    postgres_host: str | None = _setting(
        None, "Host of the Postgres to use when `MAILING_DSN` is not set.", "a host name", "POSTGRES_HOST"
    )
    postgres_port: int = _setting(
        5432, "Its port.", "a port, a whole number from 1 to 65535", "POSTGRES_PORT", ge=1, le=65535
    )
    postgres_user: str = _setting("postgres", "Its user.", "a user name", "POSTGRES_USER")
    postgres_password: SecretStr | None = _setting(None, "The user's password.", "a password", "POSTGRES_PASSWORD")
    postgres_db: str | None = _setting(None, "Its database.", "a name", "POSTGRES_DB", shown="the user's name")
    data_dir: Annotated[Path, AfterValidator(_folder)] = _setting(
        _default_folder,
        "Folder of the service's own Postgres.",
        "the path of a folder",
        shown="`mailing` in the user's data folder",
    )
    endpoint_url: EndpointUrl | None = _setting(
        None,
        "Where messages are POSTed to; the message's id is appended. Without it and without `MAILING_ENDPOINTS_FILE` "
        "nothing is delivered.",
        "an http:// or https:// address with a host and without user or password",
        "MAILING_ENDPOINT_URL",
        "MAILING_SERVER_URL",
    )
    endpoint_token: Token = _setting(
        SecretStr(""),
        "Bearer token for the endpoint.",
        "a token of printable ASCII characters without spaces",
        "MAILING_ENDPOINT_TOKEN",
        "AUTHTOKEN",
    )
    endpoint_transport: Transport = _setting(
        "fast",
        "`fast`: HTTP/1.1 by the service's own client; `httpx`: for proxies and HTTP/2, much slower.",
        "fast or httpx",
    )
    endpoint_timeout: float = _number(
        10.0, "Longest time of one request, connecting included, in seconds.", 0.05, 300, "seconds"
    )
    endpoint_connect_timeout: float = _number(
        3.0, "Longest time to connect, in seconds; the whole request's limit holds, too.", 0.05, 300, "seconds"
    )
    endpoint_ca_file: ReadableFile | None = _setting(
        None,
        "PEM file with the authorities to trust instead of the system's.",
        "the path of a PEM file that can be read",
    )
    endpoint_max_concurrency: int = _number(1024, "Most requests in flight at once, to each endpoint.", 1, 100_000)
    endpoints_file: ReadableFile | None = _setting(
        None,
        "TOML file of several named endpoints, see [docs/endpoints.md](docs/endpoints.md).",
        "the path of a TOML file that can be read",
    )
    poll_min: float = _number(0.01, "Shortest wait between two looks for work, in seconds.", 0.001, 3600, "seconds")
    poll_max: float = _number(5.0, "Longest wait between two looks for work, in seconds.", 0.001, 3600, "seconds")
    recheck_min: float = _number(
        1.0, "Shortest wait between two looks for new clients of a running mailing, in seconds.", 0.01, 86400, "seconds"
    )
    recheck_max: float = _number(
        60.0, "Longest wait between two looks for new clients of a running mailing, in seconds.", 0.01, 86400, "seconds"
    )
    lease: float = _number(
        60.0,
        "How long a batch belongs to its dispatcher, in seconds: after a crash the others take over that late. "
        "At least 3 times the endpoint's timeout and 5 s are taken.",
        1,
        3600,
        "seconds",
    )
    dispatchers: int = _number(
        0, "0: messages are dispatched inside the server process; N: by N processes beside it.", 0, 64
    )
    pool_size: int = _number(10, "Most database connections of the API; a dispatcher has 13 of its own.", 4, 1000)
    statement_cache_size: int = _number(
        100, "Prepared statements kept per connection. 0 for PgBouncer in transaction mode.", 0, 10_000
    )
    database_timeout: float = _number(
        10.0, "Longest time of one statement, and of connecting, in seconds.", 0.1, 3600, "seconds"
    )
    journal_retention_hours: float = _number(
        72.0,
        "How long the journal of changes is kept, in hours: so long can a stream of messages be resumed.",
        0.01,
        87_600,
        "hours",
    )
    log_retention_hours: float = _number(
        168.0, "How long the log that operators watch is kept, in hours.", 0.01, 87_600, "hours"
    )
    max_message_mib: float = _number(4.0, "Largest request, in MiB.", 0.01, 1024, "MiB")
    max_streams_per_principal: int = _number(
        20_000, "Most streams that one caller may have open at once; without authentication, one host.", 1, 1_000_000
    )
    max_streams_per_connection: int = _number(
        500, "Most calls and streams at once over one connection; callers keep more of them waiting.", 10, 1_000_000
    )
    max_calls_per_principal: int = _number(1000, "Most other calls that one caller may have open at once.", 1, 100_000)
    max_calls_per_second: float = _number(
        2000.0,
        "Most calls and streams that one caller may begin a second, after a burst of as many; 0: any number.",
        0,
        1_000_000,
        "calls a second",
    )
    max_call_seconds: float = _number(
        120.0,
        "Longest time of a call that is no stream, in seconds, whatever deadline its caller sets.",
        1,
        86_400,
        "seconds",
    )
    connection_age: float = _number(
        3600.0,
        "After about so long callers are told to connect anew, so that they spread over all replicas, in seconds.",
        1,
        31_536_000,
        "seconds",
    )
    connection_grace: float = _number(
        600.0, "How long calls go on over a connection that is to be made anew, in seconds.", 1, 86_400, "seconds"
    )
    frequency_cap: int = _number(
        0,
        "Most messages a client gets within the period below, of all mailings that are not important; 0: no cap.",
        0,
        100_000,
    )
    frequency_period_hours: float = _number(24.0, "The period of the frequency cap, in hours.", 0.01, 8760, "hours")
    tracing: bool = _setting(
        False,
        "Whether calls and deliveries are traced by OpenTelemetry; its own variables, such as "
        "`OTEL_EXPORTER_OTLP_ENDPOINT`, say where to. Needs `mailing[otel]`.",
        "true or false",
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lower)] = _setting(
        "info", "The least grave entries that are logged.", "debug, info, warning or error"
    )
    log_format: Annotated[Literal["auto", "console", "json"], BeforeValidator(lower)] = _setting(
        "auto", "`auto`: lines for people on a terminal, JSON otherwise.", "auto, console or json"
    )
    log_file: Annotated[Path, AfterValidator(_writable_file)] | None = _setting(
        None,
        "File that gets the same entries, always as JSON: up to 20 MB, and the 5 before it as `.1` to `.5`.",
        "the path of a file that can be written",
        "MAILING_LOG_FILE",
        "LOGGING_FILE",
    )

    @model_validator(mode="after")
    def _pairs_are_ordered(self) -> Self:
        for low, high in (
            ("poll_min", "poll_max"),
            ("recheck_min", "recheck_max"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise PydanticCustomError(
                    "pair",
                    "{low} should not be more than {high}, but {a} is more than {b}.",
                    {
                        "low": variables_of(low)[0],
                        "high": variables_of(high)[0],
                        "a": f"{getattr(self, low):g}",
                        "b": f"{getattr(self, high):g}",
                    },
                )
        return self

    @property
    def database_url(self) -> str | None:
        """The DSN of the Postgres to use, its password included; None means the service runs its own."""
        if self.dsn is not None:
            return self.dsn.get_secret_value()
        if self.postgres_host is None:
            return None
        password = f":{quote(self.postgres_password.get_secret_value(), safe='')}" if self.postgres_password else ""
        user, database = quote(self.postgres_user, safe=""), quote(self.postgres_db or self.postgres_user, safe="")
        host = f"[{self.postgres_host}]" if ":" in self.postgres_host else quote(self.postgres_host, safe="")
        return f"postgresql://{user}{password}@{host}:{self.postgres_port}/{database}"


def variables_of(name: str) -> tuple[str, ...]:
    """Return the environment variables of a setting, the one to use first, then older ones."""
    return tuple(_extra(name)["names"]) or (PREFIX + name.upper(),)


def expectation_of(name: str) -> str:
    """Return what the setting's value should be; completes "… should be …"."""
    return str(_extra(name)["expects"])


def default_of(name: str) -> str:
    """Return the setting's default as documents have it, in Markdown; it names no machine."""
    field, shown = Settings.model_fields[name], _extra(name)["shown"]
    if shown:
        return str(shown)
    if field.default is None or isinstance(field.default, SecretStr):
        return "none"
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    return f"`{field.default:g}`" if isinstance(field.default, float) else f"`{field.default}`"


def is_secret(name: str) -> bool:
    """Return whether the setting's value may be shown to nobody."""
    field = Settings.model_fields[name]
    return "SecretStr" in f"{field.annotation}"


def is_path(name: str) -> bool:
    """Return whether the setting's value is the path of a file or folder."""
    return "Path" in f"{Settings.model_fields[name].annotation}"


def _extra(name: str) -> dict[str, Any]:
    extra = Settings.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)
    return dict(extra)
