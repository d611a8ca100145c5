"""Quiet hours and the file of holidays: what they mean, and what is refused."""

from __future__ import annotations

from datetime import date, time, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from server.config import ConfigError, Settings
from server.config.calendars import read_calendars
from server.config.types import open_hours


@pytest.mark.parametrize(
    ("quiet", "start", "hours"),
    [("21:00-09:00", time(9), 12), ("00:00-08:30", time(8, 30), 15.5), ("12:00-13:00", time(13), 23)],
)
def test_quiet_hours_leave_the_rest_of_the_day_open(quiet: str, start: time, hours: float) -> None:
    window = open_hours(Settings.model_validate({"quiet_hours": quiet}).quiet_hours or "")
    assert (window.start, window.duration) == (start, timedelta(hours=hours))


@pytest.mark.parametrize("quiet", ["21-9", "21:00", "24:00-09:00", "09:00-09:00", "21:00-09:60", "21:00 - 09:00"])
def test_what_are_no_quiet_hours_is_refused(quiet: str) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate({"quiet_hours": quiet})


def test_calendars_are_read_by_name(tmp_path: Path) -> None:
    file = tmp_path / "holidays.toml"
    file.write_text("germany = [2026-12-26, 2026-12-25, 2026-12-25]\nempty = []\n")
    assert read_calendars(file) == {"germany": [date(2026, 12, 25), date(2026, 12, 26)], "empty": []}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("germany = 2026-12-25", "germany should be a list of dates"),
        ('germany = ["Christmas"]', "'Christmas', which should be a date"),
        ("germany = [2026-12-25T10:00:00]", "'2026-12-25 10:00:00', which should be a date"),
        ('"" = []', "the name '' of a calendar"),
        ("germany", "is not a TOML file"),
    ],
)
def test_a_bad_file_of_holidays_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "holidays.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=problem):
        read_calendars(file)
