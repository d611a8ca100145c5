"""A person runs mailings in a real browser: creates, watches, stops, repeats, imports, steers."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page, expect

from tests.e2e.conftest import REJECTED, Endpoint
from tests.e2e.console.conftest import Console, NewPage, Start, add_clients, create_mailing, free_port

MARK = "window.mark = true"


def test_a_mailing_is_written_previewed_and_watched_to_its_end(page: Page, endpoint: Endpoint) -> None:
    """The page of the mailing is never loaded again: what one sees came by the stream."""
    page.goto("/")
    page.get_by_role("link", name="New mailing").click()
    page.get_by_label("Title").fill("Winter sale")
    page.get_by_label("Text", exact=True).fill("Hello {attributes.name}, it snows.")
    page.get_by_label("Tags").fill("news")
    expect(page.locator("#preview")).to_contain_text("Hello Anna, it snows.")
    expect(page.locator("#preview")).to_contain_text("1 SMS")
    page.locator("[name=test_phone]").fill("70001000000")
    page.get_by_role("button", name="Send test").click()
    expect(page.locator("#test")).to_contain_text("The gateway accepted it.")
    page.get_by_text("Only clients that match at the start").click()
    page.get_by_role("button", name="Create the mailing").click()
    expect(page.get_by_role("heading", name="Winter sale")).to_be_visible()
    page.evaluate(MARK)
    expect(page.locator("#mailing_head")).to_contain_text("Completed")
    expect(page.locator("#c-delivered")).to_contain_text("10")
    expect(page.locator("#mailing_log")).to_contain_text("was created")
    assert page.evaluate("window.mark") is True
    assert sum(one["text"] == "Hello Anna, it snows." for one in endpoint.received()) == 11


def test_a_mailing_is_paused_resumed_and_cancelled(console: Console, page: Page) -> None:
    mailing_id = create_mailing(console, "--max-rate", "0.5")
    page.goto(f"/mailings/{mailing_id}")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#mailing_head")).to_contain_text("Paused")
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#mailing_head")).to_contain_text("Running")
    page.get_by_role("link", name="Cancel…").click()
    expect(page.locator("main")).to_contain_text("will not be sent. This cannot be undone.")
    page.get_by_role("button", name="Cancel the mailing").click()
    expect(page.locator("#mailing_head")).to_contain_text("Cancelled")
    expect(page.get_by_role("button", name="Pause")).to_have_count(0)


def test_what_failed_is_shown_with_its_reason_and_sent_again(console: Console, page: Page) -> None:
    add_clients(console, 2, "bad", REJECTED)
    mailing_id = create_mailing(console, "--tag", "bad", "--snapshot")
    page.goto(f"/mailings/{mailing_id}")
    expect(page.locator("#failures")).to_contain_text("Refused by the gateway")
    page.get_by_role("link", name="Retry…").click()
    page.get_by_role("button", name="Send again").click()
    expect(page.locator("#mailing_log")).to_contain_text("2")
    page.locator("#failures a code").first.click()
    expect(page.locator("#attempts")).to_contain_text("this phone is rejected")


def test_a_table_with_a_bad_row_is_imported_without_it(page: Page, tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_text("Phone;City;Zone\n+371 20000001;Riga;Europe/Riga\n12;Riga;Europe/Riga\n")
    page.goto("/clients/import")
    page.locator("[name=file]").set_input_files(table)
    page.get_by_role("button", name="Next").click()
    page.get_by_label("Zone", exact=True).select_option("timezone")
    page.get_by_role("button", name="Check, import nothing yet").click()
    expect(page.locator("main")).to_contain_text("must be the digits of an E.164 number")
    page.get_by_role("button", name="Import 1 row, leave out the bad ones").click()
    expect(page.locator("main")).to_contain_text("people.csv is imported.")
    page.goto("/clients")
    page.get_by_label("Phone or id").fill("+371 20000001")
    page.get_by_role("button", name="Find").click()
    expect(page.get_by_role("heading", name="37120000001")).to_be_visible()
    assert "37120000001" not in page.url
    page.get_by_role("button", name="Opt out").click()
    expect(page.locator("main")).to_contain_text("Opted out")


def test_an_operator_probes_and_stops_everything(console: Console, page: Page) -> None:
    page.goto("/endpoints")
    page.get_by_role("button", name="Probe").click()
    expect(page.locator("#probe")).to_contain_text("the probe was answered, HTTP 200")
    create_mailing(console, "--max-rate", "0.5")
    page.goto("/")
    expect(page.locator("#running")).to_contain_text("Winter sale")
    page.get_by_text("Stop everything").click()
    page.get_by_role("button", name="Stop all sending now").click()
    expect(page.get_by_role("alert")).to_contain_text("All sending is stopped.")
    page.get_by_role("button", name="Resume sending").click()
    expect(page.get_by_role("alert")).to_have_count(0)


def test_two_people_see_the_same_at_once(console: Console, new_page: NewPage) -> None:
    mailing_id = create_mailing(console, "--max-rate", "0.5")
    one, other = new_page(console.url), new_page(console.url)
    for page in (one, other):
        page.goto(f"/mailings/{mailing_id}")
        page.evaluate(MARK)
    one.get_by_role("button", name="Pause").click()
    expect(other.locator("#mailing_head")).to_contain_text("Paused")
    assert other.evaluate("window.mark") is True


def test_an_open_page_comes_back_with_the_service(start: Start, new_page: NewPage) -> None:
    """Console and service go away together and come back; the page is not loaded again, and nothing is missing."""
    address = f"127.0.0.1:{free_port()}"
    with start(address) as console:
        add_clients(console, 3)
        mailing_id = create_mailing(console, "--start", "+1h")
        page = new_page(console.url)
        page.goto(f"/mailings/{mailing_id}")
        page.evaluate(MARK)
        expect(page.locator("#mailing_head")).to_contain_text("Scheduled")
    expect(page.locator("#offline")).to_be_visible()
    with start(address) as console:
        console.cli.json("mailings", "cancel", mailing_id)
        expect(page.locator("#mailing_head")).to_contain_text("Cancelled")
        expect(page.locator("#mailing_log")).to_contain_text("was cancelled")
        expect(page.locator("#offline")).to_be_hidden()
        assert page.evaluate("window.mark") is True


HIDE = """window.away = true;
Object.defineProperty(document, "hidden", {get: () => window.away, configurable: true});
document.dispatchEvent(new Event("visibilitychange"))"""
SHOW = "window.away = false; document.dispatchEvent(new Event('visibilitychange'))"


def test_a_hidden_tab_reads_nothing_until_it_is_seen_again(console: Console, page: Page) -> None:
    """Fails when the stream of a page that nobody sees stays open."""
    mailing_id = create_mailing(console, "--start", "+1h")
    page.goto(f"/mailings/{mailing_id}")
    page.evaluate(MARK)
    expect(page.locator("#mailing_log")).to_contain_text("was created")
    with page.expect_event("requestfailed", lambda request: request.url.endswith("/live")):
        page.evaluate(HIDE)
    console.cli.json("mailings", "cancel", mailing_id)
    expect(page.locator("#mailing_head")).to_contain_text("Scheduled")
    page.evaluate(SHOW)
    expect(page.locator("#mailing_head")).to_contain_text("Cancelled")
    assert page.evaluate("window.mark") is True


def test_keys_lead_to_every_screen(page: Page) -> None:
    page.goto("/")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Keyboard shortcuts")
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("m")
    expect(page.get_by_role("heading", name="Mailings")).to_be_visible()
    page.keyboard.press("/")
    expect(page.get_by_label("Text")).to_be_focused()
