"""Ends a Postgres that an earlier service left on the folder.

Called by the holder of the folder's lock, so whatever still runs there has lost its
parent: usually it is shutting down already, because the kernel asked it to.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from server.embedded_postgres.binaries import EmbeddedPostgresError
from server.embedded_postgres.folders import opened_here

_PATIENCE = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0))  # seconds for a checkpoint, then without one


def end_predecessor(pgdata: Path) -> None:
    """Return when no other server runs on `pgdata`. Raise EmbeddedPostgresError if one will not end."""
    pid = _pid(pgdata)
    if pid is None or not _is_alive(pid):
        return
    if not _serves(pid, pgdata):
        _disown(pgdata)
        return
    for number, seconds in _PATIENCE:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        if _ended(pid, pgdata, seconds):
            return
    raise EmbeddedPostgresError(f"A Postgres of an earlier run (process {pid}) still uses {pgdata}: end it first.")


def _pid(pgdata: Path) -> int | None:
    try:
        return int((pgdata / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _serves(pid: int, pgdata: Path) -> bool:
    """Return whether the process works in the folder, as every Postgres does; yes, where that cannot be seen."""
    if not Path("/proc/self").exists():
        return True
    try:
        return Path(f"/proc/{pid}/cwd").resolve(strict=True) == pgdata.resolve()
    except OSError:
        return False


def _ended(pid: int, pgdata: Path, seconds: float) -> bool:
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        if not _is_alive(pid) or not _serves(pid, pgdata):
            return True
        time.sleep(0.02)
    return False


def _disown(pgdata: Path) -> None:
    """Let Postgres see that the pid, given to somebody else since (a container's restart), is not its own.

    Postgres takes its parent's pid for stale and goes on to its second check, whether
    anything still uses the shared memory; without the file it would skip that one.
    """
    file = pgdata / "postmaster.pid"
    rest = file.read_text(encoding="utf-8").split("\n", 1)[1:]
    with os.fdopen(opened_here(file, os.O_WRONLY), "w", encoding="utf-8") as written:
        written.truncate(0)
        written.write("\n".join([str(os.getpid()), *rest]))
