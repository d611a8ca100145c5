"""Child processes that never outlive the command that started them.

Each writes to its own log file and prints one line when it is ready. On Linux the kernel
ends them even when the parent is killed. No code of ours runs between fork and exec: gRPC's fork
handlers would, and abort the child when they find their descriptors closed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 60.0
STOP_SECONDS = 15.0
_TAIL_LINES = 15

_END_WITH_PARENT: tuple[str, ...] = ()
if sys.platform == "linux":
    # prctl(PR_SET_PDEATHSIG, SIGTERM) holds for the program that takes this one's place.
    _SET_AND_BECOME = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); os.execvp(sys.argv[1], sys.argv[1:])"
    _END_WITH_PARENT = (sys.executable, "-I", "-S", "-c", _SET_AND_BECOME)


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
            [*_END_WITH_PARENT, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environment, "PYTHONUNBUFFERED": "1"},
            # Ctrl-C is for the parent, which ends its children in order.
            start_new_session=True,
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
