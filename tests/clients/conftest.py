"""What the programs of the client libraries meet."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mailing.cli.processes import running
from tests.clients.world import World
from tests.support.project import ROOT

TOKEN = "secret"


@pytest.fixture
async def variables(database_dsn: str, tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    """Start everything that the scenario needs."""
    program = [
        sys.executable,
        str(ROOT / "examples" / "endpoint.py"),
        "--listen",
        "127.0.0.1:0",
        "--token",
        TOKEN,
    ]
    with running(program, re.compile(r"listening on (\S+)"), tmp_path / "endpoint.log", {}) as match:
        async with World(database_dsn, tmp_path).running(match[1], TOKEN) as found:
            yield found
