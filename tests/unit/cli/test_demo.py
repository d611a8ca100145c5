"""The demo's verdict: it agrees only when everything agrees."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest

from mailing.cli.commands.demo import Comparison, Received, compare, rendered
from mailing.cli.processes import ProcessError, running

WANTED = {"701": "Hello Anna", "702": "Hello Ivan"}
LEDGER = {1: "701", 2: "702"}
RECEIVED = [Received(1, "701", "Hello Anna"), Received(2, "702", "Hello Ivan")]


def test_file_ledger_and_endpoint_agree() -> None:
    assert compare(WANTED, LEDGER, RECEIVED) == Comparison(2, 0, 0, 0, 0, 0, 0)
    assert compare(WANTED, LEDGER, RECEIVED).agrees


@pytest.mark.parametrize(
    ("wanted", "ledger", "received", "field"),
    [
        ({**WANTED, "703": "Hello Zoë"}, LEDGER, RECEIVED, "not_delivered"),
        (WANTED, LEDGER, RECEIVED[:1], "not_received"),
        (WANTED, {1: "701"}, RECEIVED, "received_unknown"),
        (WANTED, LEDGER, [*RECEIVED, RECEIVED[0]], "received_again"),
        (WANTED, LEDGER, [RECEIVED[0], Received(2, "702", "Hello Anna")], "received_different"),
        (WANTED, LEDGER, [RECEIVED[0], Received(2, "701", "Hello Ivan")], "received_different"),
        ({"701": "Hello Anna"}, LEDGER, RECEIVED, "received_different"),
        (WANTED, {1: "701", 2: "702", 3: "702"}, [*RECEIVED, Received(3, "702", "Hello Ivan")], "delivered_again"),
    ],
)
def test_every_kind_of_difference_is_found(
    wanted: dict[str, str], ledger: dict[int, str], received: list[Received], field: str
) -> None:
    comparison = compare(wanted, ledger, received)
    assert not comparison.agrees
    assert getattr(comparison, field) == 1


def test_the_text_is_worked_out_with_its_defaults() -> None:
    row = {"tag": "vip", "attributes.name": "", "attributes.city": "Rome"}
    assert rendered(row) == "Hello friend, here is what is new for vip readers in Rome."


READY = re.compile("ready (.*)")


def test_a_process_that_gets_ready_runs_for_the_block_and_no_longer(tmp_path: Path) -> None:
    program = [sys.executable, "-c", "import os, time; print('ready', os.getpid()); time.sleep(60)"]
    with running(program, READY, tmp_path / "log", os.environ) as match:
        process = int(match[1])
        os.kill(process, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_a_process_that_ends_instead_shows_what_it_wrote(tmp_path: Path) -> None:
    program = [sys.executable, "-c", "import sys; print('cannot'); sys.exit(5)"]
    with pytest.raises(ProcessError, match=r"status 5:\ncannot"), running(program, READY, tmp_path / "log", os.environ):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends orphans on Linux only")
def test_a_process_ends_even_when_its_parent_is_killed(tmp_path: Path) -> None:
    child = "import time; print('ready', 1); time.sleep(60)"
    parent = f"""
import os, re, signal, sys
from pathlib import Path
from mailing.cli.processes import running

program = [sys.executable, "-c", {child!r}]
with running(program, re.compile("ready"), Path({str(tmp_path / "log")!r}), os.environ):
    print(Path(f"/proc/self/task/{{os.getpid()}}/children").read_text().strip(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, timeout=60)
    descriptor = _descriptor_of(int(ended.stdout))
    if descriptor is not None:
        assert select.select([descriptor], [], [], 10)[0], "the child is still there"
        os.close(descriptor)


def _descriptor_of(process: int) -> int | None:
    try:
        return os.pidfd_open(process)
    except ProcessLookupError:
        return None
