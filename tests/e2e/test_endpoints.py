"""Several endpoints in a file: each mailing reaches its own, and tests and probes reach the right one."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mailing.cli.processes import ProcessError, running
from tests.e2e.conftest import EXAMPLES, REJECTED, TOKEN, Cli, Endpoint, Serve
from tests.support.eventually import eventually_sync


@pytest.fixture
def gateways(tmp_path: Path) -> Iterator[dict[str, Endpoint]]:
    """Two endpoints in processes of their own, each with a token of its own."""
    with ExitStack() as stack:
        found = {}
        for name in ("sms", "push"):
            program = [sys.executable, str(EXAMPLES / "endpoint.py"), "--listen", "127.0.0.1:0"]
            program += ["--token", f"token-of-{name}", "--reject", REJECTED]
            listening = running(program, re.compile(r"listening on (\S+)"), tmp_path / f"{name}.log", os.environ)
            found[name] = Endpoint(stack.enter_context(listening)[1])
        yield found


@pytest.fixture
def cli(serve: Serve, gateways: dict[str, Endpoint], tmp_path: Path) -> Cli:
    """Return a service whose endpoints stand in a file, with its dispatcher in another process."""
    (tmp_path / "push-token").write_text("token-of-push\n")
    file = tmp_path / "endpoints.toml"
    file.write_text(
        f"[endpoints.sms]\nurl = '{gateways['sms'].url}'\ntoken = 'token-of-sms'\n"
        f"[endpoints.push]\nurl = '{gateways['push'].url}'\ntoken_file = 'push-token'\nmax_rate = 500\n"
    )
    return serve("--dispatchers", "1", MAILING_ENDPOINT_URL="", MAILING_ENDPOINTS_FILE=str(file))


def test_each_mailing_reaches_its_own_endpoint(cli: Cli, gateways: dict[str, Endpoint]) -> None:
    for number in range(20):
        cli.json("clients", "add", f"7020000{number:04}", "--timezone", "UTC")
    ids = {
        name: str(
            cli.json("mailings", "create", "--all", "--text", f"By {name}", "--endpoint", name, "--snapshot")["id"]
        )
        for name in gateways
    }
    for name, mailing_id in ids.items():
        assert cli.json("watch", mailing_id)["progress"]["delivered"] == 20
        assert {one["text"] for one in gateways[name].received()} == {f"By {name}"}
        assert len(gateways[name].received()) == 20


def test_a_test_message_and_a_probe_reach_the_endpoint_that_is_named(cli: Cli, gateways: dict[str, Endpoint]) -> None:
    listed = cli.json("endpoints")["endpoints"]
    assert [(one["name"], one["max_rate"]) for one in listed] == [("push", 500.0), ("sms", 0.0)]
    cli.json("clients", "add", "70200000001", "--timezone", "UTC", "--tag", "gold")
    mailing = cli.json("mailings", "create", "--all", "--text", "Hi {tag}", "--endpoint", "push", "--start", "+1h")
    for _ in range(2):
        assert cli.json("test", str(mailing["id"]), "70200000001")["text"] == "Hi gold"
    sent = gateways["push"].received()
    assert [(one["phone"], one["text"]) for one in sent] == [(70200000001, "Hi gold")] * 2
    assert sent[0]["id"] != sent[1]["id"]
    assert (
        cli.json("test", f"70200{REJECTED}", "--text", "Hi", "--endpoint", "sms", status=4)["attempt"]["endpoint_code"]
        == 1
    )
    assert cli.run("endpoints", "--probe", "sms").returncode == 0
    assert [one["phone"] for one in gateways["sms"].received()] == [0]
    assert cli.json("messages", "list", "--mailing-id", str(mailing["id"]))["messages"] == []


def test_an_unknown_endpoint_is_refused_with_those_there_are(cli: Cli) -> None:
    for arguments in (("--endpoint", "fax"), ()):
        ended = cli.run("mailings", "create", "--all", "--yes", "--text", "Hi", *arguments)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert "there are push, sms." in ended.stderr


@pytest.mark.parametrize("dispatchers", ["0", "1"])
def test_a_changed_token_file_heals_the_endpoint(
    serve: Serve, endpoint: Endpoint, tmp_path: Path, dispatchers: str
) -> None:
    """Fails when the token of the environment's endpoint is read at the start only, by either kind of dispatcher."""
    file = tmp_path / "token"
    file.write_text("expired")
    cli = serve("--dispatchers", dispatchers, MAILING_ENDPOINT_TOKEN="", MAILING_ENDPOINT_TOKEN_FILE=str(file))
    for number in range(5):
        cli.json("clients", "add", f"7020000{number:04}", "--timezone", "UTC")
    mailing = str(cli.json("mailings", "create", "--all", "--text", "Hi", "--snapshot")["id"])
    eventually_sync(lambda: cli.run("endpoints").stdout, lambda shown: "credentials" in shown)
    assert endpoint.received() == []
    file.write_text(f"{TOKEN}\n")
    assert cli.run("watch", mailing).returncode == 0
    assert len(endpoint.received()) == 5
    assert cli.run("endpoints", "--probe", "default").returncode == 0


def test_a_bad_file_is_told_before_anything_is_opened(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "endpoints.toml"
    file.write_text("[endpoints.sms]\nurl = 'http://127.0.0.1:1/'\ntimeout = 0\ntoken = 'hid den'\n")
    with pytest.raises(ProcessError, match="ended with status 2") as raised:
        serve(MAILING_ENDPOINTS_FILE=str(file))
    assert f"{file}: endpoint sms: timeout should be a number of seconds" in str(raised.value)
    assert "hid den" not in str(raised.value)
