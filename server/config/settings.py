"""Every setting with its meaning, default, limits and names.

Everything else about a setting follows from here: its variable, its key in the file, its row
in the documents. Secrets are `SecretStr`, which no repr shows.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from urllib.parse import quote

from pydantic import BaseModel, BeforeValidator, ConfigDict, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from server.config.types import (
    Address,
    EndpointUrl,
    FilePath,
    IssuerUrl,
    OptionalAddress,
    PostgresUrl,
    ReadableFile,
    Token,
    Transport,
    WritableFile,
    default_folder,
    lower,
    number,
    setting,
)

PREFIX = "MAILING_"
"""The prefix of variables, except those with a well-known name of their own."""

DEFAULT_ADMIN_LISTEN = "127.0.0.1:9464"
"""The default address of metrics and health."""


class ConfigError(Exception):
    """The settings are invalid. `problems` has one sentence per invalid one."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Settings(BaseModel):
    """All settings of the service. `load_settings` makes one."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    listen: Address = setting(
        "127.0.0.1:50051",
        "Address of the gRPC API. Port 0 takes any free one.",
        "HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051",
    )
    admin_listen: OptionalAddress | None = setting(
        None,
        "Address of `/metrics`, `/healthz` and `/readyz`. Port 0 takes any free one, `off` none.",
        "HOST:PORT, such as 127.0.0.1:9464, or off",
        shown=f"`{DEFAULT_ADMIN_LISTEN}`, if it is free",
    )
    channelz_listen: OptionalAddress = setting(
        "off",
        "Address of `grpc.channelz.v1`, which shows connections for debugging; `off` for none.",
        "HOST:PORT, such as 127.0.0.1:50052, or off",
    )
    insecure: bool = setting(
        False,
        "Allow addresses other than loopback without authentication: everybody may do everything.",
        "true or false",
        shown="`false`",
    )
    tls_cert_file: FilePath | None = setting(
        None,
        "PEM file with the certificate chain of the API. Without it connections are plain text.",
        "the path of a PEM file",
    )
    tls_key_file: FilePath | None = setting(None, "PEM file with the certificate's key.", "the path of a PEM file")
    tls_client_ca_file: FilePath | None = setting(
        None,
        "PEM file with the authority of client certificates, which are then required (mTLS).",
        "the path of a PEM file",
    )
    oidc_issuer: IssuerUrl | None = setting(
        None,
        "OIDC issuer of accepted tokens, exactly as in their `iss`; for Auth0 the domain is enough.",
        "an http:// or https:// address, or a domain",
        "MAILING_OIDC_ISSUER",
        "OAUTHDOMAIN",
    )
    oidc_audience: str | None = setting(
        None, "Required audience of tokens.", "a text", "MAILING_OIDC_AUDIENCE", "OAUTHAUDIENCE"
    )
    oidc_jwks_url: EndpointUrl | None = setting(
        None, "Address of the issuer's keys.", "an http:// or https:// address", shown="from the issuer's discovery"
    )
    tokens_file: FilePath | None = setting(
        None,
        "File with static tokens (their hashes) and certificate names; see [docs/security.md](docs/security.md).",
        "the path of a file",
    )
    reflection: Annotated[Literal["auto", "on", "off"], BeforeValidator(lower)] = setting(
        "auto", "Server reflection; `auto`: on loopback only.", "auto, on or off"
    )
    dsn: PostgresUrl | None = setting(
        None,
        "Postgres database, version 15 or later. Without it and `POSTGRES_HOST` the service runs an embedded one.",
        "an address like postgresql://user:password@host:5432/database",
    )
    postgres_host: str | None = setting(
        None, "Host of the Postgres when `MAILING_DSN` is not set.", "a host name", "POSTGRES_HOST"
    )
    postgres_port: int = setting(
        5432, "Port of the Postgres.", "a port, a whole number from 1 to 65535", "POSTGRES_PORT", ge=1, le=65535
    )
    postgres_user: str = setting("postgres", "Database user.", "a user name", "POSTGRES_USER")
    postgres_password: SecretStr | None = setting(None, "Database password.", "a password", "POSTGRES_PASSWORD")
    postgres_db: str | None = setting(None, "Database name.", "a name", "POSTGRES_DB", shown="the user's name")
    data_dir: FilePath = setting(
        default_folder,
        "Folder of the embedded Postgres.",
        "the path of a folder",
        shown="`mailing` in the user's data folder",
    )
    endpoint_url: EndpointUrl | None = setting(
        None,
        "URL that messages are POSTed to; the message id is appended. Without it and `MAILING_ENDPOINTS_FILE` "
        "nothing is delivered.",
        "an http:// or https:// address with a host and without user or password",
        "MAILING_ENDPOINT_URL",
        "MAILING_SERVER_URL",
    )
    endpoint_token: Token = setting(
        SecretStr(""),
        "Bearer token for the endpoint.",
        "a token of printable ASCII characters without spaces",
        "MAILING_ENDPOINT_TOKEN",
        "AUTHTOKEN",
    )
    endpoint_transport: Transport = setting(
        "fast",
        "`fast`: the built-in HTTP/1.1 client; `httpx`: for proxies and HTTP/2, much slower.",
        "fast or httpx",
    )
    endpoint_timeout: float = number(
        10.0, "Maximum duration of one request, connecting included, in seconds.", 0.05, 300, "seconds"
    )
    endpoint_connect_timeout: float = number(
        3.0, "Maximum time to connect, in seconds, within the duration of the request.", 0.05, 300, "seconds"
    )
    endpoint_ca_file: ReadableFile | None = setting(
        None,
        "PEM file with the trusted authorities, in place of the system's.",
        "the path of a PEM file that can be read",
    )
    endpoint_max_concurrency: int = number(1024, "Maximum requests in flight to each endpoint.", 1, 100_000)
    endpoints_file: ReadableFile | None = setting(
        None,
        "TOML file with named endpoints, see [docs/endpoints.md](docs/endpoints.md).",
        "the path of a TOML file that can be read",
    )
    poll_min: float = number(0.01, "Minimum polling interval, in seconds.", 0.001, 3600, "seconds")
    poll_max: float = number(5.0, "Maximum polling interval, in seconds.", 0.001, 3600, "seconds")
    recheck_min: float = number(
        1.0, "Minimum interval of scans for new clients of a running mailing, in seconds.", 0.01, 86400, "seconds"
    )
    recheck_max: float = number(
        60.0, "Maximum interval of scans for new clients of a running mailing, in seconds.", 0.01, 86400, "seconds"
    )
    lease: float = number(
        60.0,
        "Lease of a batch, in seconds: after a crash others take over when it ends. "
        "The minimum is 3 times the endpoint's timeout and 5 s.",
        1,
        3600,
        "seconds",
    )
    dispatchers: int = number(
        0, "Dispatcher processes beside the server; 0: dispatch inside the server process.", 0, 64
    )
    pool_size: int = number(10, "Maximum database connections of the API; a dispatcher has 13 of its own.", 4, 1000)
    statement_cache_size: int = number(
        100, "Cached prepared statements per connection. 0 for PgBouncer in transaction mode.", 0, 10_000
    )
    database_timeout: float = number(
        10.0, "Maximum duration of one statement, and of connecting, in seconds.", 0.1, 3600, "seconds"
    )
    journal_retention_hours: float = number(
        72.0,
        "Retention of the change feed, in hours: how long a stream of messages can be resumed.",
        0.01,
        87_600,
        "hours",
    )
    log_retention_hours: float = number(168.0, "Retention of the event log, in hours.", 0.01, 87_600, "hours")
    max_message_mib: float = number(4.0, "Maximum size of a request, in MiB.", 0.01, 1024, "MiB")
    max_streams_per_principal: int = number(
        20_000, "Maximum streams that one caller has open; without authentication, one host.", 1, 1_000_000
    )
    max_streams_per_connection: int = number(
        500, "Maximum calls and streams at once over one connection; callers queue the rest.", 10, 1_000_000
    )
    max_calls_per_principal: int = number(1000, "Maximum other calls that one caller has open.", 1, 100_000)
    max_calls_per_second: float = number(
        2000.0,
        "Maximum calls and streams that one caller begins a second, after a burst of as many; 0: no limit.",
        0,
        1_000_000,
        "calls a second",
    )
    max_call_seconds: float = number(
        120.0,
        "Maximum duration of a call that is no stream, in seconds, whatever deadline its caller sets.",
        1,
        86_400,
        "seconds",
    )
    connection_age: float = number(
        3600.0,
        "Maximum connection age, in seconds: callers reconnect, which spreads them over all replicas.",
        1,
        31_536_000,
        "seconds",
    )
    connection_grace: float = number(
        600.0, "How long calls continue on a connection beyond its maximum age, in seconds.", 1, 86_400, "seconds"
    )
    frequency_cap: int = number(
        0,
        "Maximum messages to a client within the period below, from mailings that are not important; 0: no cap.",
        0,
        100_000,
    )
    frequency_period_hours: float = number(24.0, "Period of the frequency cap, in hours.", 0.01, 8760, "hours")
    tracing: bool = setting(
        False,
        "Trace calls and deliveries by OpenTelemetry, which its own variables configure, such as "
        "`OTEL_EXPORTER_OTLP_ENDPOINT`. Needs `mailing[otel]`.",
        "true or false",
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lower)] = setting(
        "info", "Minimum log level.", "debug, info, warning or error"
    )
    log_format: Annotated[Literal["auto", "console", "json"], BeforeValidator(lower)] = setting(
        "auto", "`auto`: text on a terminal, JSON otherwise.", "auto, console or json"
    )
    log_file: WritableFile | None = setting(
        None,
        "File that gets the same entries, always as JSON: up to 20 MB, and the last 5 as `.1` to `.5`.",
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
        """The DSN of the Postgres, with its password; None means the embedded one."""
        if self.dsn is not None:
            return self.dsn.get_secret_value()
        if self.postgres_host is None:
            return None
        password = f":{quote(self.postgres_password.get_secret_value(), safe='')}" if self.postgres_password else ""
        user, database = quote(self.postgres_user, safe=""), quote(self.postgres_db or self.postgres_user, safe="")
        host = f"[{self.postgres_host}]" if ":" in self.postgres_host else quote(self.postgres_host, safe="")
        return f"postgresql://{user}{password}@{host}:{self.postgres_port}/{database}"


def variables_of(name: str) -> tuple[str, ...]:
    """Return the environment variables of a setting: the current one first, then older ones."""
    return tuple(_extra(name)["names"]) or (PREFIX + name.upper(),)


def expectation_of(name: str) -> str:
    """Return what the setting's value should be; completes "… should be …"."""
    return str(_extra(name)["expects"])


def default_of(name: str) -> str:
    """Return the setting's default in Markdown, independent of the machine."""
    field, shown = Settings.model_fields[name], _extra(name)["shown"]
    if shown:
        return str(shown)
    if field.default is None or isinstance(field.default, SecretStr):
        return "none"
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    return f"`{field.default:g}`" if isinstance(field.default, float) else f"`{field.default}`"


def is_secret(name: str) -> bool:
    """Return whether the setting's value must never be shown."""
    field = Settings.model_fields[name]
    return "SecretStr" in f"{field.annotation}"


def is_path(name: str) -> bool:
    """Return whether the setting's value is the path of a file or folder."""
    return "Path" in f"{Settings.model_fields[name].annotation}"


def _extra(name: str) -> dict[str, Any]:
    extra = Settings.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)
    return dict(extra)
