"""`mailing demo`, as `make demo` runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import EXAMPLES, PROGRAM, environment


def children_left(folder: Path) -> list[str]:
    """Return the processes whose data or logs are in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().decode())
        except OSError:
            continue
    return found


@pytest.fixture
def short(folder: Path) -> Iterator[Path]:
    """Yield an empty folder with a short path, since the path of a socket is short."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        Path(name).chmod(0o711)
        yield Path(name)


def test_the_demo_ends_well_and_leaves_nothing(short: Path) -> None:
    # Settings of another service must not get in its way.
    settings = environment(TMPDIR=str(short), MAILING_DSN="postgresql://nobody@127.0.0.1:1/nothing")
    ended = subprocess.run([*PROGRAM, "demo", "--json"], env=settings, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert document["agrees"] is True
    assert document["delivered"] == document["mailing"]["progress"]["total"] > 3000
    assert children_left(short) == []
    assert list(short.iterdir()) == []


def test_a_demo_that_is_terminated_takes_its_children_along(short: Path) -> None:
    with subprocess.Popen(
        [*PROGRAM, "demo"],
        env=environment(TMPDIR=str(short), PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        while not re.match("Service at", line := demo.stdout.readline()):
            assert line
        demo.send_signal(signal.SIGTERM)
        demo.communicate(timeout=60)
    assert demo.returncode == 128 + signal.SIGTERM
    assert children_left(short) == []
    assert os.listdir(short) == []


def test_a_demo_without_its_files_is_one_sentence(tmp_path: Path) -> None:
    ended = subprocess.run(
        [*PROGRAM, "demo", "--examples", str(tmp_path)], env=environment(), capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert "clients.csv does not exist" in ended.stderr
    assert (EXAMPLES / "clients.csv").is_file()


def test_the_console_of_a_demo_stays_until_it_is_interrupted(short: Path) -> None:
    with subprocess.Popen(
        [*PROGRAM, "demo", "--stay"],
        env=environment(TMPDIR=str(short), PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        printed = ""
        while "stay open until Ctrl-C" not in printed:
            line = demo.stdout.readline()
            assert line, printed
            printed += line
        found = re.search(r"Console at (\S+),", printed)
        assert found
        with urllib.request.urlopen(f"{found[1]}/mailings", timeout=30) as answer:
            assert "Demo" in answer.read().decode()
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 0
    assert children_left(short) == []
