"""The log of the running service: louder and quieter by signals, and what its lines then tell."""

from __future__ import annotations

import json
import signal
import subprocess
from threading import Timer
from typing import Any

import grpc

from mailing.v1.mailing_service_pb2 import GetMailingRequest
from mailing.v1.mailing_service_pb2_grpc import MailingServiceStub
from tests.support.processes import PATIENCE, serving


def line_with(process: subprocess.Popen[str], **facts: Any) -> dict[str, Any]:
    """Read the log until an entry has these facts; end the process when none comes."""
    assert process.stderr is not None
    patience = Timer(PATIENCE, process.kill)
    patience.start()
    try:
        for text in process.stderr:
            entry: dict[str, Any] = json.loads(text)
            if facts.items() <= entry.items():
                return entry
    finally:
        patience.cancel()
    raise AssertionError(f"the log ended without {facts}")


def ask(address: str, request_id: str) -> None:
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        call = MailingServiceStub(channel).GetMailing.future(
            GetMailingRequest(mailing_id=7), metadata=(("x-request-id", request_id),), timeout=PATIENCE
        )
        assert call.code() is grpc.StatusCode.NOT_FOUND


def test_signals_change_the_level_of_server_and_dispatchers(database_dsn: str) -> None:
    """Fails without the handlers, and when the signal is not passed on (two processes must say so)."""
    with serving(MAILING_DSN=database_dsn, MAILING_DISPATCHERS="1", MAILING_LOG_LEVEL="warning") as (process, address):
        # The process beside the server must have begun to listen for signals before it gets one.
        line_with(process, logger="server.endpoints.senders")
        line_with(process, logger="server.endpoints.senders")
        for number, level in ((signal.SIGUSR1, "info"), (signal.SIGUSR1, "debug")):
            process.send_signal(number)
            for _ in range(2):
                line_with(process, message=f"the log level is {level}")
        ask(address, "call-1")
        assert line_with(process, request_id="call-1", message="call ended")["mailing_id"] == 7
        for level in ("info", "warning"):
            process.send_signal(signal.SIGUSR2)
            line_with(process, message=f"the log level is {level}")
        ask(address, "call-2")
        process.terminate()
        _, err = process.communicate(timeout=PATIENCE)
        assert "call-2" not in err
