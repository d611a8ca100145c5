"""A person plans in a real browser: a segment, a timetable, a schedule, and a change of what is stored."""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.e2e.console.conftest import Console, create_mailing, create_plans


def test_a_segment_is_written_corrected_and_mailed(page: Page) -> None:
    """The caret stands under the place in a font whose letters are all as wide."""
    page.goto("/segments")
    page.get_by_role("link", name="New segment").click()
    page.get_by_label("Name").fill("readers")
    page.get_by_label("Filter").fill('tag = "news" and timezone = "Europe/Riga"')
    expect(page.locator("#preview .caret")).to_contain_text("write AND in capital letters")
    page.get_by_role("button", name="Create the segment").click()
    found = [one["id"] for one in Axe().run(page).response["violations"] if one["impact"] in ("serious", "critical")]
    assert found == []
    assert "mono" in page.locator("#e-filter_text").evaluate("one => getComputedStyle(one).fontFamily.toLowerCase()")
    page.get_by_label("Filter").fill('tag = "news" AND timezone = "Europe/Riga"')
    expect(page.locator("#preview")).to_contain_text("10")
    page.get_by_role("button", name="Create the segment").click()
    page.get_by_role("row", name="readers").get_by_role("link", name="New mailing").click()
    expect(page.get_by_label("Segment")).to_have_value("readers")
    page.get_by_label("Text", exact=True).fill("Hello {attributes.name}")
    expect(page.locator("#preview .figures")).to_contain_text("10")


def test_a_timetable_shows_in_the_preview_and_is_changed_later(console: Console, page: Page) -> None:
    mailing_id = create_mailing(console, "--start", "2090-06-01T10:00:00Z", "--end", "2090-06-01T12:00:00Z")
    page.goto(f"/mailings/{mailing_id}")
    page.get_by_role("link", name="Edit").click()
    page.get_by_label("Sending hours").fill("sun 10:00-11:00 UTC")
    expect(page.locator("#preview")).to_contain_text("No sending hours till the end")
    page.get_by_label("Sending hours").fill("thu 10:00-11:00 UTC")
    expect(page.locator("#preview")).not_to_contain_text("No sending hours till the end")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#mailing_head")).to_contain_text("thu 10:00-11:00 UTC")


def test_a_schedule_is_written_and_its_mailings_appear_by_themselves(console: Console, page: Page) -> None:
    """The page of the schedule is never loaded again: the mailing that another person triggers comes by the stream."""
    page.goto("/schedules")
    page.get_by_role("link", name="New schedule").click()
    page.get_by_label("Name of the schedule").fill("Mornings")
    page.get_by_label("Cron expression").fill("0 10 * * 1-5")
    page.get_by_label("Text", exact=True).fill("Good morning, {attributes.name}")
    expect(page.locator("#preview time")).to_have_count(5)
    expect(page.locator("#preview")).to_contain_text("Good morning, Anna")
    page.get_by_role("button", name="Create the schedule").click()
    expect(page.locator("#schedule_head time")).to_have_count(5)
    expect(page.locator("#schedule_mailings")).to_contain_text("It has made no mailing yet.")
    page.evaluate("window.mark = true")
    console.cli.json("schedules", "trigger", "1")
    expect(page.locator("#schedule_mailings")).to_contain_text("Sent now")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#schedule_head")).to_contain_text("Paused")
    page.get_by_role("link", name="Edit").click()
    page.get_by_label("Name of the schedule").fill("Evenings")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name="Evenings")).to_be_visible()


def test_a_segment_in_use_says_by_what_and_stays(console: Console, page: Page) -> None:
    create_plans(console)
    create_mailing(console, "--start", "+1h", "--filter", 'segment = "news"', title="Needs it")
    page.goto("/segments/1/delete")
    page.get_by_role("button", name="Delete the segment").click()
    expect(page.get_by_role("alert")).to_contain_text("give them another filter first")
    page.get_by_role("link", name="Mailing 1").click()
    expect(page.get_by_role("heading", name="Needs it")).to_be_visible()


def test_a_filter_with_a_phone_is_looked_at_without_an_address(page: Page) -> None:
    page.goto("/clients")
    page.get_by_label("Or a filter as text").fill('phone = "70003*"')
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("row")).to_have_count(2)
    assert "7000" not in page.url
    page.get_by_label("Or a filter as text").fill('tag = "news"')
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("row")).to_have_count(11)
    assert page.url.endswith("?filter=tag+%3D+%22news%22")
