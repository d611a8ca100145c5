"""`mailing webhooks`: the list, and whether a test event was taken."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from mailing.v1.webhook_pb2 import Webhook
from tests.unit.cli.conftest import Run, Service


def test_each_webhook_is_a_row_with_its_lag_and_last_error(run: Run, service: Service) -> None:
    service.admin.webhooks = [
        Webhook(name="crm", url="https://crm.example/hook", waiting=1234, lag=Duration(seconds=90), last_error="500"),
        Webhook(name="ops", url="https://ops.example/", disabled=True, last_error="410: it wants no more events"),
    ]
    status, out, err = run("webhooks")
    assert (status, err) == (0, "")
    words = " ".join(out.split())
    for text in ("crm https://crm.example/hook 1,234 90 s", "500", "ops https://ops.example/ 0", "disabled: 410"):
        assert text in words, out


def test_the_exit_status_says_whether_a_test_was_taken(run: Run) -> None:
    status, out, _ = run("webhooks", "--test", "crm")
    assert (status, "msg_1" in out) == (0, True)
    status, _, err = run("webhooks", "--test", "broken")
    assert (status, "webhook broken: it answered HTTP 500" in err) == (4, True)
