"""`mailing schedules`, from the first one to its history."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Cli

WHEN = ("--cron", "0 10 * * 1-5", "--zone", "Europe/Berlin")


def test_a_schedule_is_made_triggered_paused_and_deleted(cli: Cli) -> None:
    checked = cli.json("schedules", "create", "--text", "Hi", "--all", *WHEN, "--snapshot", "--check")
    assert (checked["id"], len(checked["next_times"])) == (0, 5)
    assert cli.json("schedules", "list") == {"schedules": [], "more": False}
    made = cli.json("schedules", "create", "--text", "Hi", "--tag", "vip", *WHEN, "--end-after", "8h", "--title", "Am")
    assert (made["end_after"], made["overlap"], made["mailing"]["filter"]["tags"]) == (
        "28800s",
        "OVERLAP_SKIP",
        ["vip"],
    )
    schedule = str(made["id"])
    sent = cli.json("schedules", "trigger", schedule)
    assert sent["schedule_id"] == made["id"]
    assert cli.json("schedules", "get", schedule)["last_mailing_id"] == sent["id"]
    assert [one["id"] for one in cli.json("schedules", "history", schedule)["mailings"]] == [sent["id"]]
    shown = cli.run("schedules", "history", schedule).stdout
    assert "triggered" in shown
    assert cli.json("schedules", "pause", schedule)["paused"]
    listed = " ".join(cli.run("schedules", "list").stdout.split())
    assert "Am 0 10 * * 1-5 Europe/Berlin paused skip" in listed
    assert len(cli.json("schedules", "resume", schedule)["next_times"]) == 5
    assert "next" in cli.run("schedules", "get", schedule).stdout
    assert cli.run("schedules", "delete", schedule).stdout == f"Schedule {schedule} is deleted; its mailings stay.\n"
    assert cli.run("schedules", "get", schedule).returncode == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--all", "--zone", "UTC"), "--cron"),
        (("--all", *WHEN, "--rrule", "x"), "--cron"),
        (WHEN, "--all"),
        (("--all", *WHEN, "--start", "+1h"), "--start"),
        (("--all", *WHEN, "--overlap", "maybe"), "--overlap"),
        (("--all", *WHEN, "--end-after", "soon"), "--end-after"),
    ],
)
def test_a_schedule_that_says_too_little_or_too_much_is_refused(options: tuple[str, ...], words: str) -> None:
    ended = Cli("127.0.0.1:9").run("schedules", "create", "--text", "Hi", *options)
    assert ended.returncode == 2
    assert words in ended.stderr


def test_a_schedule_whose_mailings_are_never_over_is_warned_of(cli: Cli) -> None:
    ended = cli.run("schedules", "create", "--text", "Hi", "--all", *WHEN)
    assert ended.returncode == 0
    assert "never over" in ended.stderr
    rule = r"DTSTART:20300101T100000\nRRULE:FREQ=MONTHLY;BYDAY=1MO"
    ended = cli.run("schedules", "create", "--text", "Hi", "--all", "--rrule", rule, "--zone", "UTC", "--snapshot")
    assert (ended.returncode, ended.stderr) == (0, "")
    bad = cli.run("schedules", "create", "--text", "Hi", "--all", "--cron", "0 0 30 2 *", "--zone", "UTC", "--snapshot")
    assert bad.returncode == 2
    assert "schedule.cron" in bad.stderr
