"""Child processes that never outlive the command that started them.

Each writes to its own log file and prints one line when it is ready. On Linux the kernel
ends them even when the parent is killed.
"""

from __future__ import annotations

import ctypes
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 60.0
STOP_SECONDS = 15.0
_PR_SET_PDEATHSIG = 1
_TAIL_LINES = 15


class ProcessError(Exception):
    """A process did not become ready; the message has what it printed."""


@contextmanager
def running(
    arguments: Sequence[str], ready: re.Pattern[str], log: Path, environment: Mapping[str, str]
) -> Iterator[re.Match[str]]:
    """Run a program for the length of the block, which begins when its output matches `ready`.

    Call it in the main thread, since children end with the thread that started them. Raise
    ProcessError when the program ends before, or is not ready within START_SECONDS.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own programs
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environment, "PYTHONUNBUFFERED": "1"},
            # Ctrl-C is for the parent, which ends its children in order.
            start_new_session=True,
            preexec_fn=_end_with_parent(),
        )
    try:
        yield _wait_until_ready(process, ready, log)
    finally:
        _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], ready: re.Pattern[str], log: Path) -> re.Match[str]:
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends:
        ended = process.poll() is not None
        text = log.read_text(errors="replace")
        if match := ready.search(text):
            return match
        if ended:
            raise ProcessError(f"ended with status {process.returncode}:\n{tail(text)}")
        time.sleep(0.02)
    raise ProcessError(f"was not ready within {START_SECONDS:.0f} s:\n{tail(text)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except BaseException:
        process.kill()
        process.wait()
        raise


def tail(text: str) -> str:
    """Return the last lines of a log."""
    return "\n".join(text.splitlines()[-_TAIL_LINES:])


def _end_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def request() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return request
