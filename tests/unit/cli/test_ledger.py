"""`mailing ledger verify`: what it prints and returns, and that it goes on after an outage."""

from __future__ import annotations

import json

from mailing.v1.admin_service_pb2 import VerifyLedgerResponse
from mailing.v1.ledger_pb2 import LedgerFinding
from tests.unit.cli.conftest import Run, Service

LOST = LedgerFinding(
    kind=LedgerFinding.KIND_NOT_IN_BATCH,
    text="the pending message to client 16 stands in 0 open batches",
    mailing_id=7,
    client_id=16,
    bucket=3,
    repairable=True,
)


def test_records_that_agree_are_one_sentence(run: Run, service: Service) -> None:
    service.admin.audit = [VerifyLedgerResponse(checked=1.0, resume_token="1")]
    assert run("ledger", "verify") == (0, "The records agree.\n", "")
    assert json.loads(run("ledger", "verify", "--json").out) == {"findings": [], "more": False}


def test_findings_are_rows_and_end_with_status_one(run: Run, service: Service) -> None:
    service.admin.audit = [
        VerifyLedgerResponse(findings=[LOST], checked=0.5, resume_token="1"),
        VerifyLedgerResponse(checked=1.0, resume_token="2"),
    ]
    status, out, err = run("ledger", "verify", "--mailing-id", "7")
    assert (status, err) == (1, "")
    assert "not in batch 3 7 16 the pending message to client 16 stands in 0 open batches yes" in " ".join(out.split())
    assert service.admin.audited[0].mailing_id == 7
    status, out, _ = run("ledger", "verify", "--json")
    (finding,) = json.loads(out)["findings"]
    assert (status, finding["kind"], finding["message_id"]) == (1, "KIND_NOT_IN_BATCH", 0)


def test_an_audit_goes_on_behind_its_last_response(run: Run, service: Service) -> None:
    """Fails when it begins anew, or repeats what it has shown."""
    service.admin.audit = [
        VerifyLedgerResponse(findings=[LOST], checked=0.2, resume_token="1"),
        VerifyLedgerResponse(checked=0.4, resume_token="2"),
        VerifyLedgerResponse(findings=[LOST], checked=0.8, resume_token="3"),
        VerifyLedgerResponse(checked=1.0, resume_token="4"),
    ]
    status, out, _ = run("ledger", "verify")
    assert (status, out.count("not in batch")) == (1, 2)
    assert [request.resume_token for request in service.admin.audited] == ["", "2"]
