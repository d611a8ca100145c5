"""Every command of the README and of the pages is run by a shell, in its order, against a real service.

Each page has a service of its own that has sent mailings before, in place of the reader's: addresses, folders and ids
of the page are replaced by those of this service, ids by those in the answers before. Commands that do not end by
themselves are stopped when they are ready. `NOT_HERE` has what cannot be run, and why.
"""

from __future__ import annotations

import http.server
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from mailing.cli.processes import ProcessError, running
from tests.e2e.conftest import EXAMPLES, TOKEN, Cli, Endpoint, Serve, environment
from tests.support.documents import DOCUMENTS, blocks
from tests.support.project import ROOT
from tests.support.scrape import ADMIN

NOT_HERE = {
    r"apt|sudo|systemctl|journalctl|cp deploy/systemd": "needs root and systemd",
    r"docker|kubectl|helm": "needs containers or a cluster; tests/project/test_deploy.py checks their files",
    r"pip|pipx|npm|go get": "needs a package registry; tests/e2e/test_distributions.py installs what is built here",
    r"make|(\w+=\S+ )*make": "works on this checkout; tests/project/test_readme.py checks that the target exists",
    r"grpcurl": "needs a program that not every machine has; tests/e2e/test_grpcurl.py runs all of these",
    r"pytest|python -m tests": "runs tests, which the gate does",
    r"cd deploy/prometheus": "listens on a fixed port; tests/e2e/test_prometheus.py starts it with these files",
    r"mailing-server report send": "needs a mail server; tests/integration/reports has one",
    r"pg_dump|pg_restore": "wants the database's version; tests/integration/storage/test_backup.py runs them",
    r"\S+ mailing-server migrate --distribute|python -m bench cluster": "needs a cluster",
    r"curl .*localhost:8400": "needs a console; tests/integration/console/test_http_api.py calls every path",
    r"mailing-server console .*--tls": "wants a service with a public certificate; tests/integration/console has it",
}
"""How lines begin that are left out, and the reason."""

OTHER_TESTS = {
    "docs/a-day.md": "tests/e2e/test_a_day.py",
    "docs/http.md": "tests/integration/console/test_reference.py",
    "docs/install.md": "tests/e2e/test_install.py",
    "docs/api.md": "tests/e2e/test_grpcurl.py",
}
"""Pages whose commands another test runs."""

SERVING = re.compile(r"^serving on |^console on |^listening on ", re.MULTILINE)
DISPATCHING = re.compile(r"metrics and health are on ")
"""What a service of a page prints when it is ready; then it is stopped."""

SERVICES = re.compile(r"(mailing-server (serve|dispatcher|console)|python examples/endpoint.py)\b")
LIVE = re.compile(r"mailing (top|tail|watch)\b|mailing log .*(-f|--follow)\b")
LIVE_SECONDS = 3
"""How long a live view is watched, which has no end or a late one."""

REFUSED = {"--listen 0.0.0.0:50051": 2}
"""Lines that a page shows as refused, and their exit status."""

UNDELIVERED = re.compile(r"mailing (watch|test)\b")
"""What ends with status 4 for messages that were not delivered."""

PLACES = r"(?<!--listen )(localhost|127\.0\.0\.1|mailing\.example\.com|mailing\.internal):50051"
IDS = {
    "live": r"(\b(?:pause|resume|cancel|preview)) (\d{1,9})\b",
    "mailing": r"(\b(?:watch|report|retry|test|export)|--mailing-id|\"mailing_id\":) (\d{1,9})\b",
    "message": r"(\battempts) (\d+)\b",
    "client": r"(--client-id) (\d+)\b",
}
"""Where ids stand, by what they are of."""


def commands(text: str) -> list[str]:
    """Return what a reader would type: the lines of shell blocks, of those with answers the ones behind `$`."""
    found = []
    for block in blocks(text, "sh") + blocks(text, "console"):
        lines = block.replace("\\\n", "").splitlines()
        typed = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")] or lines
        found += [line for line in typed if line and not line.startswith("#")]
    return found


def left_out(line: str) -> str:
    """Return why a line cannot be run here; '' for one that is run."""
    return next((why for pattern, why in NOT_HERE.items() if re.match(rf"({pattern})\b", line)), "")


TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in DOCUMENTS}
ALL = {name: commands(text) for name, text in TEXTS.items() if name not in OTHER_TESTS}
PAGES = {name: run for name, lines in ALL.items() if (run := [line for line in lines if not left_out(line)])}


@dataclass
class Machine:
    """The reader's machine: a folder in place of /, a shell's variables, and the ids in the answers before."""

    folder: Path
    cli: Cli
    dsn: str
    moved: dict[str, str]
    ids: dict[str, str]
    exported: list[str] = field(default_factory=list)
    created: list[str] = field(default_factory=list)

    def here(self, line: str) -> str:
        """Return a line of a page with the addresses, folders and ids of this machine."""
        for pattern, place in self.moved.items():
            line = re.sub(pattern, place, line)
        for kind, pattern in IDS.items():
            line = re.sub(pattern, partial(self._with_id, kind), line)
        return line

    def _with_id(self, kind: str, found: re.Match[str]) -> str:
        """Return the words with the id of the mailing that the page created so many-th, or of what was there."""
        number = int(found[2])
        known = kind == "mailing" and number <= len(self.created)
        return f"{found[1]} {self.created[number - 1] if known else self.ids[kind]}"

    def run(self, line: str) -> tuple[int, str]:
        """Run a line; return its exit status, 0 if it was stopped because it goes on, and what it printed."""
        refused = any(words in line for words in REFUSED)
        exported = [] if "MAILING_DSN_FILE=" in line else self.exported
        script = "\n".join([*exported, line if refused else self.here(line)])
        if SERVICES.search(line) and not refused:
            return self._serve(script)
        status, out = self._shell(script, LIVE_SECONDS if LIVE.search(line) else 60)
        if line.startswith("export "):
            self.exported.append(self.here(line))
        if " create " in line:
            self.created += re.findall(r"^id +(\d+)$", out, re.MULTILINE)
        return status, out

    def _environment(self, script: str) -> dict[str, str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        settings = {"PATH": path, "PYTHONUNBUFFERED": "1", "MAILING_ADDRESS": self.cli.address}
        if "MAILING_DSN=" not in script and "MAILING_DSN_FILE=" not in script:
            settings |= {"MAILING_DSN": self.dsn}
        if "mailing-server" in script:
            settings |= {"MAILING_ADMIN_LISTEN": "127.0.0.1:0", "MAILING_ENDPOINT_URL": "http://127.0.0.1:9/"}
            settings |= {} if "--listen" in script else {"MAILING_LISTEN": "127.0.0.1:0"}
        return environment(**settings)

    def _shell(self, script: str, seconds: float) -> tuple[int, str]:
        with (self.folder / "printed").open("w+", encoding="utf-8") as printed:
            process = subprocess.Popen(
                ["sh", "-c", script],
                cwd=self.folder,
                env=self._environment(script),
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status = process.wait(seconds)
            except subprocess.TimeoutExpired:
                status = 0 if seconds == LIVE_SECONDS else 124
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            printed.seek(0)
            return status, printed.read()

    def _serve(self, script: str) -> tuple[int, str]:
        log = self.folder / "printed"
        line = "exec env " + script.splitlines()[-1]
        script = "\n".join([f"cd {self.folder}", *script.splitlines()[:-1], line])
        try:
            ready = DISPATCHING if "dispatcher" in line else SERVING
            with running(["sh", "-c", script], ready, log, self._environment(script)):
                return 0, ""
        except ProcessError as error:
            return 1, str(error)


class _Hook(http.server.BaseHTTPRequestHandler):
    """A subscriber of webhooks that takes all."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@pytest.fixture
def hook() -> Iterator[str]:
    """Return the URL of a subscriber."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hook) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def furnish(folder: Path, endpoint: Endpoint, hook: str, dsn: str) -> None:
    """Put the files of the pages into a folder."""
    shutil.copytree(EXAMPLES, folder / "examples")
    shutil.copy(EXAMPLES / "clients.csv", folder)
    for name in ("etc/mailing", "run/secrets", "deploy/compose"):
        (folder / name).mkdir(parents=True)
    endpoints = (f'[endpoints.{name}]\nurl = "{endpoint.url}"\ntoken = "{TOKEN}"\n' for name in ("default", "push"))
    (folder / "endpoints.toml").write_text("".join(endpoints))
    (folder / "webhooks.toml").write_text(
        f'[webhooks.crm]\nurl = "{hook}"\nsecret = "whsec_b3BzLXNlY3JldC1vcHMtc2VjcmV0"\n'
    )
    (folder / "etc/mailing/tokens").write_text("# name\n")
    (folder / "etc/mailing.toml").write_text("pool_size = 10\n")
    (folder / "run/secrets/dsn").write_text(dsn)
    (folder / "run/secrets/token").write_text(TOKEN)


def live_in(cli: Cli) -> dict[str, str]:
    """Send a mailing of which one message fails, start one that runs on; return ids by what they are of."""
    for phone in ("79160000077", "79166666666"):
        cli.json("clients", "add", phone, "--timezone", "Europe/Moscow", "--tag", "first")
    mailing = cli.json("mailings", "create", "--text", "Hi", "--tag", "first", "--snapshot")
    cli.run("watch", str(mailing["id"]))
    (failed,) = cli.json("messages", "list", "--mailing-id", str(mailing["id"]), "--status", "failed")["messages"]
    live = cli.json("mailings", "create", "--text", "Hi", "--tag", "nobody", "--open")
    found = {"mailing": mailing["id"], "live": live["id"], "message": failed["id"], "client": failed["client_id"]}
    return {kind: str(identity) for kind, identity in found.items()}


@pytest.fixture
def machine(serve: Serve, endpoint: Endpoint, hook: str, database_dsn: str, tmp_path: Path) -> Machine:
    """Return a machine with a service that is in use."""
    folder = tmp_path / "machine"
    furnish(folder, endpoint, hook, database_dsn)
    cli = serve(
        MAILING_ENDPOINTS_FILE=str(folder / "endpoints.toml"),
        MAILING_WEBHOOKS_FILE=str(folder / "webhooks.toml"),
        MAILING_ADMIN_LISTEN="127.0.0.1:0",
        MAILING_ENDPOINT_URL="",
        MAILING_ENDPOINT_TOKEN="",
    )
    (admin,) = ADMIN.findall((tmp_path / "service.log").read_text())
    moved = {
        PLACES: cli.address,
        r"127\.0\.0\.1:9464": admin,
        r"mlg_\w+…": "mlg_x",
        r"postgresql://mailing@db/mailing": database_dsn,
        r"(--listen |_LISTEN=)[\d.]+:\d+": r"\g<1>127.0.0.1:0",
        r"(?<![\w.])/(etc|run)/": rf"{folder}/\g<1>/",
    }
    return Machine(folder, cli, database_dsn, moved, live_in(cli))


@pytest.mark.parametrize("name", PAGES)
def test_the_commands_of_a_page_do_what_it_says(name: str, machine: Machine) -> None:
    """Fails for a command, an option or an argument that does not exist, and for one that is refused."""
    for line in PAGES[name]:
        status, printed = machine.run(line)
        good = {next((status for words, status in REFUSED.items() if words in line), 0)}
        assert status in good | ({4} if UNDELIVERED.search(line) else set()), f"{name}: {line}\n{printed}"


def test_every_reason_to_leave_out_a_command_is_needed() -> None:
    """Fails when the last line that cannot be run here goes, and its exception stays."""
    lines = [line for found in ALL.values() for line in found]
    assert [one for one in NOT_HERE if not any(re.match(rf"({one})\b", line) for line in lines)] == []
    assert [one for one, test in OTHER_TESTS.items() if one not in TEXTS or not (ROOT / test).exists()] == []
    assert sum(map(len, PAGES.values())) > 100
