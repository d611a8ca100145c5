"""What a real browser refuses for us, what nobody sees who may not, and that everybody can use it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect

from mailing.ids import message_id
from server.auth.tokens_file import new_token, token_line
from tests.e2e.console.conftest import Console, NewPage, Start, create_mailing, create_plans

EVIL = """<script>alert(1)</script><img src=x onerror="alert(2)">"""
SCREENS = [
    *("/", "/mailings", "/mailings/1", "/mailings/2", "/mailings/2/cancel", "/mailings/2/edit", "/mailings/1/retry"),
    *("/mailings/new", "/messages?mailing=1", "/messages/{message}", "/clients", "/clients/new", "/clients/{client}"),
    *("/clients/{client}/delete", "/clients/import", "/segments", "/segments/1", "/segments/1/delete", "/schedules"),
    *("/segments/new", "/schedules/new", "/schedules/1", "/schedules/1/edit", "/schedules/1/delete", "/endpoints"),
    *("/dispatchers", "/log", "/settings"),
]


def screens(console: Console) -> list[str]:
    """Make one of everything that has a page, and return the addresses of all pages."""
    create_mailing(console, "--snapshot")
    assert console.cli.run("watch", "1").returncode == 0
    create_mailing(console, "--start", "+1h")
    create_plans(console)
    client = console.cli.json("clients", "list", "--limit", "1")["clients"][0]["id"]
    return [one.format(client=client, message=message_id(1, int(client))) for one in SCREENS]


def opened(page: Page, path: str) -> None:
    """Open a page that has to be there."""
    answer = page.goto(path)
    assert answer is not None
    assert answer.status == 200, path
    expect(page.locator("h1").first).to_be_visible()


def test_what_people_wrote_is_never_run(console: Console, page: Page) -> None:
    """A script that runs opens a dialog, which fails the test where the page is made."""
    console.cli.run("clients", "add", "79990000001", "--timezone", "UTC", "--attribute", f"name={EVIL}")
    create_mailing(console, "--start", "+1h", title=EVIL)
    for path in ("/", "/mailings", "/mailings/1", "/mailings/1/cancel", "/clients", "/log"):
        page.goto(path)
        expect(page.locator("main script, main img")).to_have_count(0)
    page.goto("/mailings/1")
    expect(page.get_by_role("heading", name=EVIL)).to_be_visible()


def test_no_other_page_frames_the_console_or_sends_its_forms(console: Console, new_page: NewPage) -> None:
    """The other page stands on another origin, the console's own port under another name."""
    other = new_page(console.url.replace("127.0.0.1", "localhost"))
    other.route("**/attack", lambda route: route.fulfill(content_type="text/html", body=attack(console.url)))
    other.goto("/attack")
    expect(other.locator("body")).to_contain_text("attack")
    assert not [frame for frame in other.frames if frame.url.startswith(console.url)]
    other.locator("button").click()
    expect(other.locator("body")).to_contain_text("This form cannot be used")
    other.goto(f"{console.url}/")
    expect(other.get_by_role("heading", name="Overview")).to_be_visible()
    expect(other.get_by_role("alert")).to_have_count(0)


def attack(url: str) -> str:
    return f"""attack <iframe src="{url}/"></iframe>
    <form method="post" action="{url}/dispatch/pause"><input name="form_token" value="x"><button>go</button></form>"""


@pytest.fixture
def tokens(tmp_path: Path) -> dict[str, str]:
    """Write the tokens file and return the settings that name it, and the tokens."""
    made = {"boss": new_token(), "viewer": new_token()}
    scopes = {"boss": ["all"], "viewer": ["mailings.read", "messages.read"]}
    (tmp_path / "tokens").write_text("\n".join(token_line(name, made[name], scopes[name]) for name in made))
    return made


def test_a_viewer_sees_no_phones_and_no_buttons(
    start: Start, tokens: dict[str, str], new_page: NewPage, tmp_path: Path
) -> None:
    with start(MAILING_TOKENS_FILE=str(tmp_path / "tokens")) as console:
        page = new_page(console.url)
        page.goto("/mailings")
        page.get_by_label("Token").fill("mlg_wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("does not accept this token")
        page.get_by_label("Token").fill(tokens["viewer"])
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="Mailings")).to_be_visible()
        expect(page.get_by_role("link", name="New mailing")).to_have_count(0)
        expect(page.get_by_role("link", name="Clients")).to_have_count(0)
        page.goto("/clients")
        expect(page.locator("main")).to_contain_text("clients.read")
        token = page.locator("[name=form_token]").first.get_attribute("value") or ""
        forced = page.request.post("/mailings/1/pause", form={"form_token": token}, headers={"origin": console.url})
        assert forced.status == 403
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nobody_is_kept_out_by_how_pages_are_made(console: Console, new_page: NewPage, theme: str) -> None:
    """axe-core finds nothing serious: contrast, labels, names, order."""
    page = new_page(console.url, color_scheme=theme)
    found = []
    for path in screens(console):
        opened(page, path)
        violations = Axe().run(page).response["violations"]
        serious = [one for one in violations if one["impact"] in ("serious", "critical")]
        found += [(path, one["id"], one["nodes"][0]["html"][:120]) for one in serious]
    assert found == []


def test_a_narrow_screen_shows_everything_without_scrolling_sideways(console: Console, new_page: NewPage) -> None:
    page = new_page(console.url, viewport={"width": 360, "height": 740})
    wide = []
    for path in screens(console):
        opened(page, path)
        if page.evaluate("document.documentElement.scrollWidth") > 360:
            wide.append(path)
    assert wide == []


def test_everything_but_the_live_part_works_without_script(console: Console, new_page: NewPage) -> None:
    page = new_page(console.url, java_script_enabled=False)
    page.goto("/mailings/new")
    page.get_by_label("Text", exact=True).fill("Hello")
    page.get_by_label("Sending hours").fill("at noon")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#e-sending_hours")).to_contain_text("'at noon' is not [DAYS] HH:MM-HH:MM [ZONE]")
    page.get_by_label("Sending hours").fill("00:00-00:00")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#preview")).to_contain_text("Hello")
    page.get_by_role("button", name="Create the mailing").click()
    expect(page).to_have_url(re.compile(r"/mailings/1$"))
    page.get_by_role("link", name="Cancel…").click()
    page.get_by_role("button", name="Cancel the mailing").click()
    expect(page.locator("#mailing_head")).to_contain_text(re.compile("Cancelled|Completed"))


def test_the_language_and_the_colours_are_chosen(console: Console, new_page: NewPage) -> None:
    page = new_page(console.url, locale="ru-RU")
    page.goto("/")
    expect(page.locator("html")).to_have_attribute("lang", "ru")
    page.get_by_role("button", name="EN").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    page.get_by_role("button", name="Dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_a_page_whose_first_stream_fails_tries_again(console: Console, new_page: NewPage) -> None:
    """The stream's own reconnecting begins only after a first connection."""
    page, failed = new_page(console.url), list[str]()

    def fail_once(route: Route) -> None:
        if failed:
            route.fallback()
        else:
            failed.append(route.request.url)
            route.fulfill(status=503, body="away")

    page.route("**/live", fail_once)
    mailing_id = create_mailing(console, "--start", "+1h")
    page.goto(f"/mailings/{mailing_id}")
    console.cli.json("mailings", "cancel", mailing_id)
    expect(page.locator("#mailing_head")).to_contain_text("Cancelled")
    assert failed
