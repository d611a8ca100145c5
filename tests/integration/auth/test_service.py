"""The service as a process: closed by default, and what it says when it is opened or cannot be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from mailing import MailingClient, MailingError, tls_credentials
from server.auth.tokens_file import new_token, token_line
from server.config import ConfigError, Settings, load_settings
from server.runtime.access import is_loopback, read_access
from tests.support.issuer import AUDIENCE, NAME, IssuerServer, jwk, rsa_key, token
from tests.support.processes import PATIENCE, ended, serving
from tests.support.tls import TlsFolder

ANYWHERE = "0.0.0.0:0"


@pytest.fixture
def tls(tmp_path: Path) -> TlsFolder:
    return TlsFolder(tmp_path)


def stopped(process: subprocess.Popen[str]) -> str:
    """Stop the service and return its log."""
    process.terminate()
    return process.communicate(timeout=PATIENCE)[1]


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.8.8.8:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("LOCALHOST:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("[::ffff:10.0.0.1]:1", False),
        ("localhost.example:1", False),
        ("mailing:1", False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(address: str, loopback: bool) -> None:
    assert is_loopback(address) == loopback


def test_on_any_other_address_authentication_is_required(tmp_path: Path) -> None:
    result = ended("serve", MAILING_LISTEN=ANYWHERE, MAILING_DATA_DIR=str(tmp_path / "data"))
    assert result.returncode == 2
    assert result.stderr.startswith("Without authentication the service listens on loopback only, and MAILING_LISTEN ")
    assert result.stderr.count("\n") == 1
    assert "--insecure" in result.stderr
    assert not (tmp_path / "data").exists()


def test_insecure_opens_it_and_says_so_loudly(database_dsn: str) -> None:
    with serving(MAILING_DSN=database_dsn, MAILING_LISTEN=ANYWHERE, MAILING_INSECURE="true") as (process, address):
        with MailingClient.connect(f"127.0.0.1:{address.rpartition(':')[2]}") as client:
            assert list(client.list_mailings()) == []
        assert "INSECURE: everybody who can reach 0.0.0.0:0 may read and change everything" in stopped(process)


def test_the_command_line_has_the_flag_and_the_sentence() -> None:
    def run(*arguments: str) -> str:
        words = [sys.executable, "-m", "mailing.cli", "serve", "--listen", ANYWHERE, *arguments]
        environment = {**os.environ, "MAILING_DSN": "postgresql://127.0.0.1:1/none"}
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=PATIENCE).stderr

    assert "Without authentication" in run()
    opened = run("--insecure")
    assert "INSECURE: " in opened
    assert "Without authentication" not in opened


def test_with_tokens_and_tls_it_listens_anywhere_and_knows_its_callers(
    database_dsn: str, tls: TlsFolder, tmp_path: Path
) -> None:
    secret = new_token()
    (tmp_path / "tokens").write_text(token_line("ops", secret, ["all"]))
    settings = {
        "MAILING_DSN": database_dsn,
        "MAILING_LISTEN": ANYWHERE,
        "MAILING_TOKENS_FILE": str(tmp_path / "tokens"),
        "MAILING_TLS_CERT_FILE": str(tls.files.certificate),
        "MAILING_TLS_KEY_FILE": str(tls.files.key),
    }
    with serving(**settings) as (process, address):
        where = f"localhost:{address.rpartition(':')[2]}"
        credentials = tls_credentials(tls.ca_file)
        with MailingClient.connect(where, secret, credentials=credentials) as client:
            assert list(client.list_mailings()) == []
        with (
            MailingClient.connect(where, new_token(), credentials=credentials) as client,
            pytest.raises(MailingError) as raised,
        ):
            list(client.list_mailings())
        assert raised.value.code is grpc.StatusCode.UNAUTHENTICATED
        assert _listed(where, MAILING_TOKEN=secret, MAILING_CA_FILE=str(tls.ca_file)) == 0
        log = stopped(process)
    assert "INSECURE" not in log
    assert "plain text" not in log
    assert secret not in log


def test_certificates_are_enough_and_the_command_line_has_them(
    database_dsn: str, tls: TlsFolder, tmp_path: Path
) -> None:
    chain, key = tls.caller("operator")
    (tmp_path / "me.pem").write_bytes(chain)
    (tmp_path / "me.key").write_bytes(key)
    settings = {
        "MAILING_DSN": database_dsn,
        "MAILING_LISTEN": ANYWHERE,
        "MAILING_TLS_CERT_FILE": str(tls.files.certificate),
        "MAILING_TLS_KEY_FILE": str(tls.files.key),
        "MAILING_TLS_CLIENT_CA_FILE": str(tls.ca_file),
    }
    files = {"MAILING_CERT_FILE": str(tmp_path / "me.pem"), "MAILING_KEY_FILE": str(tmp_path / "me.key")}
    with serving(**settings) as (process, address):
        where = f"localhost:{address.rpartition(':')[2]}"
        assert _listed(where, MAILING_CA_FILE=str(tls.ca_file), **files) == 0
        assert _listed(where, MAILING_CA_FILE=str(tls.ca_file)) == 3
        assert "every certificate of " in stopped(process)


def _listed(address: str, **settings: str) -> int:
    """List mailings with the command line; return its exit status."""
    words = [sys.executable, "-m", "mailing.cli", "--address", address, "mailings", "list"]
    return subprocess.run(words, env={**os.environ, **settings}, capture_output=True, timeout=PATIENCE).returncode


def test_an_issuer_is_enough_by_its_older_names_too(database_dsn: str) -> None:
    with IssuerServer() as issuer:
        issuer.publish(jwk("rsa", rsa_key()))
        settings = {
            "MAILING_DSN": database_dsn,
            "OAUTHDOMAIN": "issuer.example",
            "OAUTHAUDIENCE": AUDIENCE,
            "MAILING_OIDC_JWKS_URL": issuer.keys_url,
        }
        with serving(**settings) as (process, address):
            assert NAME == "https://issuer.example/"
            with MailingClient.connect(address, token()) as client:
                assert list(client.list_mailings()) == []
            with MailingClient.connect(address) as client, pytest.raises(MailingError) as raised:
                list(client.list_mailings())
            assert raised.value.reason == "UNAUTHENTICATED"
            log = stopped(process)
    assert "the issuer's keys come in plain text" in log


def test_it_starts_while_the_issuer_is_away(database_dsn: str) -> None:
    settings = {"MAILING_OIDC_ISSUER": NAME, "MAILING_OIDC_AUDIENCE": AUDIENCE}
    away = {"MAILING_OIDC_JWKS_URL": "http://127.0.0.1:1/keys"}
    with serving(MAILING_DSN=database_dsn, **settings, **away) as (process, _):
        assert "the issuer's keys cannot be fetched, no key is known" in stopped(process)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"tls_cert_file": "a"}, "MAILING_TLS_CERT_FILE needs MAILING_TLS_KEY_FILE, which is not set."),
        ({"tls_key_file": "a"}, "MAILING_TLS_KEY_FILE needs MAILING_TLS_CERT_FILE, which is not set."),
        ({"tls_client_ca_file": "a"}, "MAILING_TLS_CLIENT_CA_FILE needs MAILING_TLS_CERT_FILE, which is not set."),
        ({"oidc_issuer": NAME}, "MAILING_OIDC_ISSUER needs MAILING_OIDC_AUDIENCE, which is not set."),
        ({"oidc_audience": "a"}, "MAILING_OIDC_AUDIENCE needs MAILING_OIDC_ISSUER, which is not set."),
        ({"oidc_jwks_url": "https://a"}, "MAILING_OIDC_JWKS_URL needs MAILING_OIDC_ISSUER, which is not set."),
        ({"tls_cert_file": "/none", "tls_key_file": "/none"}, "/none cannot be read: no such file or directory."),
        ({"tokens_file": "/none"}, "/none cannot be read: no such file or directory."),
    ],
)
def test_what_is_incomplete_or_not_there_is_a_sentence(settings: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_access(load_settings(**settings))
    assert raised.value.problems == [sentence]


@pytest.mark.parametrize(
    ("listen", "reflection", "served"),
    [
        ("127.0.0.1:1", "auto", True),
        ("0.0.0.0:1", "auto", False),
        ("0.0.0.0:1", "on", True),
        ("127.0.0.1:1", "off", False),
    ],
)
def test_reflection_is_on_where_only_this_machine_reaches_it(listen: str, reflection: Any, served: bool) -> None:
    assert read_access(Settings(listen=listen, reflection=reflection, insecure=True)).reflection == served


def test_tokens_in_plain_text_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "tokens").touch()
    read_access(Settings(listen=ANYWHERE, tokens_file=tmp_path / "tokens"))
    assert "tokens travel in plain text to 0.0.0.0:0" in caplog.text
