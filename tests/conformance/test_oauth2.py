"""Access tokens by client credentials: fetched ahead, one at a time, and nothing is sent without one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dispatcher.model.states import ErrorClass
from dispatcher.signals import Signal
from server.config.types import ConfiguredEndpoint
from server.endpoints import oauth2, renewal
from server.endpoints.endpoints_file import read_endpoints
from server.endpoints.renewal import keep_secrets
from tests.conformance.gateways import GatewayServer, Reply, basic, form
from tests.conformance.scripted_endpoint import Request
from tests.conformance.senders import Contender, deliver, renewing
from tests.support.eventually import eventually

ENDPOINT = """
[endpoints.x]
url = "http://127.0.0.1:{port}/send"
json = ["{{phone}}"]

[endpoints.x.auth.oauth2]
url = "http://127.0.0.1:{issuer}/token"
client_id = "me"
client_secret = "s3cret"
scope = "sms"
"""


class Issuer:
    """Gives tokens, one after the other, unless it is `away`."""

    def __init__(self) -> None:
        self.given = 0
        self.asked = 0
        self.away = True
        self.answer: object = None

    def __call__(self, request: Request) -> Reply:
        self.asked += 1
        assert request.line == "POST /token HTTP/1.1"
        assert request.headers["authorization"] == basic("me", "s3cret")
        assert form(request) == {"grant_type": "client_credentials", "scope": "sms"}
        if self.away:
            return Reply(503)
        self.given += 1
        usual = {"access_token": f"token{self.given}", "expires_in": 0.5, "token_type": "bearer"}
        return Reply(200, usual if self.answer is None else self.answer)


def test_tokens_are_fetched_ahead_and_awaited(
    contender: Contender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Fails when a request leaves without a token, or an old one is kept."""
    for name, seconds in (("FIRST_WAIT", 0.02), ("SHORTEST", 0.02)):
        monkeypatch.setattr(renewal, name, seconds)
    issuer, seen = Issuer(), list[str]()

    def gateway(request: Request) -> Reply:
        seen.append(request.headers.get("authorization", ""))
        return Reply(200, {"code": 0})

    async def case() -> None:
        async with GatewayServer(gateway) as server, GatewayServer(issuer) as tokens:
            path = tmp_path / "endpoints.toml"
            path.write_text(ENDPOINT.format(port=server.port, issuer=tokens.port))
            configured = read_endpoints(path)
            sender, renewed = contender.make(configured[0].endpoint), list[ConfiguredEndpoint]()
            answer = await deliver(sender, 1, "7916", "Hi")
            assert (answer.error, answer.sent) == (ErrorClass.CONNECT, False)
            keeping = asyncio.create_task(keep_secrets(configured, renewing(sender), renewed.append))
            await eventually(lambda: issuer.asked, lambda asked: asked > 1)
            issuer.away = False
            await eventually(lambda: len(renewed), lambda count: count == 1)
            await deliver(sender, 2, "7916", "Hi")
            await eventually(lambda: len(renewed), lambda count: count == 2)
            await deliver(sender, 3, "7916", "Hi")
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await sender.close()
            assert tokens.complaints == []

    contender.run(case())
    assert seen == ["Bearer token1", "Bearer token2"]
    assert "no token could be fetched: HTTP 503" in caplog.text
    assert "s3cret" not in caplog.text
    assert "token1" not in caplog.text


@pytest.mark.parametrize(
    "answer", [{}, [], "x", {"access_token": 5}, {"access_token": "a b"}, {"access_token": "t", "expires_in": "soon"}]
)
def test_an_answer_without_a_token_is_none(answer: object, contender: Contender, tmp_path: Path) -> None:
    issuer = Issuer()
    issuer.away, issuer.answer = False, answer

    async def case() -> None:
        async with GatewayServer(issuer) as tokens:
            path = tmp_path / "endpoints.toml"
            path.write_text(ENDPOINT.format(port=1, issuer=tokens.port))
            [configured] = read_endpoints(path)
            assert configured.grant is not None
            with pytest.raises(ValueError, match="token"):
                await oauth2.fetch_token(configured.grant, 2.0)

    contender.run(case())


SECRETS = """
client_secret_file = "secret"

[endpoints.x.headers]
X-Key = "{secret.key}"

[endpoints.x.secrets]
key_file = "key"
"""


def test_changed_files_and_fetched_tokens_do_not_undo_each_other(
    contender: Contender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when a changed file takes the token away, or a token an old secret back; and by the old client secret."""
    monkeypatch.setattr(renewal, "CHECK_INTERVAL", 0.01)
    asked, seen = list[str](), list[tuple[str, str]]()

    def issue(request: Request) -> Reply:
        asked.append(request.headers["authorization"])
        return Reply(200, {"access_token": f"token{len(asked)}", "expires_in": 3600})

    def gateway(request: Request) -> Reply:
        seen.append((request.headers["authorization"], request.headers["x-key"]))
        return Reply(200, {"code": 0})

    async def case() -> None:
        async with GatewayServer(gateway) as server, GatewayServer(issue) as tokens:
            (tmp_path / "secret").write_text("first-secret")
            (tmp_path / "key").write_text("first-key")
            path = tmp_path / "endpoints.toml"
            described = ENDPOINT.format(port=server.port, issuer=tokens.port).replace('client_secret = "s3cret"\n', "")
            path.write_text(described + SECRETS)
            configured = read_endpoints(path)
            sender, renewed = contender.make(configured[0].endpoint), list[ConfiguredEndpoint]()
            keeping = asyncio.create_task(keep_secrets(configured, renewing(sender), renewed.append))
            await eventually(lambda: len(renewed), lambda count: count == 2)  # by the files, and by the first token
            await deliver(sender, 1, "7916", "Hi")
            (tmp_path / "key").write_text("second-key")
            await eventually(lambda: len(renewed), lambda count: count == 3)
            await deliver(sender, 2, "7916", "Hi")
            (tmp_path / "secret").write_text("second-secret")
            await eventually(lambda: len(renewed), lambda count: count == 5)
            await deliver(sender, 3, "7916", "Hi")
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await sender.close()

    contender.run(case())
    assert asked == [basic("me", "first-secret"), basic("me", "second-secret")]
    assert seen == [("Bearer token1", "first-key"), ("Bearer token1", "second-key"), ("Bearer token2", "second-key")]


def test_a_token_that_is_refused_before_its_end_is_replaced(contender: Contender, tmp_path: Path) -> None:
    """Fails when only the end of a token brings the next one: a token may be taken back within its hour."""
    issuer, refused = Issuer(), Signal[str]()
    issuer.away, issuer.answer = False, {"access_token": "long-lived", "expires_in": 3600}

    async def case() -> None:
        async with GatewayServer(issuer) as tokens:
            path = tmp_path / "endpoints.toml"
            path.write_text(ENDPOINT.format(port=1, issuer=tokens.port))
            renewed = list[ConfiguredEndpoint]()
            keeping = asyncio.create_task(keep_secrets(read_endpoints(path), renewed.append, refused=refused))
            await eventually(lambda: len(renewed), lambda count: count == 1)
            refused.emit("another")
            refused.emit("x")
            await eventually(lambda: len(renewed), lambda count: count == 2)
            assert issuer.asked == 2
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    contender.run(case())
