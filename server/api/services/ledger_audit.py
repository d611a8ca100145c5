"""The responses of AdminService.VerifyLedger: what an audit finds, as it goes on.

Owns when a response is due: every second in which a place was looked at, with all that was found, and while
one place takes long as well, since proxies cut silent streams. Nothing is held while the caller reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import monotonic
from typing import TypeVar

from mailing.v1 import admin_service_pb2 as pb
from server.api.encoding.findings import finding_message
from server.domain.findings import BEGINNING, Place
from server.domain.pagination import encode_token, query_digest, resumed_key
from server.domain.resume_tokens import reached
from server.domain.validation import Violations
from server.storage.verification import Verification

MOST = 500
"""Findings of one response."""

INTERVAL = 1.0
"""Seconds between two responses while the audit proceeds."""

QUIET = 5.0
"""Seconds without anything new after which a response comes all the same."""

T = TypeVar("T")


async def audit_responses(
    verification: Verification, request: pb.VerifyLedgerRequest
) -> AsyncGenerator[pb.VerifyLedgerResponse, None]:
    """Yield what an audit finds behind the request's token, to the end of it.

    Raise InvalidFields, InvalidResumeToken, and NotFound for a mailing that does not exist.
    """
    violations = Violations()
    if request.mailing_id < 0:
        violations.add("mailing_id", "must be a positive id, or 0 for all mailings")
    violations.check()
    digest = query_digest("verify ledger", request.mailing_id)
    after = Place(*resumed_key(request.resume_token, digest, BEGINNING))
    reached(request.resume_token)
    response, sent_at = pb.VerifyLedgerResponse(resume_token=request.resume_token), monotonic()
    async with aclosing(ticking(verification.steps(request.mailing_id, after), QUIET)) as steps:
        async for checked in steps:
            findings = [*map(finding_message, checked.findings)] if checked else []
            full = len(response.findings) + len(findings) > MOST
            if checked is None or full or monotonic() - sent_at > INTERVAL:
                yield response
                reached(response.resume_token)
                response.ClearField("findings")
                sent_at = monotonic()
            if checked:
                response.findings.extend(findings)
                response.resume_token, response.checked = encode_token(digest, *checked.place), checked.share
    response.checked = 1.0
    yield response


async def ticking(items: AsyncGenerator[T, None], seconds: float) -> AsyncGenerator[T | None, None]:
    """Yield the items, and None after every so many seconds in which there was none."""
    async with aclosing(items):
        while True:
            pending = asyncio.ensure_future(anext(items))
            try:
                while not (await asyncio.wait((pending,), timeout=seconds))[0]:
                    yield None
                item = pending.result()
            except StopAsyncIteration:
                return
            finally:
                if not pending.done():
                    pending.cancel()
                    await asyncio.wait((pending,))
            yield item
