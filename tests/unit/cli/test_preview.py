"""`mailing preview`: what is asked, and how the answer looks."""

from __future__ import annotations

import json

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from mailing import MailingClient, new_mailing
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import PreviewMailingResponse
from mailing.v1.message_pb2 import Message
from tests.unit.cli.conftest import Run, Service

Sample, Exclusion = PreviewMailingResponse.Sample, PreviewMailingResponse.Exclusion
ANSWER = PreviewMailingResponse(
    audience_size=12_345,
    exclusions=[Exclusion(reason=Message.REASON_OPTED_OUT, count=7)],
    samples=[
        Sample(
            client_id=17,
            phone="79261234567",
            text="Hi\x1b[31m",
            characters=7,
            sms_segments=2,
            sms_encoding=Sample.ENCODING_UCS2,
            due_time=Timestamp(seconds=1),
        )
    ],
    sendable_before_end=12_000,
)


def test_a_stored_mailing_is_asked_for_by_its_id(run: Run, service: Service) -> None:
    service.mailings.preview = ANSWER
    status, out, _ = run("preview", "7", "--samples", "9", "--wide")
    [request] = service.mailings.previewed
    assert (status, request.WhichOneof("source"), request.mailing_id, request.samples) == (0, "mailing_id", 7, 9)
    for shown in (
        "12,345",
        "left out: client opted out",
        "12,000",
        "will not finish before the end time",
        "79261234567",
        "UCS2",
        "Hi\\x1b[31m",
    ):
        assert shown in out


def test_options_say_the_same_mailing_as_for_create(run: Run, service: Service) -> None:
    options = "--title T --tag a --tag b --attribute k=v --client-id 5 --snapshot --at-most-once --priority -3"
    more = "--max-rate 10 --end 2090-01-01T00:00:00Z --max-attempts 2 --max-backoff 1m --label x=y --important"
    for command in (("preview",), ("mailings", "create", "--yes")):
        assert run(*command, "--text", "Hi", *options.split(), *more.split()).status == 0
    assert service.mailings.previewed[0].mailing == service.mailings.created[0].mailing
    assert service.mailings.created[0].mailing.important


def test_programs_get_a_document(run: Run, service: Service) -> None:
    service.mailings.preview = ANSWER
    document = json.loads(run("preview", "--text", "Hi", "--json").out)
    assert (document["audience_size"], document["sendable_before_end"]) == (12_345, 12_000)
    assert document["exclusions"] == [{"reason": "REASON_OPTED_OUT", "count": 7}]
    assert document["samples"][0]["sms_encoding"] == "ENCODING_UCS2"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ([], "--text"),
        (["7", "--text", "Hi"], "ID"),
        (["7", "--tag", "gold"], "ID"),
        (["7", "--important"], "ID"),
        (["--text", "Hi", "--end", "soon"], "--end"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(run: Run, service: Service, arguments: list[str], hint: str) -> None:
    status, _, err = run("preview", *arguments)
    assert (status, hint in err) == (2, True), err
    assert service.mailings.previewed == []


def test_an_id_of_0_is_left_to_the_service(run: Run, service: Service) -> None:
    run("preview", "0")
    assert service.mailings.previewed[0].WhichOneof("source") == "mailing_id"


def test_the_python_client_takes_a_mailing_or_an_id(service: Service) -> None:
    service.mailings.preview = ANSWER
    with MailingClient.connect(service.address) as client:
        assert client.preview_mailing(7) == ANSWER
        assert client.preview_mailing(new_mailing("Hi", important=True), samples=2) == ANSWER
    by_id, by_mailing = service.mailings.previewed
    assert (by_id.mailing_id, by_id.samples, by_mailing.samples) == (7, 0, 2)
    assert by_mailing.mailing == Mailing(text="Hi", important=True)
