"""Settings: what the environment may say, and how it is told when it may not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from server.config import ConfigError, Settings, load_settings, masked, settings_table, split_address


def problems() -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load_settings()
    return raised.value.problems


def test_an_empty_environment_is_enough() -> None:
    settings = load_settings()
    assert settings.listen == "127.0.0.1:50051"
    assert settings.database_url is None
    assert settings.endpoint_url is None
    assert settings.data_dir.is_absolute()


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("MAILING_LISTEN", "50051", "HOST:PORT"),
        ("MAILING_LISTEN", "host:65536", "HOST:PORT"),
        ("MAILING_LISTEN", "::1:50051", "HOST:PORT"),
        ("MAILING_LISTEN", ":50051", "HOST:PORT"),
        ("MAILING_DSN", "mysql://host/db", "postgresql://"),
        ("POSTGRES_PORT", "0", "from 1 to 65535"),
        ("MAILING_ENDPOINT_URL", "ftp://host/", "http:// or https://"),
        ("MAILING_ENDPOINT_URL", "http://", "with a host"),
        ("MAILING_ENDPOINT_URL", "http://user:pw@host/", "without user or password"),
        ("MAILING_ENDPOINT_URL", "http://host:99999/", "http:// or https://"),
        ("MAILING_ENDPOINT_URL", "http://host/a b", "http:// or https://"),
        ("MAILING_SERVER_URL", "nonsense", "http:// or https://"),
        ("MAILING_INSECURE", "maybe", "true or false"),
        ("MAILING_OIDC_ISSUER", "ftp://issuer/", "http:// or https:// address, or a domain"),
        ("OAUTHDOMAIN", "two words", "http:// or https:// address, or a domain"),
        ("MAILING_OIDC_JWKS_URL", "keys", "http:// or https:// address"),
        ("MAILING_REFLECTION", "sometimes", "auto, on or off"),
        ("MAILING_ENDPOINT_TOKEN", "two words", "printable ASCII"),
        ("AUTHTOKEN", "line\nbreak", "printable ASCII"),
        ("MAILING_ENDPOINT_TRANSPORT", "carrier-pigeon", "fast or httpx"),
        ("MAILING_ENDPOINT_TIMEOUT", "0", "from 0.05 to 300"),
        ("MAILING_ENDPOINT_CONNECT_TIMEOUT", "soon", "a number of seconds"),
        ("MAILING_ENDPOINT_CA_FILE", "/does/not/exist.pem", "PEM file"),
        ("MAILING_ENDPOINT_MAX_CONCURRENCY", "0", "a whole number from 1"),
        ("MAILING_POLL_MIN", "-1", "from 0.001"),
        ("MAILING_POLL_MAX", "nan", "a number of seconds"),
        ("MAILING_RECHECK_MIN", "inf", "a number of seconds"),
        ("MAILING_RECHECK_MAX", "1e9", "to 86400"),
        ("MAILING_LEASE", "0.5", "from 1 to 3600"),
        ("MAILING_DISPATCHERS", "-1", "a whole number from 0"),
        ("MAILING_POOL_SIZE", "1.5", "a whole number from 4"),
        ("MAILING_STATEMENT_CACHE_SIZE", "many", "a whole number from 0"),
        ("MAILING_DATABASE_TIMEOUT", "0", "from 0.1"),
        ("MAILING_FREQUENCY_CAP", "-1", "a whole number from 0"),
        ("MAILING_FREQUENCY_CAP", "2.5", "a whole number from 0"),
        ("MAILING_FREQUENCY_PERIOD_HOURS", "0", "a number of hours from 0.01 to 8760"),
        ("MAILING_FREQUENCY_PERIOD_HOURS", "a day", "a number of hours"),
        ("MAILING_LOG_LEVEL", "loud", "debug, info, warning or error"),
        ("MAILING_LOG_FORMAT", "xml", "auto, console or json"),
        ("MAILING_LOG_RETENTION_HOURS", "0", "from 0.01"),
        ("MAILING_LOG_FILE", "/does/not/exist/log", "a file that can be written"),
        ("LOGGING_FILE", "/", "a file that can be written"),
    ],
)
def test_a_bad_value_is_one_sentence_that_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(variable, value)
    (sentence,) = problems()
    assert sentence.startswith(f"{variable} should be ")
    assert expected in sentence


def test_every_bad_variable_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILING_LISTEN", "nowhere")
    monkeypatch.setenv("MAILING_LEASE", "long")
    monkeypatch.setenv("MAILING_POLLMIN", "1")
    assert [sentence.split()[0] for sentence in problems()] == ["MAILING_POLLMIN", "MAILING_LISTEN", "MAILING_LEASE"]


@pytest.mark.parametrize(
    ("low", "high"),
    [
        ("MAILING_POLL_MIN", "MAILING_POLL_MAX"),
        ("MAILING_RECHECK_MIN", "MAILING_RECHECK_MAX"),
    ],
)
def test_a_lower_limit_above_its_upper_one_is_refused(monkeypatch: pytest.MonkeyPatch, low: str, high: str) -> None:
    monkeypatch.setenv(low, "2")
    monkeypatch.setenv(high, "1")
    assert problems() == [f"{low} should not be more than {high}, but 2 is more than 1."]


def test_a_frequency_cap_without_a_period_is_for_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().frequency_cap == 0
    monkeypatch.setenv("MAILING_FREQUENCY_CAP", "3")
    settings = load_settings()
    assert (settings.frequency_cap, settings.frequency_period_hours) == (3, 24.0)


def test_an_unknown_variable_is_refused_with_the_likely_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILING_POLSIZE", "3")
    assert problems() == ["MAILING_POLSIZE is not a setting of this service: did you mean MAILING_POOL_SIZE?"]


@pytest.mark.parametrize(
    "variable",
    [
        "MAILING_SERVICE_HOST",
        "MAILING_PORT",
        "MAILING_PORT_50051_TCP_ADDR",
        "MAILING_API_SERVICE_PORT_GRPC",
        "MAILING_ADDRESS",
        "MAILING_TOKEN",
    ],
)
def test_variables_of_orchestrators_and_of_the_command_line_are_ignored(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "tcp://10.0.0.1:50051")
    load_settings()


def test_an_empty_value_means_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILING_ENDPOINT_URL", "")
    monkeypatch.setenv("MAILING_POOL_SIZE", "")
    assert load_settings() == Settings()


def test_older_names_are_understood_and_the_newer_one_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILING_SERVER_URL", "http://old/")
    monkeypatch.setenv("AUTHTOKEN", "old")
    assert load_settings().endpoint_url == "http://old/"
    assert load_settings().endpoint_token.get_secret_value() == "old"
    monkeypatch.setenv("LOGGING_FILE", os.devnull)
    assert load_settings().log_file == Path(os.devnull)
    monkeypatch.setenv("MAILING_ENDPOINT_URL", "https://new/")
    monkeypatch.setenv("MAILING_ENDPOINT_TOKEN", "new")
    assert load_settings().endpoint_url == "https://new/"
    assert load_settings().endpoint_token.get_secret_value() == "new"


def test_the_postgres_names_make_a_dsn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_USER", "me")
    assert load_settings().database_url is None
    monkeypatch.setenv("POSTGRES_HOST", "db")
    assert load_settings().database_url == "postgresql://me@db:5432/me"
    monkeypatch.setenv("POSTGRES_PASSWORD", "a/b@c:d")
    monkeypatch.setenv("POSTGRES_DB", "mailings")
    monkeypatch.setenv("POSTGRES_PORT", "5433")
    assert load_settings().database_url == "postgresql://me:a%2Fb%40c%3Ad@db:5433/mailings"
    monkeypatch.setenv("MAILING_DSN", "postgresql://other/db")
    assert load_settings().database_url == "postgresql://other/db"


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILING_DSN", "postgresql://u:hidden@h/d")
    monkeypatch.setenv("POSTGRES_PASSWORD", "hidden")
    monkeypatch.setenv("AUTHTOKEN", "hidden")
    assert "hidden" not in repr(load_settings()) + str(load_settings())
    monkeypatch.setenv("MAILING_DSN", "mysql://u:hidden@h/d")
    monkeypatch.setenv("AUTHTOKEN", "hidden hidden")
    monkeypatch.setenv("MAILING_ENDPOINT_URL", "http://u:hidden@h/")
    assert len(problems()) == 3
    assert "hidden" not in " ".join(problems())


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://u:pw@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:p:w@d/@h1:1,h2:2/d", "postgresql://u:***@h1:1,h2:2/d"),
        (
            "postgresql://u@h:5432/d?password=pw&sslpassword=pw&a=1",
            "postgresql://u@h:5432/d?password=***&sslpassword=***&a=1",
        ),
        ("postgresql://u@/d?host=/run", "postgresql://u@/d?host=/run"),
    ],
)
def test_a_dsn_is_shown_without_its_passwords(dsn: str, shown: str) -> None:
    assert masked(dsn) == shown


def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILING_LISTEN", "127.0.0.1:1")
    assert load_settings(listen="127.0.0.1:2").listen == "127.0.0.1:2"
    with pytest.raises(ConfigError, match="not 'nowhere'"):
        load_settings(listen="nowhere")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().listen = "127.0.0.1:1"


def test_a_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILING_DATA_DIR", "~/mailing")
    assert load_settings().data_dir == Path.home() / "mailing"


def test_addresses_are_split_at_the_port() -> None:
    assert split_address("localhost:0") == ("localhost", 0)
    assert split_address("[::1]:50051") == ("[::1]", 50051)


def test_the_table_has_a_row_for_every_setting_and_names_no_machine() -> None:
    rows = settings_table().splitlines()[2:]
    assert len(rows) == len(Settings.model_fields)
    assert all(len(row.split("|")) == 5 and all(cell.strip() for cell in row.split("|")[1:-1]) for row in rows)
    assert "Older name: `MAILING_SERVER_URL`" in settings_table()
    assert str(Path.home()) not in settings_table()


@pytest.mark.parametrize("variable", ["MAILING_OIDC_ISSUER", "OAUTHDOMAIN"])
@pytest.mark.parametrize(
    ("value", "issuer"),
    [
        ("example.eu.auth0.com", "https://example.eu.auth0.com/"),
        ("https://issuer.example/realms/a", "https://issuer.example/realms/a"),
        ("https://issuer.example/", "https://issuer.example/"),
    ],
)
def test_an_issuer_is_an_address_as_it_is_or_a_domain(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, issuer: str
) -> None:
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("OAUTHAUDIENCE", "us")
    settings = load_settings()
    assert (settings.oidc_issuer, settings.oidc_audience) == (issuer, "us")
