"""What this version does not serve is refused by name, wherever it stands in a request."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message as ProtoMessage
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import BadRequest

from mailing.v1.client_pb2 import Client, ClientFilter, OptOut
from mailing.v1.client_service_pb2 import (
    CreateClientRequest,
    ExportClientsRequest,
    ImportClientsRequest,
    ListClientsRequest,
)
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.mailing_service_pb2 import CreateMailingRequest, PreviewMailingRequest
from server.api.error_table import status_of
from server.api.interceptors.unserved import FIELDS, METHODS, UNSERVED, FieldTable
from server.api.server import SERVED
from server.domain.errors import FieldsNotServed

TYPES = {method.input_type.full_name: method.input_type for service in SERVED for method in service.methods}
SERVICES = {service.full_name: service for service in SERVED}


def types_below(descriptor: Descriptor, known: dict[str, Descriptor]) -> dict[str, Descriptor]:
    if descriptor.full_name not in known:
        known[descriptor.full_name] = descriptor
        for field in descriptor.fields:
            if field.message_type:
                types_below(field.message_type, known)
    return known


def test_the_table_names_what_the_protos_have() -> None:
    """Fails for a name that is misspelled: nothing would be refused then."""
    known: dict[str, Descriptor] = {}
    for descriptor in TYPES.values():
        types_below(descriptor, known)
    for message, fields in FIELDS.items():
        assert fields <= set(known[message].fields_by_name), message
    for service, methods in METHODS.items():
        assert methods <= set(SERVICES[service].methods_by_name), service


TABLE = FieldTable(
    {
        "mailing.v1.ClientFilter": frozenset({"any_of", "segment"}),
        "mailing.v1.Mailing": frozenset({"max_per_day", "sending_hours"}),
        "mailing.v1.ExportClientsRequest": frozenset({"filter_text"}),
    }
)
"""As of a version that serves less."""


@pytest.mark.parametrize(
    ("request_", "paths"),
    [
        (ListClientsRequest(filter=ClientFilter(tags=["a"], segment="gold")), ["filter.segment"]),
        (
            CreateMailingRequest(
                mailing=Mailing(
                    filter=ClientFilter(any_of=[ClientFilter(tags=["a"])], segment="gold"),
                )
            ),
            ["mailing.filter.any_of", "mailing.filter.segment"],
        ),
        (PreviewMailingRequest(mailing=Mailing(max_per_day=1)), ["mailing.max_per_day"]),
        (ExportClientsRequest(filter=ClientFilter(tags=["a"]), filter_text="x"), ["filter_text"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_unserved_fields_are_found_at_any_depth(request_: ProtoMessage, paths: list[str]) -> None:
    """Fails when only the request itself is looked at."""
    assert sorted(TABLE.paths(request_)) == paths


@pytest.mark.parametrize(
    "request_",
    [
        CreateClientRequest(client=Client(phone="1", opted_out=False, opt_out=OptOut(word="STOP"))),
        CreateMailingRequest(mailing=Mailing(schedule_id=7, filter=ClientFilter(attributes={"any_of": "x"}))),
        ImportClientsRequest(clients=[Client(attributes={"a": "b"})], skip_invalid=True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_served_or_only_read_passes(request_: ProtoMessage) -> None:
    assert UNSERVED.paths(request_) == []


def test_repeated_and_nested_parts_are_named_by_their_place() -> None:
    """As once groups of filters are served, and samples are not."""
    samples = FieldTable({"mailing.v1.ClientFilter": frozenset({"sample"})})
    inner = ClientFilter(none_of=[ClientFilter(), ClientFilter(sample=ClientFilter.Sample(size=1))])
    found = samples.paths(ListClientsRequest(filter=ClientFilter(any_of=[inner])))
    assert found == ["filter.any_of[0].none_of[1].sample"]


@pytest.mark.parametrize("descriptor", TYPES.values(), ids=lambda descriptor: descriptor.name)
def test_an_empty_request_sets_nothing(descriptor: Descriptor) -> None:
    assert UNSERVED.paths(GetMessageClass(descriptor)()) == []


def test_the_error_names_every_field() -> None:
    status = status_of(FieldsNotServed(["filter.any_of", "filter_text"]), "/mailing.v1.ClientService/ListClients")
    bad: Any = BadRequest()
    assert status.details[1].Unpack(bad)
    assert [violation.field for violation in bad.field_violations] == ["filter.any_of", "filter_text"]
    assert status.message == (
        "filter.any_of: belongs to the contract; this version of the service does not serve it yet: "
        "leave it out (and 1 more)"
    )
