"""New secrets are used from the next request on, by every sender, and a bad file changes nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dispatcher.tasks import in_background
from server.config.types import ConfiguredEndpoint
from server.endpoints import renewal
from server.endpoints.endpoints_file import read_endpoints
from server.endpoints.renewal import keep_secrets
from tests.conformance.gateways import GatewayServer, Reply
from tests.conformance.scripted_endpoint import Request
from tests.conformance.senders import Contender, deliver, renewing
from tests.support.eventually import eventually

DESCRIBED = """
json = ["{phone}", "{secret.key}"]
secrets = { key_file = "token" }
auth = { header = "Authorization", value = "{secret.key}" }
"""


@pytest.mark.parametrize("lines", ["token_file = 'token'", DESCRIBED])
def test_a_changed_file_is_used_and_a_bad_one_is_not(
    lines: str, contender: Contender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Fails when a sender keeps what it was made with, and when a bad file takes the secret away."""
    monkeypatch.setattr(renewal, "CHECK_INTERVAL", 0.01)
    seen: list[str] = []

    def gateway(request: Request) -> Reply:
        seen.append(request.headers["authorization"].removeprefix("Bearer "))
        return Reply(200, {"code": 0})

    async def case() -> None:
        async with GatewayServer(gateway) as server:
            path = tmp_path / "endpoints.toml"
            (tmp_path / "token").write_text("first\n")
            path.write_text(f"[endpoints.x]\nurl = 'http://127.0.0.1:{server.port}/'\n{lines}\n")
            configured = read_endpoints(path)
            sender = contender.make(configured[0].endpoint)
            renewed: list[ConfiguredEndpoint] = []
            watching = asyncio.create_task(keep_secrets(configured, renewing(sender), renewed.append))
            await eventually(lambda: len(renewed), lambda count: count == 1)
            await deliver(sender, 1, "7916", "Hi")
            (tmp_path / "token").write_text("second!\n")
            await eventually(lambda: len(renewed), lambda count: count == 2)
            await deliver(sender, 2, "7916", "Hi")
            (tmp_path / "token").write_text("")
            await eventually(lambda: "stay as they were" in caplog.text, bool)
            (tmp_path / "token").unlink()
            await deliver(sender, 3, "7916", "Hi")
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await sender.close()

    contender.run(case())
    assert seen == ["first", "second!", "second!"]
    assert "second!" not in caplog.text


async def test_what_changed_before_it_was_watched_is_used(tmp_path: Path) -> None:
    """A start takes seconds. Fails when the state at their end counts as the one that was read at their begin."""
    path, token = tmp_path / "endpoints.toml", tmp_path / "token"
    path.write_text("[endpoints.x]\nurl = 'http://127.0.0.1:1/'\ntoken_file = 'token'\n")
    token.write_text("first\n")
    configured = read_endpoints(path)
    token.write_text("second!\n")
    renewed: list[ConfiguredEndpoint] = []
    async with in_background(keep_secrets(configured, renewed.append), "secrets"):
        await eventually(lambda: renewed)
    assert [one.endpoint.token for one in renewed] == ["second!"]
