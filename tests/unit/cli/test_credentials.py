"""How commands identify the caller: tokens and certificates from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tls import TlsFolder
from tests.unit.cli.conftest import Run, Service


def test_the_token_of_the_environment_goes_along(run: Run, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILING_TOKEN", "t0ken")
    assert run("clients", "add", "70100000001", "--timezone", "UTC").status == 0
    assert service.clients.metadata["authorization"] == "Bearer t0ken"


@pytest.mark.parametrize("token", ["mlg_nRwb…", "two words", "line\n"])
def test_a_token_that_no_header_can_carry_is_not_sent(run: Run, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("MAILING_TOKEN", token)
    status, _, err = run("clients", "list")
    assert (status, "the token has a space or another character" in err) == (2, True), err


def test_half_a_certificate_and_missing_files_are_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILING_CERT_FILE", "/none.pem")
    assert run("clients", "list").err == "mailing: MAILING_CERT_FILE and MAILING_KEY_FILE go together\n"
    monkeypatch.setenv("MAILING_KEY_FILE", "/none.key")
    status, _, err = run("clients", "list")
    assert (status, err) == (2, "mailing: /none.pem cannot be read: No such file or directory\n")


def test_a_service_without_tls_is_told_from_none_at_all(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MAILING_CA_FILE", str(TlsFolder(tmp_path).ca_file))
    status, _, err = run("clients", "list")
    assert status == 3
    assert "failed: MAILING_CA_FILE names the authority to trust" in err
