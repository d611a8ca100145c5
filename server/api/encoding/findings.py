"""Findings of an audit → their protobuf messages."""

from __future__ import annotations

from mailing.v1 import ledger_pb2
from server.domain.findings import Finding
from server.domain.messages import message_id


def finding_message(finding: Finding) -> ledger_pb2.LedgerFinding:
    """Return a finding as a message."""
    about_message = finding.mailing_id and finding.client_id
    return ledger_pb2.LedgerFinding(
        kind=ledger_pb2.LedgerFinding.Kind.ValueType(finding.kind),
        text=finding.found,
        mailing_id=finding.mailing_id,
        message_id=message_id(finding.mailing_id, finding.client_id) if about_message else 0,
        client_id=finding.client_id,
        bucket=finding.bucket or 0,
        repairable=finding.mendable,
    )
