"""Whatever an endpoint does, a sender ends in time, in bounded memory, in one class, and goes on."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from dispatcher.model.endpoints import Answer
from dispatcher.model.states import ErrorClass
from dispatcher.ports import Sender
from dispatcher.verdict import Verdict, judge
from tests.conformance.behaviours import BEHAVIOURS, MAX_BODY, Behaviour
from tests.conformance.certificates import Certificates
from tests.conformance.scripted_endpoint import ScriptedEndpoint, answers, http
from tests.conformance.senders import HASTY, PATIENT, Contender, deliver, endpoint, nothing_is_left

GRACE = 5.0
"""How late, in seconds, a machine with other things to do may be before a test calls it a hang."""

BUFFERED = 32 << 20
"""The most bytes that an endpoint may get rid of before a sender stops it: mostly the kernel's buffers."""


def test_no_two_behaviours_share_a_name() -> None:
    assert [name for name, count in Counter(row.name for row in BEHAVIOURS).items() if count > 1] == []


@pytest.mark.parametrize("row", BEHAVIOURS, ids=lambda row: row.name)
def test_it_ends_as_the_table_says(row: Behaviour, contender: Contender, certificates: Certificates) -> None:
    contender.run(_case(row.seen_by_httpx() if contender.is_httpx else row, contender, certificates))


async def _case(row: Behaviour, contender: Contender, certificates: Certificates) -> None:
    timeout = HASTY if row.error is ErrorClass.TIMEOUT else PATIENT
    async with ScriptedEndpoint(row.script, certificates[row.tls] if row.tls else None) as server:
        sender = contender.make(endpoint(server.url, timeout, ca_file=certificates.ca_file))
        try:
            answer = await _send(sender, timeout)
            _check(row, answer, judge(answer))
            assert server.pushed < BUFFERED
            await _goes_on(row, sender, server)
        finally:
            await sender.close()
        await server.until(lambda: server.open == 0)
    await nothing_is_left()


async def _send(sender: Sender, timeout: float) -> Answer:
    async with asyncio.timeout(timeout + GRACE):
        return await deliver(sender, 1 << 32 | 16, "79001234567", "Hello")


def _check(row: Behaviour, answer: Answer, verdict: Verdict) -> None:
    assert verdict.error_class is row.error
    assert (verdict.delivered, verdict.retryable) == (row.error is ErrorClass.NONE, row.retryable)
    assert row.sent is None or answer.sent is row.sent
    assert verdict.endpoint_code == row.code
    assert verdict.retry_after == row.retry_after
    assert len(answer.body) <= MAX_BODY
    assert row.status is None or answer.status == row.status


async def _goes_on(row: Behaviour, sender: Sender, server: ScriptedEndpoint) -> None:
    """Whatever it was, the next request is served, on the same connection where that is safe."""
    if row.error is ErrorClass.TLS:
        return
    before = server.accepted
    if not row.keeps:
        server.script = answers(http())
    answer = await _send(sender, PATIENT)
    if row.keeps:
        assert (answer.status, server.accepted) == (row.status, before)
    else:
        assert judge(answer).delivered
        assert server.accepted == before + 1
