"""The console in front of a running API, and a browser without a screen: cookies, forms and streams."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import unescape
from pathlib import Path
from typing import Any

import httpx

from server.auth import Authenticator
from server.auth.tokens_file import TokensFile, new_token, token_line
from server.console import ConsoleOptions, open_console


def tokens_of(folder: Path, **scopes: str) -> tuple[Authenticator, dict[str, str]]:
    """Return an authenticator for people with these scopes, separated by commas, and their tokens by name."""
    tokens = {name: new_token() for name in scopes}
    lines = [token_line(name, tokens[name], scopes[name].split(",")) for name in scopes]
    (folder / "tokens").write_text("\n".join(lines))
    return Authenticator(TokensFile(folder / "tokens")), tokens


class Browser:
    """Visits pages and sends their forms."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = httpx.AsyncClient(base_url=url, timeout=30, verify=False)

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    async def form_token(self, path: str) -> str:
        """Return the token of the forms on a page."""
        found = re.search(r'name="form_token" value="([^"]+)"', (await self.get(path)).text)
        assert found, path
        return unescape(found[1])

    async def send(self, page: str, path: str, /, **fields: Any) -> httpx.Response:
        """Send a form of a page."""
        return await self.client.post(path, data={"form_token": await self.form_token(page), **fields})

    async def sign_in(self, token: str) -> httpx.Response:
        return await self.send("/sign-in", "/sign-in", token=token, next="/")

    @asynccontextmanager
    async def live(self, path: str) -> AsyncIterator[AsyncIterator[str]]:
        """Lend the updates of a page, one text each."""
        async with self.client.stream("GET", path, headers={"accept": "text/event-stream"}) as answer:
            assert answer.status_code == 200, answer.status_code
            yield _events(answer)


async def previewed(browser: Browser, path: str, **fields: str) -> str:
    """Return the fragment that the page of a form gets while somebody types."""
    data = {"form_token": await browser.form_token(path), "text": "Hello", **fields}
    answer = await browser.client.post(f"{path}/preview", data=data, headers={"hx-request": "true"})
    assert answer.status_code == 200, answer.text
    return answer.text


async def filled_in(browser: Browser, path: str) -> dict[str, str]:
    """Return the fields of the form of a page, as a browser would send them."""
    form = (await browser.get(path)).text.partition('id="compose">')[2].partition("</form>")[0]
    fields, chosen = dict[str, str](), ""
    for tag, text in re.findall(r"<((?:input|textarea|select|option) [^>]*)>([^<]*)", form):
        name = _attribute(tag, "name")
        if tag.startswith("textarea"):
            fields[name] = unescape(text.removeprefix("\n"))
        elif tag.startswith("select"):
            chosen = name
        elif tag.startswith("option") and tag.endswith(" selected"):
            fields[chosen] = _attribute(tag, "value")
        elif tag.startswith("input") and ('type="checkbox"' not in tag or tag.endswith(" checked")):
            fields[name] = _attribute(tag, "value")
    return fields


def at_field(answer: httpx.Response, name: str) -> str:
    """Return what a page says is wrong with a field, for those who see it and for screen readers alike."""
    found = re.search(rf'<em id="e-{name}"[^>]*>([^<]*)</em>', answer.text)
    assert bool(found) == (f'aria-describedby="e-{name}"' in answer.text)
    return unescape(found[1]) if found else ""


def _attribute(tag: str, name: str) -> str:
    found = re.search(rf' {name}="([^"]*)"', tag)
    return unescape(found[1]) if found else ""


async def _events(answer: httpx.Response) -> AsyncIterator[str]:
    lines: list[str] = []
    async for line in answer.aiter_lines():
        if line.startswith("data:"):
            lines.append(line.removeprefix("data:"))
        elif not line and lines:
            yield "\n".join(lines)
            lines = []


@asynccontextmanager
async def console_of(address: str, **options: Any) -> AsyncIterator[Browser]:
    """Lend a browser at a console of the API at `address`, on a free port of loopback, without TLS."""
    usual: dict[str, Any] = {"listen": "127.0.0.1:0", "everybody": True}
    made = ConsoleOptions(address=address, **usual | options)
    async with open_console(made) as url:
        browser = Browser(url)
        try:
            yield browser
        finally:
            await browser.client.aclose()


async def update_with(updates: AsyncIterator[str], wanted: str, within: float = 20.0) -> str:
    """Return the first update that has this text; fail after `within` seconds."""
    async with asyncio.timeout(within):
        async for update in updates:
            if wanted in update:
                return update
    raise AssertionError(f"the stream ended without {wanted!r}")
