"""The table of refusals: complete, and true to the contract."""

from __future__ import annotations

import logging

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from server.api.interceptors.errors import ANSWERS, MISSING, status_of
from server.domain import errors
from server.domain.errors import DomainError, FieldViolation, InvalidFields, Kind, NotFound


def info_of(status: Status) -> ErrorInfo:
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    return info


def test_every_refusal_of_the_domain_has_a_line() -> None:
    refusals = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, DomainError)}
    assert set(ANSWERS) == refusals - {DomainError}
    assert set(MISSING) == set(Kind)


def test_reasons_come_without_their_prefix() -> None:
    status = status_of(NotFound(Kind.MAILING, 5), "/x/Y")
    assert status.code == grpc.StatusCode.NOT_FOUND.value[0]
    assert info_of(status) == ErrorInfo(reason="MAILING_NOT_FOUND", domain="mailing.v1", metadata={"mailing": "5"})


def test_bad_fields_stay_below_the_size_of_metadata() -> None:
    many = [FieldViolation(f"clients[{n}].timezone", "Ж" * 100) for n in range(1000)]
    status = status_of(InvalidFields(many), "/x/Y")
    assert status.ByteSize() < 4500
    bad = BadRequest()
    assert status.details[1].Unpack(bad)
    assert bad.field_violations[0].field == "clients[0].timezone"


def test_a_defect_hides_its_cause_and_logs_it_under_an_id(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        status = status_of(ValueError("secret"), "/x/Y")
    error_id = info_of(status).metadata["error_id"]
    assert status.code == grpc.StatusCode.INTERNAL.value[0]
    assert "secret" not in str(status)
    assert error_id in caplog.text
    assert "secret" in caplog.text
