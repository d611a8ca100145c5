"""`mailing tokens create`, and how commands show who calls."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from server.auth.tokens_file import TokensFile
from tests.support.tls import TlsFolder
from tests.unit.cli.conftest import Run, Service


def test_a_token_is_made_and_the_service_knows_it_by_the_line(run: Run, tmp_path: Path) -> None:
    status, out, _ = run("tokens", "create", "billing", "--scope", "mailings.read", "--scope", "mailings.write")
    token, line = out.splitlines()
    (tmp_path / "tokens").write_text(line)
    known = TokensFile(tmp_path / "tokens").by_digest(sha256(token.encode()).digest())
    assert status == 0
    assert known is not None
    assert (known.subject, sorted(known.scopes)) == ("billing", ["mailings.read", "mailings.write"])
    assert token not in line


def test_it_is_a_document_with_json(run: Run) -> None:
    document = json.loads(run("tokens", "create", "ops", "--scope", "all", "--json").out)
    assert document["name"] == "ops"
    assert document["line"] == f"ops sha256:{sha256(document['token'].encode()).hexdigest()} all"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("ops", "--scope", "everything"), "'everything' is no scope: there are clients.read, "),
        (("two words", "--scope", "all"), "'two words' is no name"),
        (("ops",), "missing option '--scope'"),
    ],
)
def test_what_the_file_could_not_have_is_not_made(run: Run, arguments: tuple[str, ...], sentence: str) -> None:
    status, out, err = run("tokens", "create", *arguments)
    assert (status, out) == (2, "")
    assert sentence in err


def test_the_token_of_the_environment_goes_along(run: Run, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILING_TOKEN", "t0ken")
    assert run("clients", "add", "70100000001", "--timezone", "UTC").status == 0
    assert service.clients.metadata["authorization"] == "Bearer t0ken"


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
