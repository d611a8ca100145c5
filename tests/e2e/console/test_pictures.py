"""The pictures of the documents, made from a real run; `make picture` puts them into docs/."""

from __future__ import annotations

import os
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.e2e.conftest import REJECTED
from tests.e2e.console.conftest import Console, NewPage, add_clients, create_mailing
from tests.support.project import ROOT

DOCS = ROOT / "docs" / "console"
SIZE = {"width": 1120, "height": 700}
TABLE = (
    "phone;name;city;zone\n+371 20000001;Anna;Riga;Europe/Riga\n12;Bob;Riga;Europe/Riga\n+371 20000003;Eva;Oslo;Oslo\n"
)
PICTURES = ("overview", "mailing", "new-mailing", "schedule", "import")


def test_the_pictures_of_the_documents_are_made(console: Console, new_page: NewPage, tmp_path: Path) -> None:
    folder = Path(os.environ.get("CONSOLE_PICTURES", tmp_path))
    add_clients(console, 5000)
    add_clients(console, 40, "news", REJECTED)
    first = create_mailing(console, "--max-rate", "110", "--label", "team=shop", title="Winter collection")
    create_mailing(console, "--max-rate", "35", "--label", "team=bank", title="Statements, November")
    create_mailing(console, "--start", "+3h", title="Friday event")
    pages = {theme: new_page(console.url, viewport=SIZE, color_scheme=theme) for theme in ("light", "dark")}
    for page in pages.values():
        page.goto("/")
    # A minute's chart is half full.
    pages["light"].wait_for_timeout(25_000 if folder != tmp_path else 1000)
    for theme, page in pages.items():
        shoot(page, folder / f"overview-{theme}.png")
        page.goto(f"/mailings/{first}")
        expect(page.locator("#report .chart").first).to_be_visible()
        shoot(page, folder / f"mailing-{theme}.png")
        write(page)
        shoot(page, folder / f"new-mailing-{theme}.png")
        check_table(page, tmp_path)
        shoot(page, folder / f"import-{theme}.png")
    add_schedule(console)
    for theme, page in pages.items():
        page.goto("/schedules/1")
        expect(page.get_by_role("row")).to_have_count(3)
        shoot(page, folder / f"schedule-{theme}.png")
    made = {f"{name}-{theme}.png" for name in PICTURES for theme in pages}
    assert made <= {one.name for one in folder.iterdir()}
    assert made == {one.name for one in DOCS.iterdir()}
    text = (ROOT / "docs" / "console.md").read_text(encoding="utf-8")
    assert [name for name in made if f"console/{name}" not in text] == []


def add_schedule(console: Console) -> None:
    """Create a schedule, and two of its mailings."""
    template = ("--text", "{attributes.name|Hello}, this is new: example.com/new", "--tag", "news", "--snapshot")
    when = ("--cron", "0 10 * * 1", "--zone", "Europe/Riga", "--end-after", "12h", "--overlap", "allow")
    limits = ("--max-rate", "900", "--max-per-day", "20000", "--skip-after", "6h")
    console.cli.json("schedules", "create", "--title", "News of the week", *template, *when, *limits)
    console.cli.json("schedules", "trigger", "1")
    console.cli.json("schedules", "trigger", "1")


def shoot(page: Page, path: Path) -> None:
    page.screenshot(path=path, animations="disabled")


def write(page: Page) -> None:
    page.goto("/mailings/new")
    page.get_by_label("Title").fill("Black Friday")
    page.get_by_label("Text", exact=True).fill(
        "{attributes.name|Hello}, everything is half price until Sunday: example.com/bf"
    )
    page.get_by_label("Tags").fill("news")
    expect(page.locator("#preview")).to_contain_text("1 SMS")
    page.get_by_label("Title").blur()


def check_table(page: Page, folder: Path) -> None:
    table = folder / "people.csv"
    table.write_text(TABLE)
    page.goto("/clients/import")
    page.locator("[name=file]").set_input_files(table)
    page.get_by_role("button", name="Next").click()
    page.get_by_label("zone", exact=True).select_option("timezone")
    page.get_by_role("button", name="Check, import nothing yet").click()
    expect(page.get_by_role("heading", name="Bad rows")).to_be_visible()
