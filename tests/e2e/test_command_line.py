"""What a person at a shell does, from an empty database to the last statistics."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailing.cli.processes import running
from tests.conftest import TEMPLATE, PostgresServer
from tests.e2e.conftest import EXAMPLES, PROGRAM, SERVING, Cli, Endpoint, environment

HEADER = "phone,timezone,tag,window_start,window_end\n"


@pytest.fixture(scope="module")
def shared(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """Yield the command line, pointed at a service that sends nothing and serves all tests that see only their own."""
    dsn = postgres_server.dsn(asyncio.run(postgres_server.create(TEMPLATE)))
    settings = environment(MAILING_DSN=dsn, MAILING_ENDPOINT_URL="http://127.0.0.1:9/")
    log = tmp_path_factory.mktemp("shared") / "service.log"
    with running([*PROGRAM, "serve", "--listen", "127.0.0.1:0"], SERVING, log, settings) as serving:
        yield Cli(serving[1])


def clients_file(folder: Path, *rows: str, count: int = 0) -> str:
    path = folder / "clients.csv"
    made = "".join(f"7010{number:07},Europe/Moscow,many,,\n" for number in range(count))
    path.write_text(HEADER + made + "".join(row + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_a_mailing_reaches_exactly_the_clients_it_is_for(cli: Cli, endpoint: Endpoint, tmp_path: Path) -> None:
    rows = ["70200000001,Asia/Tokyo,few,00:00,00:00", "70200000002,Asia/Tokyo,few,,", "70200000003,UTC,none,,"]
    outcome = cli.json("clients", "import", clients_file(tmp_path, *rows, count=1000))
    assert outcome == {"created": 1003, "updated": 0, "unchanged": 0, "skipped": 0, "errors": []}

    mailing = cli.json("mailings", "create", "--text", "Hello {phone}", "--tag", "many", "--tag", "few", "--snapshot")
    watched = cli.run("watch", str(mailing["id"]))
    assert watched.returncode == 0, watched.stderr
    assert "1,002 of 1,002 delivered" in watched.stdout

    messages = cli.json("messages", "list", "--mailing-id", str(mailing["id"]), "--limit", "0")
    assert Counter(one["status"] for one in messages["messages"]) == {"STATUS_DELIVERED": 1002}
    received = endpoint.received()
    assert sorted(one["id"] for one in received) == sorted(one["id"] for one in messages["messages"])
    assert {one["text"] for one in received} == {f"Hello {one['phone']}" for one in received}
    assert {70200000001, 70200000002} < {one["phone"] for one in received}
    assert cli.json("mailings", "get", str(mailing["id"]))["progress"]["delivered"] == 1002


def test_watch_says_by_its_status_that_somebody_was_not_reached(cli: Cli, tmp_path: Path) -> None:
    cli.json("clients", "import", clients_file(tmp_path, "70200000001,UTC,few,,", "70200666666,UTC,few,,"))
    mailing = cli.json("mailings", "create", "--text", "Hi", "--tag", "few", "--snapshot")
    assert cli.json("watch", str(mailing["id"]), status=4)["progress"]["failed"] == 1
    [message] = cli.json("messages", "list", "--mailing-id", str(mailing["id"]), "--status", "failed")["messages"]
    assert (message["reason"], message["endpoint_status"], message["endpoint_code"]) == ("REASON_REFUSED", 200, 1)
    assert cli.json("messages", "get", str(message["id"]))["id"] == message["id"]


def test_an_open_mailing_takes_in_clients_added_while_it_is_watched(
    cli: Cli, endpoint: Endpoint, tmp_path: Path
) -> None:
    cli.json("clients", "import", clients_file(tmp_path, "70200000001,UTC,few,,"))
    mailing = cli.json("mailings", "create", "--text", "Hi", "--tag", "few")
    assert cli.json("watch", str(mailing["id"]), "--until-sent")["state"] == "STATE_RUNNING"
    cli.json("clients", "add", "70200000002", "--timezone", "UTC", "--tag", "few")
    watcher = cli.start("watch", str(mailing["id"]))
    assert watcher.stdout is not None
    while "2 of 2" not in (line := watcher.stdout.readline()):
        assert line
    cli.json("mailings", "cancel", str(mailing["id"]))
    assert watcher.wait(30) == 0
    watcher.communicate()
    assert [one["phone"] for one in endpoint.received()] == [70200000001, 70200000002]


def test_a_scheduled_mailing_waits_and_can_be_changed_and_deleted(cli: Cli, tmp_path: Path) -> None:
    created = cli.json(
        "mailings", "create", "--all", "--text", "Hi", "--title", "Later", "--start", "+1h", "--end", "+2h"
    )
    assert created["state"] == "STATE_SCHEDULED"
    identity = str(created["id"])
    updated = cli.json("mailings", "update", identity, "--title", "Much later", "--etag", created["etag"])
    assert (updated["title"], updated["text"]) == ("Much later", "Hi")
    stale = cli.run("mailings", "update", identity, "--title", "x", "--etag", created["etag"])
    assert (stale.returncode, stale.stdout, stale.stderr.count("\n")) == (1, "", 1)
    assert [one["id"] for one in cli.json("mailings", "list", "--state", "scheduled")["mailings"]] == [created["id"]]
    assert cli.json("mailings", "delete", identity) == {"deleted_messages": 0, "remaining_messages": 0}
    assert cli.run("mailings", "get", identity).returncode == 1


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ("70200000001,Mars/Olympus,few,,", "timezone"),
        ("12,UTC,few,,", "phone"),
        ("70200000001,UTC,few,25:00,26:00", "window_start"),
    ],
)
def test_a_bad_row_imports_nothing_and_is_named_by_row_and_column(
    row: str, column: str, shared: Cli, tmp_path: Path
) -> None:
    path = clients_file(tmp_path, row, "70200000002,UTC,few,,", count=1500)
    before = shared.json("clients", "list")
    ended = shared.run("clients", "import", path)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert ended.stderr.startswith(f"mailing: {path}, row 1501 (line 1502), column {column}: ")
    assert shared.json("clients", "list") == before


def test_an_export_imports_unchanged(cli: Cli, tmp_path: Path) -> None:
    first = cli.json("clients", "import", str(EXAMPLES / "clients.csv"))
    exported = tmp_path / "exported.csv"
    assert cli.run("clients", "export", "--output", str(exported)).returncode == 0
    again = cli.json("clients", "import", str(exported))
    assert (first["created"], again["updated"], again["unchanged"]) == (10_000, 0, 10_000)
    assert cli.run("clients", "export").stdout == exported.read_text(encoding="utf-8")


def test_clients_come_from_standard_input_too(shared: Cli) -> None:
    ended = shared.run("clients", "import", "-", "--json", stdin="phone,timezone\n70200000001,UTC\n")
    assert json.loads(ended.stdout)["created"] == 1
    ended = shared.run("clients", "import", "-", stdin="phone,timezone\n70200000001,Nowhere\n")
    assert (ended.returncode, "standard input, row 1 (line 2), column timezone" in ended.stderr) == (2, True)


def test_bad_fields_are_named(shared: Cli) -> None:
    ended = shared.run(
        "mailings", "create", "--all", "--yes", "--text", "Hi {nobody}", "--start", "+2h", "--end", "+1h"
    )
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert "mailing.text" in ended.stderr
    assert "mailing.end_time" in ended.stderr


def test_without_a_service_a_command_is_one_sentence_and_status_3() -> None:
    ended = Cli("127.0.0.1:1").run("mailings", "list")
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (3, "", 1)
    assert "no service answers at 127.0.0.1:1" in ended.stderr


def test_ctrl_c_ends_a_watch_with_130_and_without_a_word(shared: Cli) -> None:
    mailing = shared.json("mailings", "create", "--all", "--text", "Hi", "--start", "+1h")
    watcher = shared.start("watch", str(mailing["id"]))
    assert watcher.stdout is not None
    assert "starts" in watcher.stdout.readline()
    watcher.send_signal(signal.SIGINT)
    _, err = watcher.communicate(timeout=30)
    assert (watcher.returncode, err) == (130, "")


def test_a_reader_that_has_enough_is_no_failure_worth_a_word(cli: Cli, tmp_path: Path) -> None:
    cli.json("clients", "import", str(EXAMPLES / "clients.csv"))
    with cli.start("clients", "export") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("phone,")
        process.stdout.close()
        assert process.wait(30) == 141
        assert process.stderr.read() == ""


def test_a_port_that_is_taken_is_one_sentence(database_dsn: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = subprocess.run(
            [*PROGRAM, "serve", "--listen", address],
            env=environment(MAILING_DSN=database_dsn),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert ended.returncode == 1
    assert address in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "settings", "named"),
    [
        (["--listen", "nonsense"], {}, "listen"),
        ([], {"MAILING_LEASE": "soon"}, "MAILING_LEASE"),
        ([], {"MAILING_ENDPOINT_URL": "ftp://x"}, "MAILING_ENDPOINT_URL"),
    ],
)
def test_unusable_configuration_ends_the_start_with_its_name(
    arguments: list[str], settings: dict[str, str], named: str
) -> None:
    ended = subprocess.run(
        [*PROGRAM, "serve", *arguments], env=environment(**settings), capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert named in ended.stderr.lower() or named in ended.stderr
    assert "Traceback" not in ended.stderr


def test_migrate_says_what_it_did(database_dsn: str) -> None:
    ended = subprocess.run(
        [*PROGRAM, "migrate", "--json"],
        env=environment(MAILING_DSN=database_dsn),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == {"applied": []}


def test_the_command_line_does_not_load_the_server() -> None:
    code = "import sys, mailing.cli; sys.exit(any(one.split('.')[0] in ('server', 'asyncpg') for one in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
