"""Every shipped preset, by both senders, against a gateway that answers as its documentation says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dispatcher.delivery.batching import BatchingSender
from dispatcher.described_answers import judge_of
from dispatcher.model.endpoints import Endpoint
from dispatcher.model.states import ErrorClass
from dispatcher.verdict import Verdict
from server.endpoints.endpoints_file import read_endpoints
from tests.conformance.gateways import CASES, GATEWAYS, GatewayServer
from tests.conformance.senders import PATIENT, Contender, deliver
from tests.support.project import ROOT

PRESETS = ROOT / "examples" / "endpoints"

REPORTED_LATER = {"infobip", "plivo", "fcm", "sendgrid", "mailgun", "seed"}
"""Gateways whose answers know of no opt-out."""

CLASSES = {
    "success": ErrorClass.NONE,
    "throttled": ErrorClass.THROTTLED,
    "bad number": ErrorClass.REFUSED,
    "opted out": ErrorClass.OPTED_OUT,
    "bad credentials": ErrorClass.CREDENTIALS,
}


def preset(name: str) -> Endpoint:
    [found] = read_endpoints(PRESETS / f"{name}.toml")
    return replace(found.endpoint, total_timeout=PATIENT, connect_timeout=PATIENT)


def at(endpoint: Endpoint, port: int) -> Endpoint:
    """Return the endpoint with the address of a local server; the request itself stays."""
    host = endpoint.url.partition("://")[2].partition("/")[0]
    return replace(endpoint, url=endpoint.url.replace(f"https://{host}", f"http://127.0.0.1:{port}"))


def verdicts(contender: Contender, name: str) -> dict[str, Verdict]:
    """Return what a preset makes of each case."""
    found: dict[str, Verdict] = {}

    async def case() -> None:
        async with GatewayServer(GATEWAYS[name]) as gateway:
            endpoint = at(preset(name), gateway.port)
            sender, judge = contender.make(endpoint), judge_of(endpoint)
            if endpoint.request and endpoint.request.batch:
                sender = BatchingSender(sender, endpoint)
            for kind, digit in CASES.items():
                address = (
                    f"{digit}@example.com" if "email" in str(endpoint.request and endpoint.request.needs) else digit
                )
                attributes = {"email": address, "fcm_token": f"token-{digit}", "telegram_chat_id": f"100{digit}"}
                values = endpoint.request.values_of("News", attributes) if endpoint.request else ()
                answer = await deliver(sender, 4294967297, f"7916123456{digit}", 'Hi "ё" & {x}', values=values)
                found[kind] = judge(answer)
            await sender.close()
            assert gateway.complaints == []

    contender.run(case())
    return found


@pytest.mark.parametrize("name", GATEWAYS)
def test_a_preset_reads_every_answer_as_documented(name: str, contender: Contender) -> None:
    found = verdicts(contender, name)
    expected = dict(CLASSES)
    if name in REPORTED_LATER:
        expected["opted out"] = ErrorClass.NONE
    if name == "seed":
        expected["bad number"] = ErrorClass.REJECTED
    assert {kind: verdict.error_class for kind, verdict in found.items()} == expected
    assert [kind for kind, verdict in found.items() if verdict.delivered] == [
        kind for kind, error in expected.items() if error is ErrorClass.NONE
    ]
    if name not in ("form", "seed"):
        assert found["success"].provider_id in ("ID-1", "77")
    if name in ("telegram", "seed"):
        assert found["throttled"].retry_after == 5


def test_every_preset_has_a_gateway() -> None:
    assert sorted(path.stem for path in Path(PRESETS).glob("*.toml")) == sorted(GATEWAYS)
