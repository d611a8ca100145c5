"""`mailing endpoints` and `mailing test`: what they ask, print and return."""

from __future__ import annotations

import json

import pytest

from mailing import MailingClient
from mailing.v1.dispatch_pb2 import Endpoint, EndpointStatus
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.message_pb2 import Attempt
from tests.unit.cli.conftest import Run, Service

CLOSED, HALF_OPEN = EndpointStatus.BREAKER_CLOSED, EndpointStatus.BREAKER_HALF_OPEN


def test_endpoints_are_a_table(run: Run, service: Service) -> None:
    service.admin.endpoints = [
        Endpoint(name="push", url="http://a/", max_concurrency=1024, status=EndpointStatus(breaker=CLOSED)),
        Endpoint(
            name="sms",
            url="http://b/",
            max_rate=0.5,
            status=EndpointStatus(breaker=HALF_OPEN, last_error="TIMEOUT"),
            max_per_day=5000,
            sent_today=1200,
        ),
    ]
    status, out, err = run("endpoints", "--wide")
    assert (status, err) == (0, "")
    for row in (
        ("push", "http://a/", "1,024", "closed"),
        ("sms", "http://b/", "0.5/s", "1,200 of 5,000", "half open", "TIMEOUT"),
    ):
        [line] = [line for line in out.splitlines() if row[0] in line]
        assert all(text in line for text in row)
    document = json.loads(run("endpoints", "--json").out)
    assert [one["name"] for one in document["endpoints"]] == ["push", "sms"]
    assert document["endpoints"][1]["status"]["breaker"] == "BREAKER_HALF_OPEN"


def test_a_probe_that_was_taken_ends_with_0(run: Run, service: Service) -> None:
    status, out, err = run("endpoints", "--probe", "sms")
    assert (status, err, service.admin.probed) == (0, "", ["sms"])
    assert "delivered" in out
    assert json.loads(run("endpoints", "--probe", "", "--json").out)["endpoint_status"] == 200
    assert service.admin.probed == ["sms", ""]


@pytest.mark.parametrize(
    ("error", "http", "sentence"),
    [
        (Attempt.ERROR_CLASS_CONNECT, 0, "endpoint sms: no connection could be opened"),
        (Attempt.ERROR_CLASS_RESOLVE, 0, "endpoint sms: its host does not resolve"),
        (Attempt.ERROR_CLASS_TLS, 0, "endpoint sms: TLS failed"),
        (Attempt.ERROR_CLASS_TIMEOUT, 0, "endpoint sms: it did not answer in time"),
        (Attempt.ERROR_CLASS_DISCONNECT, 0, "endpoint sms: the connection ended before the answer did"),
        (Attempt.ERROR_CLASS_PROTOCOL, 0, "endpoint sms: its answer is not HTTP"),
        (Attempt.ERROR_CLASS_TOO_LARGE, 200, "endpoint sms: its answer is larger than the limit"),
        (Attempt.ERROR_CLASS_REFUSED, 401, "endpoint sms: it was reached and refused the token with HTTP 401"),
        (Attempt.ERROR_CLASS_REFUSED, 400, "endpoint sms: it was reached and answered, but: refused (HTTP 400)"),
        (Attempt.ERROR_CLASS_REJECTED, 200, "endpoint sms: it was reached and answered, but: refused (HTTP 200)"),
    ],
)
def test_a_probe_that_was_not_taken_ends_with_4_and_says_how_far_it_got(
    error: Attempt.ErrorClass.ValueType, http: int, sentence: str, run: Run, service: Service
) -> None:
    service.admin.attempt = Attempt(endpoint="sms", error_class=error, endpoint_status=http, response_excerpt="oh no")
    status, out, err = run("endpoints", "--probe", "sms")
    assert (status, err) == (4, f"mailing: {sentence}\n")
    assert "oh no" in out
    status, out, _ = run("endpoints", "--probe", "sms", "--json")
    assert (status, json.loads(out)["error_class"]) == (4, Attempt.ErrorClass.Name(error))


def test_an_unknown_endpoint_ends_with_1_and_the_names_there_are(run: Run) -> None:
    assert run("endpoints", "--probe", "fax") == (1, "", "mailing: There is no endpoint 'fax'; there are push, sms.\n")


def test_a_stored_mailing_is_tested(run: Run, service: Service) -> None:
    status, out, err = run("test", "7", "79261234567")
    assert (status, err) == (0, "")
    assert all(text in out for text in (str(1 << 31), "79261234567", r"Hello \x1b[31m", "delivered"))
    [request] = service.mailings.tested
    assert (request.WhichOneof("source"), request.mailing_id, request.phone) == ("mailing_id", 7, "79261234567")


def test_a_text_is_tested_before_there_is_a_mailing(run: Run, service: Service) -> None:
    assert run("test", "79261234567", "--text", "Hi {tag}", "--endpoint", "sms").status == 0
    [request] = service.mailings.tested
    assert (request.mailing.text, request.mailing.endpoint, request.phone) == ("Hi {tag}", "sms", "79261234567")


def test_a_phone_is_read_as_written_and_force_passes_an_opt_out(run: Run, service: Service) -> None:
    assert run("test", "7", "8 (926) 123-45-67", "--country", "RU").status == 0
    assert run("test", "+7 926 123-45-67", "--text", "Hi", "--force").status == 0
    assert [(one.phone, one.force) for one in service.mailings.tested] == [
        ("79261234567", False),
        ("79261234567", True),
    ]


def test_a_test_message_that_was_not_taken_ends_with_4(run: Run, service: Service) -> None:
    service.mailings.attempt = Attempt(endpoint="sms", error_class=Attempt.ERROR_CLASS_SERVER, endpoint_status=500)
    status, out, err = run("test", "7", "79261234567", "--json")
    assert (status, err) == (4, "mailing: endpoint sms: it was reached and answered, but: gateway error (HTTP 500)\n")
    assert json.loads(out)["attempt"]["endpoint_status"] == 500


@pytest.mark.parametrize(
    "arguments",
    [
        ("79261234567",),
        ("seven", "79261234567"),
        ("9223372036854775808", "79261234567"),
        ("7", "79261234567", "--text", "Hi"),
        ("7", "79261234567", "--endpoint", "sms"),
        ("7", "8", "9"),
        (),
    ],
)
def test_wrong_usage_of_test_is_told_before_anything_is_sent(
    arguments: tuple[str, ...], run: Run, service: Service
) -> None:
    status, out, err = run("test", *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert service.mailings.tested == []


def test_the_sdk_has_a_method_for_each(service: Service) -> None:
    service.admin.endpoints = [Endpoint(name="push")]
    with MailingClient.connect(service.address) as client:
        assert [one.name for one in client.list_endpoints()] == ["push"]
        assert client.probe_endpoint().endpoint == "sms"
        assert client.send_test_message(7, "79261234567").message_id == 1 << 31
        client.send_test_message(Mailing(text="Hi"), "79261234567")
    assert [one.WhichOneof("source") for one in service.mailings.tested] == ["mailing_id", "mailing"]
