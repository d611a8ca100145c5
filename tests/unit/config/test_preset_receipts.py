"""The receipts of presets, whose marks are taken away: each reads the report that its gateway documents."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from server.domain.receipts import Incoming, Receipt, reports_of
from server.endpoints.endpoints_file import read_endpoints
from tests.support.project import ROOT

PRESETS = ROOT / "examples" / "endpoints"
ENTRY = {"changes": [{"value": {"statuses": [{"id": "ID", "status": "failed", "errors": [{"code": 131026}]}]}}]}
SMTP = {"code": 250}
REPORTS: dict[str, tuple[Any, Receipt, str]] = {
    "twilio": ("MessageSid=ID&MessageStatus=undelivered&ErrorCode=30003&To=%2B1", Receipt.UNDELIVERED, "30003"),
    "vonage": ({"message-id": "ID", "status": "delivered", "err-code": "0"}, Receipt.RECEIVED, "0"),
    "infobip": (
        {"results": [{"messageId": "ID", "status": {"groupName": "DELIVERED"}, "error": {"id": 0}}]},
        Receipt.RECEIVED,
        "0",
    ),
    "plivo": ("MessageUUID=ID&Status=sent&ErrorCode=", Receipt.SENT, ""),
    "whatsapp": ({"entry": [ENTRY]}, Receipt.UNDELIVERED, "131026"),
    "postmark": ({"MessageID": "ID", "RecordType": "Bounce", "Type": "HardBounce"}, Receipt.UNDELIVERED, "HardBounce"),
    "sendgrid": ([{"message_id": "ID", "event": "open", "email": "a@b"}], Receipt.READ, ""),
    "mailgun": (
        {
            "event-data": {
                "event": "delivered",
                "user-variables": {"message_id": "ID"},
                "delivery-status": {"code": 250},
            }
        },
        Receipt.RECEIVED,
        "250",
    ),
}


@pytest.mark.parametrize("name", REPORTS)
def test_a_preset_reads_the_reports_of_its_gateway(name: str, tmp_path: Path) -> None:
    path = tmp_path / "endpoints.toml"
    lines = (PRESETS / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line.removeprefix("#:") for line in lines), encoding="utf-8")
    [found] = read_endpoints(path, "https://receipts.example")
    assert found.receipts is not None
    body, receipt, code = REPORTS[name]
    document = dict(parse_qsl(body)) if found.receipts.rules.parse == "form" else body
    [report] = reports_of(name, found.receipts.rules, Incoming(document, {}, {}))
    assert (report.identity, report.receipt, report.code) == ("ID", receipt, code)


def test_every_preset_with_marks_is_read() -> None:
    marked = {path.stem for path in PRESETS.glob("*.toml") if "\n#: " in path.read_text(encoding="utf-8")}
    assert marked == {*REPORTS}
