"""The command line on a terminal of 80 by 24, typed at and read as a person would."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PATIENCE = 20.0
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()=>].?")


class Terminal:
    """A running command and what it has written so far."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self._process = process
        self._descriptor = descriptor
        self._written = ""

    def shows(self, text: str) -> None:
        """Return once `text` was written after what was waited for before; fail after some time."""
        ends = time.monotonic() + _PATIENCE
        while text not in (plain := _CONTROL.sub("", self._written)):
            ready, _, _ = select.select([self._descriptor], [], [], max(0.0, ends - time.monotonic()))
            assert ready, f"{text!r} is not in {plain[-2000:]!r}"
            self._written += os.read(self._descriptor, 65536).decode(errors="replace")
        self._written = plain.partition(text)[2]

    def type(self, keys: str) -> None:
        """Type keys."""
        os.write(self._descriptor, keys.encode())

    def ended(self) -> int:
        """Return the exit status once the command has ended."""
        return self._process.wait(_PATIENCE)


@contextmanager
def terminal(*arguments: str, address: str) -> Iterator[Terminal]:
    """Run `mailing` with these arguments on a terminal of its own."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "MAILING_ADDRESS": address, "COLUMNS": "80", "LINES": "24", "TERM": "xterm"}
    command = [sys.executable, "-m", "mailing.cli", *arguments]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        try:
            yield Terminal(process, ours)
        finally:
            process.kill()
            os.close(ours)


def shown(*arguments: str, address: str, width: int = 80) -> tuple[int, list[str]]:
    """Run `mailing` on a terminal of its own until it ends; return its exit status and the lines it wrote."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    environment |= {"MAILING_ADDRESS": address, "TERM": "xterm"}
    command = [sys.executable, "-m", "mailing.cli", *arguments]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        written = b""
        with (
            suppress(OSError),
            os.fdopen(ours, "rb", buffering=0) as screen,
        ):  # reading fails once the other end is closed
            while part := screen.read(65536):
                written += part
        status = process.wait(_PATIENCE)
    return status, _CONTROL.sub("", written.decode(errors="replace")).replace("\r\n", "\n").splitlines()
