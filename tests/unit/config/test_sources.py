"""Settings from options, the environment and a file: which one wins, what is refused, what is shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from server.config import ConfigError, environment_of, load, load_settings, rows_in_force
from server.config.settings import Settings, is_secret


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mailing.toml"
    path.write_text("pool_size = 11\npoll_max = 2.5\nendpoint_url = 'http://file/'\n")
    return path


def settings_of(path: Path, **options: str) -> Settings:
    return load(path, options).settings


def problems(path: Path, text: str, **options: str) -> list[str]:
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load(path, options)
    return raised.value.problems


def test_options_override_the_environment_which_overrides_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when the order of the sources in `load` is another one."""
    assert (settings_of(file).pool_size, settings_of(file).poll_max) == (11, 2.5)
    monkeypatch.setenv("MAILING_POOL_SIZE", "12")
    assert settings_of(file).pool_size == 12
    assert settings_of(file, pool_size="13").pool_size == 13
    monkeypatch.setenv("MAILING_POOL_SIZE", "")
    assert settings_of(file).pool_size == 11


def test_an_older_name_overrides_the_file_but_not_an_option(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILING_SERVER_URL", "http://environment/")
    assert settings_of(file).endpoint_url == "http://environment/"
    assert settings_of(file, endpoint_url="http://option/").endpoint_url == "http://option/"


def test_the_file_may_be_named_by_the_environment_and_an_option_wins(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILING_CONFIG_FILE", str(file))
    assert load_settings().pool_size == 11
    (tmp_path / "other.toml").write_text("pool_size = 21")
    assert settings_of(tmp_path / "other.toml").pool_size == 21


def test_every_setting_may_stand_in_the_file(tmp_path: Path) -> None:
    """Of each setting the default, written as TOML; a setting that only the environment can say fails."""
    plain = {name: getattr(Settings(), name) for name in Settings.model_fields if not is_secret(name)}
    lines = [f"{name} = {value!r}".replace("True", "true").replace("False", "false") for name, value in plain.items()
             if isinstance(value, str | int | float)]  # fmt: skip
    path = tmp_path / "all.toml"
    path.write_text("\n".join(lines))
    assert settings_of(path) == Settings()


def test_paths_in_the_file_begin_at_its_folder(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    (tmp_path / "mailing.toml").write_text("endpoint_ca_file = 'ca.pem'\ndata_dir = '/var/lib/mailing'\n")
    settings = settings_of(tmp_path / "mailing.toml")
    assert (settings.endpoint_ca_file, settings.data_dir) == (tmp_path / "ca.pem", Path("/var/lib/mailing"))


def test_a_table_holds_settings_whose_names_begin_alike(tmp_path: Path) -> None:
    (tmp_path / "mailing.toml").write_text(
        '[report]\nrecipients = ["a@example.com", "b@example.com"]\nat = "07:30"\nsender = "m@example.com"\n'
        'smtp = "localhost:25"\n'
    )
    settings = settings_of(tmp_path / "mailing.toml")
    assert (settings.report_recipients, settings.report_at) == ("a@example.com, b@example.com", "07:30")
    path = tmp_path / "bad.toml"
    assert problems(path, '[report]\ntime = "7:30"\nat = "25:00"\ntimezone = "Mars"\nrecipients = ["a b"]') == [
        f"{path}: report.time is not a setting of this service: did you mean report_timezone?",
        f"{path}: report.recipients should be e-mail addresses with commas between, not 'a b'.",
        f"{path}: report.at should be a time of day such as 08:00, not '25:00'.",
        f"{path}: report.timezone should be the IANA name of a time zone, such as Europe/Berlin, not 'Mars'.",
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('recipients = "a@b.example"', "MAILING_REPORT_SENDER should be set: MAILING_REPORT_RECIPIENTS is."),
        (
            'recipients = "a@b.example"\nsender = "m@b.example"',
            "MAILING_REPORT_SMTP should be set: MAILING_REPORT_RECIPIENTS is.",
        ),
        (
            'smtp_user = "mailing"',
            "MAILING_REPORT_SMTP_USER and MAILING_REPORT_SMTP_PASSWORD_FILE should be set together.",
        ),
    ],
)
def test_a_daily_mail_needs_all_of_its_settings(tmp_path: Path, content: str, sentence: str) -> None:
    assert problems(tmp_path / "mailing.toml", f"[report]\n{content}") == [sentence]


def test_unknown_keys_and_options_are_errors_with_a_suggestion(tmp_path: Path) -> None:
    path = tmp_path / "mailing.toml"
    assert problems(path, "poolsize = 3", pol_max="1") == [
        f"{path}: poolsize is not a setting of this service: did you mean pool_size?",
        "The option pol_max is not a setting of this service: did you mean poll_max?",
    ]
    assert problems(path, "[server]\nx = 1") == [
        f"{path}: server is not a setting of this service: `mailing-server config` lists those there are."
    ]


@pytest.mark.parametrize("value", ["0", "1.5", "true", "'many'", "[20]", "{ a = 1 }"])
def test_a_bad_value_in_the_file_is_a_sentence_with_file_and_key(tmp_path: Path, value: str) -> None:
    path = tmp_path / "mailing.toml"
    (sentence,) = problems(path, f"pool_size = {value}")
    assert sentence.startswith(f"{path}: pool_size should be a whole number from 4 to 1000")


def test_a_bad_option_is_named_as_one(tmp_path: Path) -> None:
    assert problems(tmp_path / "mailing.toml", "", listen="nowhere") == [
        "The option listen should be HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051, not 'nowhere'."
    ]


@pytest.mark.parametrize(
    ("content", "why"), [(None, "no such file"), (b"a =", "is not TOML"), (b"a = '\xff'", "not UTF-8")]
)
def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "mailing.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        load(path)
    (sentence,) = raised.value.problems
    assert str(path) in sentence
    assert why in sentence


def test_a_secret_may_come_from_a_file_that_its_variable_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("t0k3n\n")
    monkeypatch.setenv("MAILING_ENDPOINT_TOKEN_FILE", str(tmp_path / "token"))
    loaded = load()
    assert loaded.settings.endpoint_token.get_secret_value() == "t0k3n"
    assert loaded.places == {"endpoint_token": "MAILING_ENDPOINT_TOKEN_FILE"}
    monkeypatch.setenv("AUTHTOKEN", "other")
    with pytest.raises(ConfigError, match="AUTHTOKEN and MAILING_ENDPOINT_TOKEN_FILE are both set, one should go"):
        load()
    monkeypatch.delenv("AUTHTOKEN")
    monkeypatch.setenv("MAILING_ENDPOINT_TOKEN_FILE", str(tmp_path))
    with pytest.raises(ConfigError, match="MAILING_ENDPOINT_TOKEN_FILE should be the path of a file"):
        load()


def test_a_secret_is_no_option(tmp_path: Path) -> None:
    (sentence,) = problems(tmp_path / "mailing.toml", "", endpoint_token="hid" + "den")
    assert sentence.startswith("endpoint_token is a secret and no option")
    assert "hidden" not in sentence


def test_what_is_in_force_is_shown_with_its_place_and_without_secrets(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("endpoint_url = 'https://h/send?key=hidden&id='\n")
    monkeypatch.setenv("MAILING_DSN", "postgresql://u:hidden@h/d?password=hidden")
    monkeypatch.setenv("AUTHTOKEN", "hidden")
    loaded = load(file, {"pool_size": "13"})
    shown = {str(row["name"]): (row["value"], row["from"]) for row in rows_in_force(loaded)}
    assert list(shown) == list(Settings.model_fields)
    assert "hidden" not in repr(shown)
    assert shown["pool_size"] == (13, "the option pool_size")
    assert shown["poll_max"] == (5.0, "default")
    assert shown["dsn"] == ("postgresql://u:***@h/d?password=***", "MAILING_DSN")
    assert shown["endpoint_token"] == ("***", "AUTHTOKEN")
    assert shown["endpoint_url"] == ("https://h/send?key=***&id=", f"{file}: endpoint_url")


def test_the_password_of_postgres_is_shown_with_its_place_alone(file: Path) -> None:
    file.write_text("postgres_password = 'hidden'\n")
    (shown,) = (row for row in rows_in_force(load(file)) if row["name"] == "postgres_password")
    assert (shown["value"], shown["from"]) == ("***", f"{file}: postgres_password")


def test_processes_beside_the_server_load_the_same_settings(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when options, the file's keys or secrets do not reach them."""
    (tmp_path / "token").write_text("t0k3n\n")
    monkeypatch.setenv("MAILING_ENDPOINT_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("MAILING_CONFIG_FILE", str(file))
    monkeypatch.setenv("MAILING_LOG_LEVEL", "DEBUG")
    settings = load_settings(lease="30", data_dir=str(tmp_path))
    for name, value in environment_of(settings).items():
        monkeypatch.setitem(os.environ, name, value)
    file.write_text("pool_size = 99")
    assert load_settings() == settings


def test_a_service_link_is_no_port(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("POSTGRES_HOST", "db")
    monkeypatch.setenv("POSTGRES_PORT", "tcp://10.0.0.1:5432")
    assert load_settings().postgres_port == 5432
    assert "POSTGRES_PORT is ignored" in caplog.text


def test_beside_a_dsn_the_variables_of_postgres_do_not_count(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Fails when a variable that belongs to somebody else stops a service that does not need it."""
    for name, value in {"PORT": "x", "HOST": "db", "PASSWORD": "a", "PASSWORD_FILE": str(tmp_path / "none")}.items():
        monkeypatch.setenv(f"POSTGRES_{name}", value)
    with pytest.raises(ConfigError):
        load()
    monkeypatch.setenv("MAILING_DSN", "postgresql://u@h/d")
    loaded = load()
    assert (loaded.settings.postgres_host, {*loaded.places}) == (None, {"dsn"})
    monkeypatch.delenv("MAILING_DSN")
    (tmp_path / "dsn").write_text("postgresql://u@h/d")
    monkeypatch.setenv("MAILING_DSN_FILE", str(tmp_path / "dsn"))
    assert {*load().places} == {"dsn"}
    monkeypatch.delenv("MAILING_DSN_FILE")
    (tmp_path / "mailing.toml").write_text("dsn = 'postgresql://u@h/d'\npostgres_port = 'x'\n")
    assert {*load(tmp_path / "mailing.toml").places} == {"dsn"}
