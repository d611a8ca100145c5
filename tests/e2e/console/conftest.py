"""A real browser, Debian's Chromium without a screen, at the console of a service in a process of its own."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from mailing.cli.processes import running
from tests.e2e.conftest import PROGRAM, TOKEN, Cli, Endpoint, environment
from tests.support.eventually import eventually_sync

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 30_000
"""Milliseconds that something may take to appear, on a machine that does other things, too."""

SERVING = re.compile(r"^serving on (\S+)$", re.MULTILINE)
CONSOLE = re.compile(r"^console on (\S+)$", re.MULTILINE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a browser where there is none."""
    skip = pytest.mark.skip(reason="no chromium is installed: the console was not tried in a browser")
    if CHROMIUM is None:
        for item in items:
            if item.path.parent == Path(__file__).parent:
                item.add_marker(skip)


@pytest.fixture
def chromium(database_dsn: str) -> Iterator[Browser]:
    """Yield the browser. Its driver runs a loop in this thread: the database is made before, and dropped after."""
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass(frozen=True, slots=True)
class Console:
    """A running service, its command line, and the address of its console."""

    cli: Cli
    url: str


Start = Callable[..., AbstractContextManager[Console]]


@pytest.fixture
def start(database_dsn: str, endpoint: Endpoint, tmp_path: Path) -> Start:
    """Return how a service with a console is started; it runs inside the block."""

    @contextmanager
    def started(console: str = "127.0.0.1:0", **settings: str) -> Iterator[Console]:
        known = {"MAILING_DSN": database_dsn, "MAILING_ENDPOINT_URL": endpoint.url, "MAILING_ENDPOINT_TOKEN": TOKEN}
        wanted = environment(**known | {"MAILING_CONSOLE_LISTEN": console} | settings)
        log = tmp_path / "console.log"
        with running([*PROGRAM, "serve", "--listen", "127.0.0.1:0"], SERVING, log, wanted) as match:
            found = eventually_sync(lambda: CONSOLE.search(log.read_text()))
            assert found is not None
            yield Console(Cli(match[1]), found[1])

    return started


@pytest.fixture
def console(start: Start) -> Iterator[Console]:
    """Yield a console that asks nobody to sign in, with ten clients in Riga."""
    with start() as console:
        add_clients(console, 10)
        yield console


NewPage = Callable[..., Page]


@pytest.fixture
def new_page(chromium: Browser) -> Iterator[NewPage]:
    """Return how another person's browser is opened; what fails in a page fails the test."""
    failures: list[str] = []
    contexts = []

    def opened(url: str, **options: object) -> Page:
        wanted = {"viewport": {"width": 1240, "height": 860}, "locale": "en", "timezone_id": "Europe/Riga"}
        context = chromium.new_context(base_url=url, **wanted | options)  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.on("dialog", lambda dialog: failures.append(f"a script ran: {dialog.message}"))
        page.on(
            "console", lambda message: failures.append(message.text) if "Content Security" in message.text else None
        )
        return page

    yield opened
    for context in contexts:
        context.close()
    assert failures == []


@pytest.fixture
def page(console: Console, new_page: NewPage) -> Page:
    """Return a browser's page at the console."""
    return new_page(console.url)


def add_clients(console: Console, count: int, tag: str = "news", ending: str = "") -> None:
    """Import clients whose phones end so; those that end in six sixes are refused by the endpoint."""
    numbers = [f"7{number:04}{ending or '000000'}" for number in range(count)]
    rows = "".join(f"{number},Europe/Riga,{tag},Anna\n" for number in numbers)
    done = console.cli.run("clients", "import", "-", stdin=f"phone,timezone,tag,attributes.name\n{rows}")
    assert done.returncode == 0, done.stderr


def create_mailing(console: Console, *options: str, title: str = "Winter sale") -> str:
    """Create a mailing by the command line, to all clients without options that choose some, and return its id."""
    everybody = (
        [] if any(option in options for option in ("--tag", "--attribute", "--client-id", "--filter")) else ["--all"]
    )
    return str(
        console.cli.json(
            "mailings", "create", *everybody, "--text", "Hello {attributes.name}", "--title", title, *options
        )["id"]
    )


def create_plans(console: Console) -> None:
    """Create a segment and a schedule, whose pages are the first of their kind."""
    console.cli.json("segments", "create", "news", 'tag = "news"')
    template = ("--text", "Good morning", "--all", "--cron", "0 10 * * 1-5", "--zone", "Europe/Riga")
    console.cli.json("schedules", "create", "--title", "Mornings", *template)


def free_port() -> int:
    """Return a port that nobody listens on at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
