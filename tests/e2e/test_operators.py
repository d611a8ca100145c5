"""What operators do on the command line, with a real service."""

from __future__ import annotations

import json

from tests.e2e.conftest import REJECTED, Cli


def entries(cli: Cli, *arguments: str) -> list[dict[str, object]]:
    ended = cli.run("--json", "log", *arguments)
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_a_stop_a_setting_and_the_log_that_tells_of_them(cli: Cli) -> None:
    assert cli.json("dispatch", "pause")["paused"] is True
    assert cli.json("dispatch", "settings", "--max-concurrency", "5")["max_concurrency"] == 5
    for phone in ("70100000001", f"70100{REJECTED}"):
        cli.json("clients", "add", phone, "--timezone", "UTC")
    mailing = cli.json("mailings", "create", "--text", "Hello", "--snapshot")["id"]
    (replica,) = cli.json("dispatch", "replicas")["replicas"]
    assert replica["endpoints"][0]["breaker"] == "BREAKER_CLOSED"
    assert not cli.json("dispatch", "resume")["paused"]
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
    assert any("The message is failed" in line for line in lines)
