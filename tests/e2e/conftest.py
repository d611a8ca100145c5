"""The real thing: `mailing serve`, the example endpoint and the command line, each in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mailing.cli.processes import running
from tests.support.project import ROOT

EXAMPLES = ROOT / "examples"
PROGRAM = [sys.executable, "-m", "mailing.cli"]
SERVER_PROGRAM = [str(Path(sys.executable).with_name("mailing-server"))]
SERVING = re.compile(r"^serving on (127\.0\.0\.1:(\d+))$", re.MULTILINE)
TOKEN = "secret"
REJECTED = "666666"
"""The endpoint refuses phones that end so."""


def environment(**settings: str) -> dict[str, str]:
    """Return the environment without anything that is set for another service."""
    foreign = ("MAILING_", "POSTGRES_", "AUTHTOKEN")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | settings


@dataclass(frozen=True, slots=True)
class Endpoint:
    url: str

    def received(self) -> list[dict[str, Any]]:
        return list(self._asked()["received"])

    def times(self) -> list[float]:
        """Return when each message arrived, in seconds since the epoch."""
        return list(self._asked()["times"])

    def _asked(self) -> dict[str, Any]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.url + "received", timeout=30) as answer:
            return dict(json.load(answer))


@dataclass(frozen=True, slots=True)
class Cli:
    """The command line, pointed at one service."""

    address: str

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*PROGRAM, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(MAILING_ADDRESS=self.address),
            **options,
        )

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        try:
            out, err = process.communicate(stdin, timeout=120)
        finally:
            process.kill()
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def json(self, *arguments: str, status: int = 0) -> Any:
        """Run a command with --json and return its document."""
        ended = self.run("--json", *arguments)
        assert ended.returncode == status, ended.stderr
        return json.loads(ended.stdout)


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[Endpoint]:
    program = [sys.executable, str(EXAMPLES / "endpoint.py")]
    program += ["--listen", "127.0.0.1:0", "--token", TOKEN, "--reject", REJECTED]
    with running(program, re.compile(r"listening on (\S+)"), tmp_path / "endpoint.log", os.environ) as match:
        yield Endpoint(match[1])


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """Short, since the path of a socket is; passable, since Postgres may run as somebody else."""
    with tempfile.TemporaryDirectory(prefix="mailing-e2e-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


Serve = Callable[..., Cli]


@pytest.fixture
def serve(database_dsn: str, tmp_path: Path, endpoint: Endpoint) -> Iterator[Serve]:
    """Start services on the test's database; return the command line for each. In the end its records agree."""
    with ExitStack() as stack:

        def start(*arguments: str, **settings: str) -> Cli:
            wanted = environment(
                **{
                    "MAILING_DSN": database_dsn,
                    "MAILING_DISPATCHERS": "0",
                    "MAILING_ENDPOINT_URL": endpoint.url,
                    "MAILING_ENDPOINT_TOKEN": TOKEN,
                    **settings,
                }
            )
            program = [*PROGRAM, "serve", "--listen", "127.0.0.1:0", *arguments]
            return Cli(stack.enter_context(running(program, SERVING, tmp_path / "service.log", wanted))[1])

        yield start
    verify = [*SERVER_PROGRAM, "verify"]
    settings = environment(MAILING_DSN=database_dsn)
    verified = subprocess.run(verify, env=settings, capture_output=True, text=True, timeout=60)
    assert (verified.returncode, verified.stdout) == (0, "The records agree.\n"), verified


@pytest.fixture
def cli(serve: Serve) -> Cli:
    """Return the command line, pointed at a running service."""
    return serve()
