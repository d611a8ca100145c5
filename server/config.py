"""The settings of the service: read from the environment, here and nowhere else.

All of them are checked together before anything is opened; `ConfigError` has one sentence
per bad variable. Secrets are never shown, neither in errors nor in a repr.
"""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote

from platformdirs import user_data_dir
from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from server.values import EndpointUrl, ReadableFile, Token, Transport, endpoint_url, lower

_PREFIX = "MAILING_"

_OF_CLIENTS = frozenset(
    {"MAILING_ADDRESS", "MAILING_TOKEN", "MAILING_TLS", "MAILING_CA_FILE", "MAILING_CERT_FILE", "MAILING_KEY_FILE"}
)
"""What the command line reads when it calls a service; the service itself ignores it."""

_ORCHESTRATOR = re.compile(r"MAILING_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)")
"""What Kubernetes puts into the environment of every pod for a service called mailing."""


class ConfigError(Exception):
    """The environment cannot be used. `problems` has one sentence per bad variable."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _setting(default: Any, meaning: str, expects: str, *names: str, shown: str | None = None, **limits: Any) -> Any:
    """A field: what it means, what its value should be, its variable names if they differ from the field's."""
    alias = AliasChoices(*names) if names else None
    extra: dict[str, Any] = {"expects": expects, "shown": shown}
    if callable(default):
        return Field(
            default_factory=default, description=meaning, validation_alias=alias, json_schema_extra=extra, **limits
        )
    return Field(default, description=meaning, validation_alias=alias, json_schema_extra=extra, **limits)


def _number(default: float, meaning: str, lowest: float, highest: float, unit: str = "") -> Any:
    """A field for a number within limits, both included."""
    whole = "a whole number" if isinstance(default, int) and not unit else "a number"
    expects = f"{whole}{f' of {unit}' if unit else ''} from {lowest:g} to {highest:g}"
    return _setting(default, meaning, expects, ge=lowest, le=highest)


def _address(value: str) -> str:
    split_address(value)
    return value


def split_address(address: str) -> tuple[str, int]:
    """Returns host and port of `HOST:PORT` or `[IPv6]:PORT`. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535 or (":" in host and host[0] != "["):
        raise ValueError(address)
    return host, int(port)


def _issuer(value: str) -> str:
    """Returns the issuer; a domain stands for the name that Auth0 gives itself, slash included."""
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


class Settings(BaseSettings):
    """Everything about the service that can be set. Make one with `load_settings`."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        populate_by_name=True,
        validate_default=False,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    listen: Annotated[str, AfterValidator(_address)] = _setting(
        "127.0.0.1:50051",
        "Address of the gRPC API. Port 0 takes any free one.",
        "HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051",
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
                        "low": _variables(low)[0],
                        "high": _variables(high)[0],
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


def load_settings(**overrides: Any) -> Settings:
    """Returns the settings of the environment; `overrides` (by field name) win. Raises ConfigError."""
    problems = _unknown_variables()
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        problems += _sentences(error)
    if problems:
        raise ConfigError(problems)
    return settings


def settings_table() -> str:
    """Returns all settings as a Markdown table, as the README has it."""
    rows = ["| Variable | Default | Meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        variable, *older = _variables(name)
        also = f" Older name: {', '.join(f'`{other}`' for other in older)}." if older else ""
        rows.append(f"| `{variable}` | {_shown_default(field)} | {field.description}{also} |")
    return "\n".join(rows) + "\n"


def masked(dsn: str) -> str:
    """Returns a DSN as it may be shown: without its passwords."""
    without = re.sub(r"(?<=://)([^:/?#@]*):.*@", r"\1:***@", dsn)
    return re.sub(r"(?<=[?&])((?:ssl)?password=)[^&]*", r"\1***", without)


def _variables(name: str) -> list[str]:
    """The environment variables of a field, the name to use first."""
    alias = Settings.model_fields[name].validation_alias
    if isinstance(alias, AliasChoices):
        return [str(choice) for choice in alias.choices]
    return [_PREFIX + name.upper()]


def _extra(field: FieldInfo) -> dict[str, Any]:
    assert isinstance(field.json_schema_extra, dict)
    return dict(field.json_schema_extra)


def _shown_default(field: FieldInfo) -> str:
    shown = _extra(field)["shown"]
    if shown:
        return str(shown)
    if field.default is None or isinstance(field.default, SecretStr):
        return "none"
    return f"`{field.default:g}`" if isinstance(field.default, float) else f"`{field.default}`"


def _unknown_variables() -> list[str]:
    known = {variable for name in Settings.model_fields for variable in _variables(name)}
    foreign = {variable for variable in os.environ if _ORCHESTRATOR.fullmatch(variable)} | _OF_CLIENTS
    problems = []
    for variable in sorted(os.environ.keys() - known - foreign):
        if variable.startswith(_PREFIX):
            similar = get_close_matches(variable.removeprefix(_PREFIX), [one.removeprefix(_PREFIX) for one in known], 1)
            advice = f"did you mean {_PREFIX}{similar[0]}?" if similar else "the README lists those there are."
            problems.append(f"{variable} is not a setting of this service: {advice}")
    return problems


def _sentences(error: ValidationError) -> list[str]:
    """One sentence per bad variable, naming the one that was actually set."""
    sentences = {}
    for problem in error.errors(include_url=False, include_context=False):
        if problem["type"] == "pair":
            sentences[problem["msg"]] = problem["msg"]
            continue
        name = _field_at(str(problem["loc"][0]))
        field, variables = Settings.model_fields[name], _variables(name)
        variable = next((one for one in variables if os.environ.get(one)), variables[0])
        value = problem["input"]
        secret = "SecretStr" in str(field.annotation) or bool({"@", "?"} & set(str(value)))
        instead = "" if secret else f", not {value!r}"
        sentences[name] = f"{variable} should be {_extra(field)['expects']}{instead}."
    return list(sentences.values())


def _field_at(location: str) -> str:
    """The field of an error's location, which is its name or one of its variables."""
    for name in Settings.model_fields:
        if location.upper() in (name.upper(), *_variables(name)):
            return name
    raise KeyError(location)
