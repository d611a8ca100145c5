"""The service behind PgBouncer in transaction mode, with fewer connections than it would open itself."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from server.embedded_postgres.runner import namespaces
from tests.e2e.conftest import PROGRAM, Endpoint, Serve, environment
from tests.support.eventually import eventually_sync

PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="there is no pgbouncer here")

CONNECTIONS = 8
"""Of the server; a service would open 23."""

CONFIGURATION = """\
[databases]
* = host={host} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {connections}
max_client_conn = 100
"""


@pytest.fixture
def pooled_dsn(database_dsn: str, tmp_path: Path) -> Iterator[str]:
    """Yield the DSN of the test's database behind a pooler."""
    parts = urlsplit(database_dsn)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = tmp_path / "pgbouncer.ini"
    host = parse_qs(parts.query)["host"][0]
    path.write_text(
        CONFIGURATION.format(host=host, user=parts.username or "postgres", port=port, connections=CONNECTIONS)
    )
    # It does not run as root; the server's socket is root's alone.
    prefix = next(namespaces()).prefix if os.geteuid() == 0 else ()
    assert PGBOUNCER is not None
    with (tmp_path / "pgbouncer.log").open("wb") as log:
        process = subprocess.Popen([*prefix, PGBOUNCER, str(path)], stderr=log, stdout=log)
    try:
        eventually_sync(lambda: accepts(port))
        yield f"postgresql://{parts.username or 'postgres'}@127.0.0.1:{port}{parts.path}"
    finally:
        process.terminate()
        process.wait(30)


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_a_mailing_is_delivered_through_a_pooler(serve: Serve, pooled_dsn: str, endpoint: Endpoint) -> None:
    """Fails when a statement needs the session of the one before, or notices are waited for."""
    cli = serve(MAILING_DSN=pooled_dsn, MAILING_STATEMENT_CACHE_SIZE="0", MAILING_POLL_MAX="0.5")
    people = "phone,timezone\n" + "".join(f"7916{n:07},UTC\n" for n in range(1000, 1500))
    imported = cli.run("--json", "clients", "import", "-", stdin=people)
    assert imported.returncode == 0, imported.stderr
    mailing = cli.json("mailings", "create", "--all", "--snapshot", "--yes", "--text", "Hello")
    watched = cli.run("watch", str(mailing["id"]))
    assert watched.returncode == 0, watched.stderr
    assert len(endpoint.received()) == 500
    assert cli.json("report", str(mailing["id"]))["mailing"]["progress"]["delivered"] == 500
    assert len(cli.json("messages", "list", "--mailing-id", str(mailing["id"]))) > 0


def test_a_start_that_would_lose_statements_names_the_setting(pooled_dsn: str) -> None:
    program = [*PROGRAM, "serve", "--listen", "127.0.0.1:0"]
    ended = subprocess.run(program, env=environment(MAILING_DSN=pooled_dsn), capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert re.search(r"\(MAILING_DSN\) cannot be used: .*set MAILING_STATEMENT_CACHE_SIZE=0", ended.stderr)
