"""The page docs/a-day.md is a day as it really goes: some seventy commands, run again and compared."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from docs.a_day import DAY, PAGE, masked, whole_day

COMMANDS = [command for part in DAY for command in part.commands]


@pytest.mark.skipif(os.name != "posix", reason="the page is written where paths have slashes")
def test_the_day_goes_as_its_page_says(database_dsn: str, folder: Path) -> None:
    """Fails when a command of the page is answered otherwise, by its words or by its exit status."""
    found = masked(whole_day(folder, {"MAILING_DSN": database_dsn})).splitlines()
    assert found == masked(PAGE.read_text(encoding="utf-8")).splitlines(), "run `make day`"
    assert len(COMMANDS) >= 60
