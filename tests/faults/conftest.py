"""Services that a test may kill: real processes, a real endpoint, one database."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mailing import MailingClient
from tests.e2e.conftest import SERVING, TOKEN, Endpoint, endpoint, environment

__all__ = ["Service", "StartService", "endpoint"]


class Service:
    """One `mailing serve` with its children, in a process group of its own."""

    def __init__(
        self, settings: dict[str, str], *arguments: str, folder: Path | None = None, files: int | None = None
    ) -> None:
        """Start it, of the checkout in `folder` or of this one; `files` is how many it may have open."""
        limit = [] if files is None else ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh"]
        self._process = subprocess.Popen(
            [*limit, sys.executable, "-m", "mailing.cli", "serve", "--listen", "127.0.0.1:0", *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(**settings),
            cwd=folder,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        serving = re.match(SERVING, line)
        assert serving, f"the service did not start: {line!r}"
        self.address = serving[1]
        self.client = MailingClient.connect(self.address)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def kill(self) -> None:
        """End it as a crash would: no handler runs."""
        self.client.close()
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End it in order and return its exit status."""
        self.client.close()
        return self._end(signal.SIGTERM)

    def hang_up(self) -> int:
        """End it as a closed terminal does, by the kernel and by the shell, and return its exit status."""
        self.client.close()
        os.kill(self._process.pid, signal.SIGHUP)
        return self._end(signal.SIGHUP)

    def _end(self, number: int) -> int:
        if self._process.poll() is None:
            os.kill(self._process.pid, number)
        status = self._process.wait(timeout=60)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return status


StartService = Callable[..., Service]


@pytest.fixture
def start_service(database_dsn: str, endpoint: Endpoint) -> Iterator[StartService]:
    """Start services on the test's database, or on their own with MAILING_DSN=''."""
    started: list[Service] = []

    def start(*arguments: str, folder: Path | None = None, files: int | None = None, **settings: str) -> Service:
        wanted = {
            "MAILING_DSN": database_dsn,
            "MAILING_DISPATCHERS": "0",
            "MAILING_ENDPOINT_URL": endpoint.url,
            "MAILING_ENDPOINT_TOKEN": TOKEN,
        }
        service = Service(
            {name: value for name, value in (wanted | settings).items() if value},
            *arguments,
            folder=folder,
            files=files,
        )
        started.append(service)
        return service

    yield start
    for service in started:
        service.kill()
