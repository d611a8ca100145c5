"""Every setting with its meaning, default, limits and names.

Everything else about a setting follows from here: its variable, its key in the file, its row
in the documents. Secrets are `SecretStr`, which no repr shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote

from pydantic import BaseModel, BeforeValidator, ConfigDict, PrivateAttr, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from dispatcher.model.quotas import MOST_PER_DAY
from server.config.types import (
    Address,
    ClockTime,
    DispatcherCount,
    EndpointUrl,
    FilePath,
    IssuerUrl,
    MailAddress,
    MailAddresses,
    OptionalAddress,
    PostgresUrl,
    QuietHours,
    ReadableFile,
    Retention,
    Token,
    Transport,
    WritableFile,
    ZoneName,
    default_dispatchers,
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
        "Address of `grpc.channelz.v1`, which shows connections while one looks for a fault.",
        "HOST:PORT, such as 127.0.0.1:50052, or off",
    )
    console_listen: OptionalAddress = setting(
        "off",
        "Address of the console in the browser; needs `mailing-server[console]`. Port 0 takes any free one. With TLS "
        "where the API has it. See [docs/console.md](docs/console.md).",
        "HOST:PORT, such as 127.0.0.1:8400, or off",
    )
    console_url: EndpointUrl | None = setting(
        None,
        "Address at which browsers reach the console, where a proxy stands before it.",
        "an http:// or https:// address, such as https://mailing.example.com",
    )
    console_secret: SecretStr | None = setting(
        None,
        "Key of the console's sessions, the same for all replicas: they then outlive restarts. Another one ends them.",
        "a random text of 32 characters or more",
        shown="a random one at each start",
        min_length=32,
    )
    console_session_hours: float = number(
        12.0,
        "Maximum length of a session of the console, in hours; never longer than the token is valid.",
        0.01,
        720,
        "hours",
    )
    console_client_id: str | None = setting(
        None, "Client id of the console at the OIDC issuer: people then sign in there, with PKCE.", "a text"
    )
    console_client_secret: SecretStr | None = setting(
        None, "Secret of that client, if it is a confidential one.", "a text"
    )
    console_scopes: str = setting(
        "openid profile", "Scopes that the console asks the issuer for, separated by spaces.", "names of scopes"
    )
    webhooks_file: ReadableFile | None = setting(
        None,
        "TOML file with the webhooks, to which events are sent. See [docs/webhooks.md](docs/webhooks.md).",
        "the path of a file that can be read",
    )
    receipts_listen: OptionalAddress = setting(
        "off",
        "Address on which gateways report what became of messages. Port 0 takes any free one.",
        "HOST:PORT, such as 0.0.0.0:8443, or off",
    )
    receipts_url: EndpointUrl | None = setting(
        None,
        "Public address of that listener, for `{receipt_url}` in requests and for signatures that include it.",
        "an http:// or https:// address",
    )
    insecure: bool = setting(
        False,
        "Listen on addresses other than loopback without authentication: anybody who reaches it may do anything.",
        "true or false",
        shown="`false`",
    )
    tls_cert_file: FilePath | None = setting(
        None,
        "PEM file with the certificate chain of the API; without it the API is plain text.",
        "the path of a PEM file",
    )
    tls_key_file: FilePath | None = setting(
        None, "PEM file with the key of that certificate.", "the path of a PEM file"
    )
    tls_client_ca_file: FilePath | None = setting(
        None,
        "PEM file with the authority that must have issued the callers' certificates (mTLS).",
        "the path of a PEM file",
    )
    oidc_issuer: IssuerUrl | None = setting(
        None,
        "Issuer of accepted tokens, exactly as in `iss`; for Auth0 the domain is enough.",
        "an http:// or https:// address, or a domain",
        "MAILING_OIDC_ISSUER",
        "OAUTHDOMAIN",
    )
    oidc_audience: str | None = setting(
        None, "Audience that tokens must have.", "a text", "MAILING_OIDC_AUDIENCE", "OAUTHAUDIENCE"
    )
    oidc_jwks_url: EndpointUrl | None = setting(
        None,
        "Address of the issuer's keys (JWKS).",
        "an http:// or https:// address",
        shown="what the issuer's discovery says",
    )
    tokens_file: FilePath | None = setting(
        None,
        "File of hashed static tokens and of certificates; see [docs/security.md](docs/security.md).",
        "the path of a file",
    )
    reflection: Annotated[Literal["auto", "on", "off"], BeforeValidator(lower)] = setting(
        "auto", "gRPC server reflection; `auto`: on loopback only.", "auto, on or off"
    )
    dsn: PostgresUrl | None = setting(
        None,
        "Postgres to use, version 15 or later. With it all of `POSTGRES_*` is ignored. Without it and "
        "without `POSTGRES_HOST` the service runs its own.",
        "an address like postgresql://user:password@host:5432/database",
    )
    read_dsn: PostgresUrl | None = setting(
        None,
        "A standby of the database, for lists, exports, reports and previews while it is close behind.",
        "an address like postgresql://user:password@host:5432/database",
    )
    read_max_lag: float = number(
        5.0, "How old what the standby shows may be, in seconds; older reads go to the primary.", 0.1, 3600, "seconds"
    )
    postgres_host: str | None = setting(
        None, "Host of the Postgres to use when `MAILING_DSN` is not set.", "a host name", "POSTGRES_HOST"
    )
    postgres_port: int = setting(
        5432, "Its port.", "a port, a whole number from 1 to 65535", "POSTGRES_PORT", ge=1, le=65535
    )
    postgres_user: str = setting("postgres", "Its user.", "a user name", "POSTGRES_USER")
    postgres_password: SecretStr | None = setting(None, "The user's password.", "a password", "POSTGRES_PASSWORD")
    postgres_db: str | None = setting(None, "Its database.", "a name", "POSTGRES_DB", shown="the user's name")
    data_dir: FilePath = setting(
        default_folder,
        "Data folder of the service's own Postgres.",
        "the path of a folder",
        shown="`mailing` in the user's data folder",
    )
    endpoint_url: EndpointUrl | None = setting(
        None,
        "URL to which messages are POSTed; the message's id is appended. Without it and without "
        "`MAILING_ENDPOINTS_FILE` nothing is delivered.",
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
        "`fast`: HTTP/1.1 by the service's own client; `httpx`: for proxies and HTTP/2, much slower.",
        "fast or httpx",
    )
    endpoint_timeout: float = number(
        10.0, "Maximum time of one request, connecting included, in seconds.", 0.05, 300, "seconds"
    )
    endpoint_connect_timeout: float = number(
        3.0, "Maximum time to connect, in seconds; the limit of the whole request applies, too.", 0.05, 300, "seconds"
    )
    endpoint_ca_file: ReadableFile | None = setting(
        None,
        "PEM file with the certificate authorities to trust instead of the system's.",
        "the path of a PEM file that can be read",
    )
    endpoint_max_concurrency: int = number(1024, "Maximum requests in flight per endpoint.", 1, 100_000)
    endpoint_max_per_day: int = setting(
        0,
        "Maximum messages of the endpoint `default` a day, over all replicas; the rest waits for the next day. 0: no "
        "limit.",
        f"a whole number from 0 to {MOST_PER_DAY}",
        ge=0,
        le=MOST_PER_DAY,
    )
    endpoint_max_per_day_timezone: ZoneName = setting(
        "UTC", "Zone whose days that limit counts.", "the IANA name of a time zone, such as Europe/Berlin"
    )
    endpoints_file: ReadableFile | None = setting(
        None,
        "TOML file of several named endpoints, see [docs/endpoints-and-delivery.md](docs/endpoints-and-delivery.md).",
        "the path of a TOML file that can be read",
    )
    poll_min: float = number(0.01, "Minimum polling interval, in seconds.", 0.001, 3600, "seconds")
    poll_max: float = number(5.0, "Maximum polling interval, in seconds.", 0.001, 3600, "seconds")
    recheck_min: float = number(
        1.0,
        "Minimum interval between two checks for new clients of a running mailing, in seconds.",
        0.01,
        86400,
        "seconds",
    )
    recheck_max: float = number(
        60.0,
        "Maximum interval between two checks for new clients of a running mailing, in seconds.",
        0.01,
        86400,
        "seconds",
    )
    lease: float = number(
        60.0,
        "How long a batch is reserved for its dispatcher, in seconds: after a crash the others take over that late. "
        "The minimum is 3 times the longest timeout of an endpoint plus 5 s.",
        1,
        3600,
        "seconds",
    )
    dispatchers: DispatcherCount = setting(
        default_dispatchers,
        "0: messages are sent from inside the server process; N: from N processes beside it; auto: one process beside "
        "it where there are two CPUs or more, so that the API stays fast, else inside.",
        "auto or a whole number from 0 to 64",
        shown="`auto`",
        ge=0,
        le=64,
    )
    pool_size: int = number(10, "Maximum database connections of the API; each dispatcher has 13 more.", 4, 1000)
    statement_cache_size: int = number(
        100, "Prepared statements kept per connection. 0 for PgBouncer in transaction mode.", 0, 10_000
    )
    database_timeout: float = number(
        10.0, "Maximum time of one statement, and of connecting, in seconds.", 0.1, 3600, "seconds"
    )
    buckets: int | None = setting(
        None,
        "Buckets over which clients are spread, fixed when an empty database is set up; afterwards another number ends "
        "the start. More than the default are for a cluster of databases. See "
        "[docs/operating.md](docs/operating.md#buckets).",
        "a whole number from 1 to 256",
        shown="16 for a new database",
        ge=1,
        le=256,
    )
    journal_retention_hours: float = number(
        72.0,
        "How long the change feed is kept, in hours: the time within which a stream of messages can resume.",
        0.01,
        87_600,
        "hours",
    )
    phone_memory_days: float = number(
        1095.0,
        "How long the opt-out of a deleted client and the mailings that they got are remembered, in days, as a keyed "
        "digest of the phone: a client added with that phone again keeps them.",
        0,
        36_500,
        "days",
    )
    log_retention_hours: float = number(168.0, "How long the event log is kept, in hours.", 0.01, 87_600, "hours")
    message_retention: Retention = setting(
        "keep",
        "How long messages and attempts are kept after their mailing is over; counters and reports stay. `keep`: for "
        "good. A part with a label, the first that fits, goes before the rest: `90d, purpose=otp:7d, "
        "purpose=contract:keep`. See [docs/operating.md](docs/operating.md).",
        "spans such as 90d, 12h or 30m, or keep, one of them for all and others behind LABEL=VALUE:",
        shown="`keep`",
    )
    message_archive_dir: FilePath | None = setting(
        None,
        "Folder to which messages and attempts are written as compressed CSV before they are removed after that time. "
        "Without it they are only removed.",
        "the path of a folder",
    )
    max_message_mib: float = number(4.0, "Maximum size of a request, in MiB.", 0.01, 1024, "MiB")
    max_streams_per_principal: int = number(
        20_000, "Maximum concurrent streams of one caller; without authentication, of one host.", 1, 1_000_000
    )
    max_streams_per_connection: int = number(
        500, "Maximum concurrent calls and streams on one connection; further ones wait in the caller.", 10, 1_000_000
    )
    max_connections_per_host: int = number(
        1000,
        "Maximum connections of one host, and no more than half of all; further ones are closed. More for a proxy that "
        "makes one for each of its callers.",
        1,
        1_000_000,
    )
    max_calls_per_principal: int = number(1000, "Maximum other concurrent calls of one caller.", 1, 100_000)
    max_calls_per_second: float = number(
        2000.0,
        "Maximum calls and streams that one caller may start per second, after a burst of as many; 0: no limit.",
        0,
        1_000_000,
        "calls a second",
    )
    max_call_seconds: float = number(
        120.0,
        "Maximum time of a call that is not a stream, in seconds, also for a longer deadline of its caller.",
        1,
        86_400,
        "seconds",
    )
    connection_age: float = number(
        3600.0,
        "Maximum connection age, in seconds (about): callers then reconnect, and spread over all replicas.",
        1,
        31_536_000,
        "seconds",
    )
    connection_grace: float = number(
        600.0,
        "How much longer than the maximum age of a connection a stream may last, in seconds.",
        1,
        86_400,
        "seconds",
    )
    max_sms_segments: int = number(
        128,
        "A text that takes more SMS segments than this for a client is not sent to them: SKIPPED, TOO_LONG. The "
        "default lets every text pass that CreateMailing accepts without placeholders.",
        1,
        1000,
    )
    frequency_cap: int = number(
        0,
        "Maximum messages per client within the period below, over all mailings that are not important; 0: no cap.",
        0,
        100_000,
    )
    frequency_period_hours: float = number(24.0, "Period of the frequency cap, in hours.", 0.01, 8760, "hours")
    report_recipients: MailAddresses = setting(
        "",
        "E-mail addresses, with commas between, that get the statistics of the day before once a day; empty: no mail "
        "is sent. In the file `[report]` holds these settings, as `recipients`.",
        "e-mail addresses with commas between",
        shown="none",
    )
    report_at: ClockTime = setting("08:00", "When the daily mail is sent.", "a time of day such as 08:00")
    report_timezone: ZoneName = setting(
        "UTC", "Zone of that time, and of the day before.", "the IANA name of a time zone, such as Europe/Berlin"
    )
    report_sender: MailAddress | None = setting(
        None, "Sender of the daily mail; needed for it.", "an e-mail address", shown="none"
    )
    report_smtp: Address | None = setting(
        None,
        "Mail server that takes the daily mail; needed for it.",
        "HOST:PORT, such as smtp.example.com:587",
        shown="none",
    )
    report_smtp_tls: Annotated[Literal["starttls", "tls", "off"], BeforeValidator(lower)] = setting(
        "starttls",
        "`starttls`: the connection is encrypted before anything is said; `tls`: from its beginning (port 465); `off`.",
        "starttls, tls or off",
    )
    report_smtp_user: str = setting("", "User at the mail server.", "a user name", shown="none")
    report_smtp_password_file: ReadableFile | None = setting(
        None, "File with that user's password, read for each mail.", "the path of a file that can be read"
    )
    report_smtp_ca_file: ReadableFile | None = setting(
        None,
        "PEM file with the certificate authorities to trust instead of the system's.",
        "the path of a PEM file that can be read",
    )
    quiet_hours: QuietHours | None = setting(
        None,
        "Hours in which nothing is sent to clients without a receive window of their own, by the clock in their zone. "
        "They may cross midnight. See [docs/concepts.md](docs/concepts.md#timetables).",
        "HH:MM-HH:MM, such as 21:00-09:00",
    )
    holidays_file: ReadableFile | None = setting(
        None,
        "TOML file with calendars of holidays, such as `germany = [2026-12-25]`: mailings name one of them, "
        "and nothing of them leaves on its days.",
        "the path of a TOML file that can be read",
    )
    tracing: bool = setting(
        False,
        "Trace calls and deliveries with OpenTelemetry, whose own variables, such as "
        "`OTEL_EXPORTER_OTLP_ENDPOINT`, set the destination. Needs `mailing-server[otel]`.",
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
        "File that gets the same entries, always as JSON: up to 20 MB, and the 5 previous ones as `.1` to `.5`.",
        "the path of a file that can be written",
        "MAILING_LOG_FILE",
        "LOGGING_FILE",
    )

    _endpoint_token_file: Path | None = PrivateAttr(None)

    @property
    def endpoint_token_file(self) -> Path | None:
        """The file that holds the endpoint's token, to be read again when it changes; None where none does."""
        return self._endpoint_token_file

    def with_token_file(self, path: Path | None) -> Self:
        """Return the settings with the file from which the endpoint's token was read."""
        self._endpoint_token_file = path
        return self

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

    @model_validator(mode="after")
    def _report_is_complete(self) -> Self:
        for name in ("report_sender", "report_smtp"):
            if self.report_recipients and getattr(self, name) is None:
                raise PydanticCustomError(
                    "report",
                    "{name} should be set: {recipients} is.",
                    {"name": variables_of(name)[0], "recipients": variables_of("report_recipients")[0]},
                )
        if bool(self.report_smtp_user) != (self.report_smtp_password_file is not None):
            raise PydanticCustomError(
                "report",
                "{user} and {file} should be set together.",
                {"user": variables_of("report_smtp_user")[0], "file": variables_of("report_smtp_password_file")[0]},
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
