"""What operators do on the command line, with a real service."""

from __future__ import annotations

import json
import sys

import pytest

from tests.e2e.conftest import REJECTED, Cli
from tests.support.terminal import terminal


def entries(cli: Cli, *arguments: str) -> list[dict[str, object]]:
    ended = cli.run("--json", "log", *arguments)
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_a_stop_a_setting_and_the_log_that_tells_of_them(cli: Cli) -> None:
    assert cli.json("dispatchers", "pause")["paused"] is True
    assert cli.json("dispatchers", "settings", "--max-concurrency", "5")["max_concurrency"] == 5
    for phone in ("70100000001", f"70100{REJECTED}"):
        cli.json("clients", "add", phone, "--timezone", "UTC")
    mailing = cli.json("mailings", "create", "--all", "--text", "Hello", "--snapshot")["id"]
    (replica,) = cli.json("dispatchers", "list")["replicas"]
    assert replica["endpoints"][0]["breaker"] == "BREAKER_CLOSED"
    assert not cli.json("dispatchers", "resume")["paused"]
    assert cli.run("watch", str(mailing)).returncode == 4

    told = entries(cli, "--mailing-id", str(mailing))
    assert [one["event"] for one in told][:2] == ["mailing.created", "mailing.started"]
    assert {"mailing.expanded", "mailing.completed", "message.failed"} <= {one["event"] for one in told}
    (failed,) = entries(cli, "--mailing-id", str(mailing), "--level", "error")
    assert failed["event"] == "message.failed"
    assert [one["event"] for one in entries(cli) if str(one["event"]).startswith("dispatch.")] == [
        "dispatch.paused",
        "dispatch.settings",
        "dispatch.resumed",
    ]
    lines = cli.run("log", "--client-id", str(failed["client_id"])).stdout.splitlines()
    assert any("Message failed: refused (HTTP 200, code 1): this phone is rejected" in line for line in lines)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_top_shows_and_steers(cli: Cli) -> None:
    cli.json("clients", "add", "70100000002", "--timezone", "UTC")
    mailing = cli.json("mailings", "create", "--all", "--text", "Hello", "--title", "Open house")["id"]
    with terminal("top", address=cli.address) as top:
        for text in ("MAILING", str(mailing), "running", "Open house", "ENDPOINT", "default", "DISPATCHER"):
            top.shows(text)
        top.type("py")
        top.shows(f"mailing {mailing} is paused")
        assert cli.json("mailings", "get", str(mailing))["state"] == "STATE_PAUSED"
        top.type("p")
        top.shows(f"mailing {mailing} is resumed")
        top.type("Py")
        top.shows("ALL SENDING IS STOPPED")
        assert cli.json("dispatchers", "settings")["paused"] is True
        top.type("P")
        top.shows("sending is resumed")
        top.type("q")
        assert top.ended() == 0
    assert cli.json("dispatchers", "settings")["paused"] is False
    cli.json("mailings", "cancel", str(mailing))


def test_top_without_a_terminal(cli: Cli) -> None:
    (line,) = cli.run("top", "--updates", "1").stdout.splitlines()
    assert "1 dispatchers, 0 in flight" in line
    (document,) = map(json.loads, cli.run("--json", "top", "--updates", "1").stdout.splitlines())
    assert document["dispatch"]["replicas"][0]["endpoints"][0]["name"] == "default"
