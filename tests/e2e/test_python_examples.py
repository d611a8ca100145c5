"""The examples of the Python client do on a real service what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import Cli
from tests.support.project import ROOT

EXAMPLES = ROOT / "clients" / "python" / "examples"


def run(name: str, *words: str) -> list[str]:
    command = [sys.executable, str(EXAMPLES / name), *words]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_a_campaign_is_sent_and_followed_across_two_runs(cli: Cli, tmp_path: Path) -> None:
    assert run("campaign.py", cli.address)[-1] == "2 of 2 delivered"
    position = str(tmp_path / "position")
    first = run("follow.py", cli.address, position, "--until", "2")
    assert [line.split()[1] for line in first] == ["STATUS_DELIVERED"] * 2
    run("campaign.py", cli.address)
    # The last response is repeated, since nobody had read beyond it.
    second = run("follow.py", cli.address, position, "--until", "3")
    assert len(set(first + second)) >= 3
