"""The embedded Postgres: makes its data folder, starts it, watches it and stops it.

Promises: durable as Postgres is by default; reachable only through a socket in a folder
that nobody else may enter; gone with this process, also after kill -9; one service per
folder. A folder looks like this: `lock`, `postgres/` (the data), `postgres.log`, `run/`.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO
from urllib.parse import quote

from server.embedded_postgres.binaries import Binaries, EmbeddedPostgresError, choose_binaries
from server.embedded_postgres.folders import opened_here, require_own_folder
from server.embedded_postgres.runner import Process, Runner, choose_runner
from server.embedded_postgres.stale_server import end_predecessor

DATABASE = "mailing"
_START_TIMEOUT = 300.0  # seconds; after a crash Postgres first replays up to max_wal_size
_STOP_TIMEOUT = 60.0
_INITDB_TIMEOUT = 300.0
_LOG_LIMIT = 10 * 1024 * 1024
_SOCKET_PATH_LIMIT = 107
_SOCKET_NAME = ".s.PGSQL.5432"

_SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Details of an error quote the row, and rows hold phones.
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
}


class EmbeddedPostgres:
    """A Postgres server on a folder, as a child of this process.

    `settings` are more server parameters; they win over those of the product.
    """

    def __init__(self, data_dir: Path, settings: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir.expanduser().absolute()
        self._pgdata = self.data_dir / "postgres"
        self._log = self.data_dir / "postgres.log"
        self._settings = {**_SETTINGS, **(settings or {})}
        self._lock: IO[str] | None = None
        self._process: Process | None = None

    def start(self) -> str:
        """Start the server, making folder and database where they are missing, and return its DSN.

        Blocks: 1-3 s the first time, about 0.1 s later, longer after a crash. Call it from
        the main thread: the server ends with the thread that started it. Raise
        EmbeddedPostgresError.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("the embedded Postgres must be started from the main thread, it ends with its thread")
        try:
            return self._start()
        except BaseException as error:
            self.stop()
            if isinstance(error, OSError | subprocess.SubprocessError):
                raise EmbeddedPostgresError(
                    f"The embedded Postgres cannot use {self.data_dir} ({error}): mend that, or point "
                    "MAILING_DATA_DIR at another folder."
                ) from error
            raise

    def stop(self) -> None:
        """End the server in order, every commit on disk, and free the folder. Harmless when it does not run."""
        if self._process is not None:
            for number, patience in ((signal.SIGINT, _STOP_TIMEOUT), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0)):
                try:
                    self._process.send_signal(number)
                    self._process.wait(patience)
                    break
                except subprocess.TimeoutExpired:
                    continue
        self._process = None
        if self._lock is not None:
            self._lock.close()
        self._lock = None

    def dsn_of_running(self) -> str | None:
        """Return the DSN of the server that another service runs on this folder, None where none does."""
        sockets = _socket_path(self.data_dir)
        return _dsn(sockets) if _is_locked(self.data_dir / "lock") and (sockets / _SOCKET_NAME).exists() else None

    async def died(self) -> str:
        """Wait until the server ends without having been asked, and return a sentence that says so."""
        while self._process is None or self._process.poll() is None:  # noqa: ASYNC110 - the kernel sets no Event
            await asyncio.sleep(0.25)
        return (
            f"The embedded Postgres ended by itself ({_how(self._process)}); "
            f"{self._log} says why, its last words: {self._last_words(0)}"
        )

    def _start(self) -> str:
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        require_own_folder(self.data_dir)
        self._lock = _lock(self.data_dir / "lock")
        binaries = choose_binaries(self._pgdata)
        runner = choose_runner(self.data_dir, binaries)
        if runner.owner is not None:
            runner.hand_over_tree(self.data_dir)
        if self._pgdata.exists():
            end_predecessor(self._pgdata)
        else:
            self._make(runner, binaries)
        sockets = _socket_folder(self.data_dir, runner)
        self._launch(runner, binaries, sockets)
        # Late, and not at any price: an interrupted initdb may still be clearing up behind itself.
        for remains in self.data_dir.glob("initdb-*"):
            shutil.rmtree(remains, ignore_errors=True)
        return _dsn(sockets)

    def _make(self, runner: Runner, binaries: Binaries) -> None:
        """Make the data folder aside and put it in place when it is complete, its database included."""
        folder = Path(tempfile.mkdtemp(prefix="initdb-", dir=self.data_dir))
        runner.hand_over(folder)
        # Byte order and Unicode code points: the same on every system, and stable when it is upgraded.
        locale = ["--locale-provider=builtin", "--locale=C.UTF-8"] if binaries.major >= 17 else ["--locale=C"]
        options = ["-U", "postgres", "--auth=trust", "--encoding=UTF8", *locale, "--no-instructions"]
        self._run(runner, [binaries.initdb, "-D", str(folder), *options])
        alone = [binaries.postgres, "--single", "-D", str(folder), "-c", "exit_on_error=on", "postgres"]
        self._run(runner, alone, f"CREATE DATABASE {DATABASE};\n".encode())
        folder.rename(self._pgdata)
        _sync(self.data_dir)

    def _run(self, runner: Runner, command: list[str], commands: bytes = b"") -> None:
        offset = self._log_size()
        with self._appending() as log:
            process = runner.popen(command, log, stdin=subprocess.PIPE)
            process.communicate(commands, _INITDB_TIMEOUT)
        if process.returncode != 0:
            raise EmbeddedPostgresError(
                f"The data folder {self._pgdata} cannot be made: {self._last_words(offset)} ({self._log} says more)."
            )

    def _launch(self, runner: Runner, binaries: Binaries, sockets: Path) -> None:
        if self._log_size() > _LOG_LIMIT:
            self._log.replace(self._log.with_suffix(".log.1"))
        offset = self._log_size()
        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        command = [binaries.postgres, "-D", str(self._pgdata), "-k", str(sockets), *options]
        with self._appending() as log:
            self._process = runner.popen(command, log)
        runner.hand_over(self._log)
        give_up_at = time.monotonic() + _START_TIMEOUT
        while not self._is_ready():
            if self._process.poll() is not None:
                raise EmbeddedPostgresError(
                    f"The embedded Postgres does not start ({_how(self._process)}): {self._last_words(offset)} "
                    f"({self._log} says more)."
                )
            if time.monotonic() > give_up_at:
                raise EmbeddedPostgresError(
                    f"The embedded Postgres is not ready after {_START_TIMEOUT:.0f} s: see {self._log}."
                )
            time.sleep(0.01)

    def _appending(self) -> IO[bytes]:
        return os.fdopen(opened_here(self._log, os.O_WRONLY | os.O_APPEND), "ab")

    def _is_ready(self) -> bool:
        """Return what pg_ctl does: the first line of the server's own file is its pid, the eighth its state."""
        assert self._process is not None
        try:
            lines = (self._pgdata / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(self._process.pid) and lines[7].strip() == "ready"

    def _log_size(self) -> int:
        return self._log.stat().st_size if self._log.exists() else 0

    def _last_words(self, offset: int) -> str:
        """Return the last complaint in the log after `offset`, without time and process."""
        with self._log.open("rb") as log:
            log.seek(max(offset, self._log_size() - 8192))
            lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        grave = [line for line in lines if any(word in line for word in ("PANIC:", "FATAL:", "error:"))]
        return (grave or lines or ["nothing"])[-1].split("] ", 1)[-1].strip().rstrip(".")


def _lock(path: Path) -> IO[str]:
    """Take the folder for this process; the kernel gives it back when the process ends."""
    file = os.fdopen(opened_here(path, os.O_RDWR | os.O_APPEND), "a+", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise EmbeddedPostgresError(
            f"{path.parent} is in use by another running service (process {holder or 'unknown'}): stop that one, point "
            "MAILING_DATA_DIR at another folder, or set MAILING_DSN so that both share one database."
        ) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def _is_locked(path: Path) -> bool:
    """Return whether another process holds the folder of this lock."""
    try:
        with path.open(encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _dsn(sockets: Path) -> str:
    return f"postgresql://postgres@/{DATABASE}?host={quote(str(sockets), safe='')}"


def _socket_path(data_dir: Path) -> Path:
    """Return where the socket of a folder's server is: its path must be short enough."""
    folder = data_dir / "run"
    if len(os.fsencode(folder / _SOCKET_NAME)) <= _SOCKET_PATH_LIMIT:
        return folder
    place = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir(), f"mailing-{place}")


def _socket_folder(data_dir: Path, runner: Runner) -> Path:
    """Make the folder of the socket, which only the server's user may enter, and return it."""
    folder = _socket_path(data_dir)
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    ours = {os.geteuid()} | ({runner.owner[0]} if runner.owner else set())
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in ours:
        raise EmbeddedPostgresError(f"{folder} belongs to somebody else: remove it, or use a shorter MAILING_DATA_DIR.")
    folder.chmod(0o700)
    runner.hand_over(folder)
    return folder


def _sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _how(process: Process) -> str:
    """Return how a process ended, in words."""
    code = process.returncode
    return f"exit status {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
