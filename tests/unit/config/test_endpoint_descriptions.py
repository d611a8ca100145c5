"""Endpoints by description: what the file may say, and what is said when an endpoint cannot work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dispatcher.described_answers import judge_of
from dispatcher.model.endpoints import Answer, Endpoint
from dispatcher.model.states import ErrorClass
from mailing.cli.failures import ExitStatus
from server.cli import main
from server.config import ConfigError, load_settings
from server.domain.signatures import Signed
from server.endpoints.endpoints_file import read_endpoints
from server.endpoints.senders import configured_endpoints
from tests.support.documents import page
from tests.support.project import ROOT

BASE = "[endpoints.sms]\nurl = 'https://host/send'\n"
TO = "json = { to = '{phone}' }\n"
LIST = "json = { a = [{ to = '{phone}' }] }\n"


def written(folder: Path, lines: str) -> Path:
    path = folder / "endpoints.toml"
    path.write_text(BASE + lines, encoding="utf-8")
    return path


def read(folder: Path, lines: str) -> Endpoint:
    [found] = read_endpoints(written(folder, lines))
    return found.endpoint


def problem(folder: Path, lines: str) -> str:
    with pytest.raises(ConfigError) as raised:
        read(folder, lines)
    [sentence] = raised.value.problems
    return sentence


def headers(endpoint: Endpoint) -> dict[str, bytes]:
    assert endpoint.request is not None
    return dict(endpoint.request.render(5, "7916", "Hi").headers)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("json = { to = '{fone}' }", "json.to has an unknown placeholder {fone}: there are {id}"),
        ("json = { t = '{text}' }", "json names nobody: the request needs"),
        ("json = 5", "json should be a table or a list, without dates and times, not 5"),
        ("json = { to = '{phone}', at = 2026-01-01 }", "json should be a table or a list, without dates and times"),
        ("json = { to = '{secret.key}{phone}' }", "json.to has {secret.key}, but secrets has no key"),
        (TO + "form = { to = '{phone}' }", "form stands beside json"),
        (TO + "method = 'DELETE'", "method should be POST, PUT, PATCH or GET, not 'DELETE'"),
        (TO + "requires = ['a b']", "requires should be a list of names of attributes, not 'a b'"),
        (TO + "headers = { Host = 'x' }", "headers.Host is made by the service itself"),
        (
            TO + "auth = 'digest'",
            "auth should be bearer, or a table with basic, oauth2, or header and value, not 'digest'",
        ),
        (TO + "auth = { header = 'X' }", "auth should have a header with either value or value_file"),
        (TO + "auth = { basic = { user = 'a' } }", "auth.basic should have either password or password_file"),
        (TO + "auth = { basic = { password = 'a' } }", "auth.basic.user is missing"),
        (
            TO + "auth = { basic = { user = 'a', password_file = 'nowhere' } }",
            "auth.basic.password_file should be the path",
        ),
        (TO + "secrets = { a = 5 }", "secrets should be a table of texts by name"),
        (TO + "secrets = { a_file = 'nowhere' }", "secrets should be a table of texts by name"),
        (
            TO + "errors = [{ class = 'odd' }]",
            "errors[0].class should be throttled, transient, refused, opted_out, or cred",
        ),
        (TO + "errors = [{ statuses = [400] }]", "errors[0].class is missing"),
        (TO + "errors = [{ values = [1], class = 'refused' }]", "an entry of errors has values, but no at"),
        (TO + "errors = [{ at = 'code', class = 'refused' }]", "errors[0].at should be a JSON pointer"),
        (
            TO + "errors = [{ clas = 'refused', class = 'refused' }]",
            "errors[0].clas is no key of this table: did you mean",
        ),
        (
            TO + "success = { at = 'status' }",
            "success.at should be a JSON pointer, such as /messages/0/status, not 'status'",
        ),
        (TO + "success = { at = '/a', field = 'a' }", "success has field and at, one should go"),
        (TO + "provider_id = 'header:'", "provider_id should be a JSON pointer, or header:NAME, not 'header:'"),
        (TO + "batch = { max = 0 }", "batch.max should be a whole number from 1 to 1000, not 0"),
        (TO + "batch = { max = 9 }", "batch.items should point to a list in json with one element"),
        (LIST + "batch = { max = 9, items = '/b' }", "batch.items points to nothing in json"),
        (LIST + "batch = { max = 9, items = '/a', id = '/id' }", "batch has id, but no results that say where"),
        ("form = { to = '{phone}' }\nbatch = { max = 9 }", "batch needs json, whose list it fills"),
        (
            "json = { n = '{phone}', a = [1] }\nbatch = { max = 9, items = '/a' }",
            "json has a placeholder of one message",
        ),
        (LIST + "headers = { X = '{id}' }\nbatch = { max = 9, items = '/a' }", "headers.X has a placeholder of one"),
        (LIST + "query = { to = '{phone}' }\nbatch = { max = 9, items = '/a' }", "query.to has a placeholder of one"),
        (TO + "retry_after = 5", "retry_after should be a JSON pointer, or header:NAME, not 5"),
    ],
)
def test_what_cannot_work_ends_the_start_with_its_key(lines: str, expected: str, tmp_path: Path) -> None:
    sentence = problem(tmp_path, lines)
    assert f": endpoint sms: {expected}" in sentence
    assert sentence.endswith((".", "?"))


def test_a_batch_takes_longer_answers_and_more_in_flight(tmp_path: Path) -> None:
    single, batch = read(tmp_path, LIST), read(tmp_path, LIST + "batch = { max = 100, items = '/a' }")
    assert (single.messages_per_request, batch.messages_per_request) == (1, 100)
    assert batch.max_response_bytes > single.max_response_bytes
    assert batch.request is not None
    body = batch.request.render_batch([("1", "7916", "x"), ("2", "7917", "x")]).body
    assert body == b'{"a":[{"to":"7916"},{"to":"7917"}]}'


def test_a_placeholder_in_the_host_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.toml"
    path.write_text("[endpoints.sms]\nurl = 'https://host.{phone}/x'\n")
    with pytest.raises(ConfigError, match=r"endpoint sms: url"):
        read_endpoints(path)


def test_credentials_become_headers(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("pä:ss\n", encoding="latin-1")
    basic = read(tmp_path, TO + "auth = { basic = { user = 'me', password_file = 'p' } }")
    assert headers(basic) == {"Authorization": b"Basic bWU6cMOkOnNz"}
    (tmp_path / "key").write_text("{k}\n")
    key = read(tmp_path, TO + "auth = { header = 'X-Key', value_file = 'key' }")
    assert headers(key) == {"X-Key": b"{k}"}
    named = read(tmp_path, TO + "auth = { header = 'X-Key', value = 'App {secret.k}' }\nsecrets = { k_file = 'key' }")
    assert headers(named) == {"X-Key": b"App {k}"}
    bearer = read(tmp_path, TO + "auth = 'bearer'\ntoken = 't0ken'")
    assert (headers(bearer), bearer.token) == ({}, "t0ken")


def test_success_may_be_any_status_and_value(tmp_path: Path) -> None:
    judge = judge_of(read(tmp_path, TO + "success = { statuses = [200, 409], at = '/ok', values = [true, 1.5] }"))

    def delivered(status: int, body: bytes) -> bool:
        return judge(Answer(status, body, None, ErrorClass.NONE, True, 0.1)).delivered

    assert delivered(409, b'{"ok":true}')
    assert delivered(200, b'{"ok":1.5}')
    assert not delivered(200, b'{"ok":1}')
    assert not delivered(201, b'{"ok":true}')


def test_no_secret_of_a_description_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Fails when `check` renders the real request, and when a bad value is shown."""
    lines = (
        "token = 'hidden1'\nsecrets = { a = 'hidden2' }\nauth = { basic = { user = 'u', password = 'hidden3' } }\n"
        "json = { to = '{phone}', key = '{secret.a}' }\n"
    )
    path = written(tmp_path, lines)
    assert "hidden" not in repr(read_endpoints(path))
    assert main(["endpoints", "check", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "hidden" not in shown
    assert "aGlkZGVu" not in shown
    assert "Authorization: Basic ***" in shown
    assert '"key":"***"' in shown
    for bad in ("secrets = { a = ['hidden'] }", "auth = { header = 'a b', value = 'hidden' }", "token = 'hid den'"):
        assert not re.search("hid ?den", problem(tmp_path, TO + bad))


@pytest.mark.parametrize("path", sorted((ROOT / "examples" / "endpoints").glob("*.toml")), ids=lambda path: path.stem)
def test_a_preset_is_explained_and_every_rule_of_it_applies(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["endpoints", "check", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "replace-me" not in shown.replace("***", "")
    assert f"`examples/endpoints/{path.name}`" in page("gateways")
    declared = set(re.findall(r'class = "(\w+)"', path.read_text(encoding="utf-8")))
    judged = {
        line.split("  ")[-1] and word.lower()
        for line in shown.splitlines()
        for word in re.findall(r"\b[A-Z_]{5,}\b", line)
    }
    assert declared <= judged


def test_a_file_that_cannot_be_used_is_refused_by_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["endpoints", "check", str(written(tmp_path, "json = { to = '{fone}' }"))]) == ExitStatus.BAD_INPUT
    assert "unknown placeholder {fone}" in capsys.readouterr().err


def test_the_page_names_every_key() -> None:
    from server.endpoints.endpoint_entry import Entry, keys_of

    text = page("gateways") + page("endpoints-and-delivery")
    assert [key for key in keys_of(Entry) if f"`{key}`" not in text] == []


RECEIPTS = "parse = 'json'\nid = 'id'\nstatus = 'status'\ndelivered = ['ok', 1]\n"


def with_receipts(lines: str, **changes: str) -> str:
    return f"{TO}[endpoints.sms.receipts]\n{changes.get('base', RECEIPTS)}{lines}\n"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("", "receipts.verify is missing: a table with one of path, bearer"),
        (
            "verify = {}",
            "verify should have exactly one of path, bearer, basic, hmac-sha256, twilio, mailgun",
        ),
        ("verify = { path = 'a', bearer = 'b' }", "verify should have exactly one of path"),
        ("verify = { bearer_file = 'nowhere' }", "receipts.verify.bearer_file should be the path of a file"),
        ("verify = { hmac-sha256 = { header = 'X' } }", "verify.hmac-sha256 should have either secret or secret_file"),
        ("verify = { hmac-sha256 = { secret = 'x' } }", "receipts.verify.hmac-sha256.header is missing"),
        ("verify = { standard-webhooks = 'x y' }", "verify.standard-webhooks is no secret of Standard Webhooks"),
        ("verify = { path = 'x' }\nitems = 'a'", "receipts.items should be a JSON pointer"),
        ("verify = { path = 'x' }\nopted_out = ['1']", "receipts.opted_out has codes, but code does not say"),
        (
            "verify = { path = 'x' }\nfailed = [[]]",
            "receipts.failed should be a list of texts, numbers, true and false",
        ),
        ("verify = { path = 'x' }\nstatsu = 'a'", "receipts.statsu is no key of this table: did you mean status?"),
    ],
)
def test_receipts_that_cannot_work_end_the_start(lines: str, expected: str, tmp_path: Path) -> None:
    sentence = problem(tmp_path, with_receipts(lines))
    assert f": endpoint sms: {expected}" in sentence
    assert "'x y'" not in sentence


def test_the_address_of_receipts_is_put_into_requests(tmp_path: Path) -> None:
    lines = (
        TO.replace("'{phone}'", "'{phone}', back = '{receipt_url}'")
        + with_receipts("verify = { path = 's/3' }")[len(TO) :]
    )
    with pytest.raises(ConfigError, match=r"json.back has \{receipt_url\}, but MAILING_RECEIPTS_URL is not set"):
        read(tmp_path, lines)
    [found] = read_endpoints(written(tmp_path, lines), "https://r.example/in/")
    assert found.endpoint.request is not None
    body = found.endpoint.request.render(5, "7916", "Hi").body
    assert body == b'{"to":"7916","back":"https://r.example/in/receipts/sms/s%2F3?message=5"}'
    assert found.receipts is not None
    assert found.receipts.verify(Signed("s/3", "", {}, b""))


def test_receipts_need_a_listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when receipts are configured and nobody takes them."""
    path = written(tmp_path, with_receipts("verify = { path = 'x' }"))
    monkeypatch.setenv("MAILING_ENDPOINTS_FILE", str(path))
    with pytest.raises(ConfigError, match="endpoint sms: receipts is configured, but MAILING_RECEIPTS_LISTEN is off"):
        configured_endpoints(load_settings())
    monkeypatch.setenv("MAILING_RECEIPTS_LISTEN", "127.0.0.1:0")
    assert len(configured_endpoints(load_settings())) == 1
    written(tmp_path, with_receipts("verify = { twilio = 'x' }"))
    with pytest.raises(ConfigError, match="is signed together with its address: MAILING_RECEIPTS_URL should be set"):
        configured_endpoints(load_settings())


INBOUND = "[endpoints.sms.inbound]\nparse = 'form'\nfrom = 'From'\ntext = 'Body'\n"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("", "inbound.verify is missing"),
        ("verify = { path = 'x' }\nitems = '/a'", "inbound.items leads into a body of JSON, but parse is another"),
        ("verify = { path = 'x' }\nstop = ['']", "inbound.stop should be a list of words"),
        ("verify = { path = 'x' }\nsender = 'a'", "inbound.sender is no key of this table"),
    ],
)
def test_inbound_messages_that_cannot_be_read_end_the_start(lines: str, expected: str, tmp_path: Path) -> None:
    assert f": endpoint sms: {expected}" in problem(tmp_path, f"{TO}{INBOUND}{lines}\n")
