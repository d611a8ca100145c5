"""The command line against a running service: filters as text, and `mailing segments`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from mailing.cli import main
from tests.integration.api.calls import add_client
from tests.integration.api.conftest import Service

Run = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def run(service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run one command against the service; return its status and what it wrote."""
    monkeypatch.setenv("MAILING_ADDRESS", service.address)

    async def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = await asyncio.to_thread(main, arguments)
        return status, *capsys.readouterr()

    return call


async def test_clients_and_mailings_are_chosen_by_text(service: Service, run: Run) -> None:
    await add_client(service, 79261000001, tag="vip", attributes={"age": "31"})
    await add_client(service, 79261000002, tag="vip", attributes={"age": "29"})
    text = 'tag = "vip" AND attributes.age >= 30 AND NOT got(17)'
    status, out, _ = await run("clients", "list", "--filter", text)
    assert (status, "79261000001" in out, "79261000002" in out) == (0, True, False)
    status, out, _ = await run("clients", "export", "--filter", text)
    assert (status, out.count("\n")) == (0, 2)
    status, out, _ = await run("mailings", "create", "--text", "Hi", "--filter", text, "--yes")
    assert (status, 'tags: vip; attribute_conditions { name: "age"' in " ".join(out.split())) == (0, True)
    status, out, _ = await run("preview", "--text", "Hi", "--filter", text)
    assert (status, "audience" in out) == (0, True)


async def test_a_text_that_cannot_be_read_is_shown_with_a_caret(run: Run) -> None:
    status, out, err = await run("clients", "list", "--filter", "tag = a OR tag = b AND id = 3")
    assert (status, out) == (2, "")
    assert err.splitlines() == [
        "mailing: filter_text: AND and OR meet here: put parentheses around one of them, at character 20",
        "  tag = a OR tag = b AND id = 3",
        "                     ^",
    ]


async def test_a_text_beside_other_options_is_refused(run: Run) -> None:
    for command in (["clients", "list"], ["clients", "export"], ["mailings", "create", "--text", "Hi", "--yes"]):
        status, _, err = await run(*command, "--filter", "tag = a", "--tag", "b")
        assert (status, "--filter" in err) == (2, True)


async def test_segments_are_made_shown_changed_and_removed(service: Service, run: Run) -> None:
    await add_client(service, 79261000001, tag="vip")
    status, out, _ = await run("segments", "create", "top", 'tag = "vip" OR tag = "gold"')
    assert status == 0
    assert 'tag = "gold" OR tag = "vip"' in out
    status, out, _ = await run("segments", "get", "TOP", "--json")
    assert (status, json.loads(out)["name"], json.loads(out)["size"]) == (0, "top", 1)
    status, out, _ = await run("segments", "update", "top", "--name", "best", "--filter", "tag = none")
    assert (status, "best" in out, 'tag = "none"' in out) == (0, True, True)
    status, out, _ = await run("segments", "list")
    assert (status, "best" in out) == (0, True)
    status, out, _ = await run("segments", "preview", "segment = best OR tag = vip")
    assert (status, 'segment = "best" OR tag = "vip"' in out) == (0, True)
    assert (await run("mailings", "create", "--text", "Hi", "--filter", "segment = best", "--yes"))[0] == 0
    status, _, err = await run("segments", "delete", "best")
    assert (status, "is named by mailing 1" in err) == (1, True)
    assert (await run("cancel", "1"))[0] == 0
    assert await run("segments", "delete", "best") == (0, "deleted best\n", "")
    assert (await run("segments", "update", "best"))[0] == 2
