"""What the programs of the client libraries meet, and which worker runs which tests."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from mailing.cli.processes import running
from tests.clients.world import World
from tests.support.project import ROOT

TOKEN = "secret"


class ByLanguage(LoadScopeScheduling):  # type: ignore[misc]
    """Gives all tests of a language to one worker, so that its library is built once.

    `--dist loadgroup` would do that, but it renames tests, which this pytest does not let it.
    """

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.rpartition("[")[2] or nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByLanguage:
    return ByLanguage(config, log)


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
