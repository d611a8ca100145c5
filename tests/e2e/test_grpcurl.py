"""The grpcurl lines of the documents work on an empty database, those of a page in their order."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mailing import MailingClient
from mailing.cli.processes import running
from tests.e2e.conftest import EXAMPLES, SERVING, TOKEN, environment
from tests.support.documents import json_documents, page, section, shell_lines
from tests.support.eventually import eventually_sync

PROGRAM = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4"
LINES = shell_lines(section(page("clients"), "## gRPC with grpcurl"), "grpcurl")
ENDLESS = 3
"""How many of the lines would not end by themselves."""


@pytest.fixture(scope="module")
def grpcurl() -> str:
    """The grpcurl of this machine, or one that Go makes here once."""
    if found := shutil.which("grpcurl"):
        return found
    if shutil.which("go") is None:
        pytest.skip("this machine has neither grpcurl nor a Go to make it with")
    asked = subprocess.run(["go", "env", "GOPATH"], capture_output=True, text=True, check=True)
    made = Path(asked.stdout.strip()) / "bin" / "grpcurl"
    if not made.exists():
        ended = subprocess.run(["go", "install", PROGRAM], capture_output=True, text=True)
        if ended.returncode:
            pytest.skip(f"grpcurl cannot be made here: {ended.stderr[-200:]}")
    return str(made)


@pytest.fixture
def address(database_dsn: str, tmp_path: Path) -> Iterator[str]:
    """An empty service beside the endpoint that the page names."""
    endpoint = [sys.executable, str(EXAMPLES / "endpoint.py"), "--listen", "127.0.0.1:0"]
    endpoint += ["--token", TOKEN, "--reject", "00"]
    listening = running(endpoint, re.compile(r"listening on (\S+)"), tmp_path / "endpoint.log", os.environ)
    with listening as match:
        (tmp_path / "webhooks.toml").write_text(
            f'[webhooks.crm]\nurl = "{match[1]}"\nsecret = "whsec_b3BzLXNlY3JldA=="\n'
        )
        settings = environment(
            MAILING_DSN=database_dsn,
            MAILING_ENDPOINT_URL=match[1],
            MAILING_ENDPOINT_TOKEN=TOKEN,
            MAILING_WEBHOOKS_FILE=str(tmp_path / "webhooks.toml"),
        )
        program = [sys.executable, "-m", "mailing.cli", "serve", "--listen", "127.0.0.1:0"]
        with running(program, SERVING, tmp_path / "service.log", settings) as served:
            yield served[1]


def test_the_lines_work_in_their_order(grpcurl: str, address: str) -> None:
    endless = 0
    for line in LINES:
        words = shlex.split(line.replace("localhost:50051", address), comments=True)
        ended = subprocess.run([grpcurl, *words[1:]], capture_output=True, text=True, timeout=120)
        if "-max-time" in words:
            endless += 1
            assert "DeadlineExceeded" in ended.stderr, line
        else:
            assert ended.returncode == 0, f"{line}\n{ended.stderr}"
        if words[-2] != address:
            assert "mailing.v1" in ended.stdout, line
        elif "/" in words[-1]:
            assert all(json_documents(ended.stdout)), f"{line}\n{ended.stdout}"
            assert json_documents(ended.stdout), line
    assert endless == ENDLESS


def test_watching_to_the_end_sees_the_end(grpcurl: str, address: str) -> None:
    """Fails for a mailing that stays open for clients who come later."""
    (create,) = [line for line in LINES if line.endswith("CreateMailing") and "SNAPSHOT" in line]
    (watch,) = [line for line in LINES if line.endswith("WatchMailing")]
    for line in (create, watch):
        words = shlex.split(line.replace("localhost:50051", address))
        ended = subprocess.run([grpcurl, *words[1:]], capture_output=True, text=True, timeout=120, check=True)
    assert json_documents(ended.stdout)[-1]["mailing"]["state"] == "STATE_COMPLETED", json.dumps(ended.stdout)


REFERENCE = shell_lines(page("api"), "grpcurl") + shell_lines(page("observability"), "grpcurl")
DAYTIME = '"duration": "43200s"'
"""The window of the client, outside of which there would be no message yet."""

LAST = ("/CancelMailing", "/Delete")
"""What is run behind the others, which need what it ends."""


def test_the_calls_of_the_reference_work(grpcurl: str, address: str) -> None:
    """Fails for a method whose example is refused; ids are those in the answers before."""
    ids: dict[str, int] = {}
    for line in sorted(REFERENCE, key=lambda line: [end in line for end in reversed(LAST)]):
        line = line.replace(DAYTIME, '"duration": "86400s"')
        for of_the_page, here in with_ids(ids):
            line = line.replace(of_the_page, here)
        words = shlex.split(line.replace("localhost:50051", address))
        limit = ["-max-time", "2"] if "/Watch" in line else []
        ended = subprocess.run([grpcurl, *limit, *words[1:]], capture_output=True, text=True, timeout=120)
        method = words[-1].partition("/")[2]
        assert ended.returncode == 0 or (limit and "DeadlineExceeded" in ended.stderr), f"{line}\n{ended.stderr}"
        if method.startswith("Create") and ended.returncode == 0:
            kind, made = next(iter(json.loads(ended.stdout).items()))
            ids.setdefault(kind, int(made["id"]))
        if method == "CreateMailing":
            planned(address, ids["mailing"])


def planned(address: str, mailing_id: int) -> None:
    """Return once a mailing has messages."""
    with closing(MailingClient.connect(address)) as client:
        eventually_sync(lambda: client.get_mailing(mailing_id).progress.total, lambda total: total > 0)


def with_ids(ids: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Yield what the reference says of client 27, mailing 1, its message and so on, and what to say here."""
    for kind, number in ids.items():
        shown = 27 if kind == "client" else 1
        yield f'"{kind}_id": {shown}', f'"{kind}_id": {number}'
        yield f'"{kind}": {{"id": {shown},', f'"{kind}": {{"id": {number},'
    if ids.keys() >= {"client", "mailing"}:
        yield '"message_id": 4294967323', f'"message_id": {(ids["mailing"] << 32) + ids["client"]}'
