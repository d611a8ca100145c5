"""gRPC's thread hands many events at a time to a busy loop, and leaves it its core."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="other systems schedule threads in other ways")
def test_a_thousand_streams_hear_something_within_a_few_turns_of_the_loop() -> None:
    # In a process of its own: gRPC begins once per process.
    command = (sys.executable, "-m", "tests.integration.api.slow_turns")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    turns, policy = map(int, done.stdout.split())
    assert turns < 100
    assert policy == os.SCHED_BATCH
