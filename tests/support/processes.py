"""The service as a process of its own, run as an operator runs it, and what becomes of processes."""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.eventually import eventually_sync

PATIENCE = 60.0


def command(*arguments: str, **settings: str) -> tuple[list[str], dict[str, str]]:
    """Return the words and the environment that start the service's program with these settings."""
    environment = {
        "MAILING_LISTEN": "127.0.0.1:0",
        "MAILING_LOG_FORMAT": "json",
        "MAILING_DISPATCHERS": "0",
        **settings,
    }
    return [sys.executable, "-m", "server.main", *arguments], {**os.environ, **environment}


def ended(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself."""
    words, environment = command(*arguments, **settings)
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=PATIENCE)


@contextlib.contextmanager
def serving(*arguments: str, limits: str = "", **settings: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the service, with `limits` set by a shell, and lend the process and the address it serves on."""
    words, environment = command(*(arguments or ("serve",)), **settings)
    if limits:
        words = ["sh", "-c", f'{limits}; exec "$@"', "sh", *words]
    process = subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    try:
        assert select.select([process.stdout], [], [], PATIENCE)[0]
        line = process.stdout.readline()
        match = re.fullmatch(r"serving on (\S+)\n", line)
        assert match, line or process.communicate()[1]
        yield process, match[1]
    finally:
        process.kill()
        process.communicate()


def children(pid: int) -> list[int]:
    """Return the ids of a process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def children_beside(pid: int, count: int, known: list[int]) -> list[int]:
    """Return the ids of a process's children without those known, once there are so many others."""
    return eventually_sync(
        lambda: [child for child in children(pid) if child not in known], lambda found: len(found) == count
    )


def gone(pid: int, within: float = PATIENCE) -> None:
    """Return when a process has ended; fail after `within` seconds."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([watch], [], [], within)[0], f"process {pid} still runs"
    finally:
        os.close(watch)
