"""Events of gRPC reach a busy loop many at a time."""

from __future__ import annotations

import subprocess
import sys


def test_a_thousand_streams_hear_something_within_a_few_turns_of_the_loop() -> None:
    # In a process of its own: gRPC begins once per process.
    command = (sys.executable, "-m", "tests.integration.rpc.slow_turns")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert int(done.stdout) < 100, done.stdout
