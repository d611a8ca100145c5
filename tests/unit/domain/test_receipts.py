"""What the reports of gateways mean, as their documentation has them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.model.answers import Pointer, Source
from server.domain.receipts import Incoming, Items, Receipt, ReceiptRules, Report, reports_of, strongest

STATUSES = {"delivered": Receipt.RECEIVED, "failed": Receipt.UNDELIVERED, "3": Receipt.READ, "true": Receipt.SENT}


def rules(items: tuple[str, ...] | None = None, **places: str) -> ReceiptRules:
    found = {name: Source(Pointer.parse(place)) for name, place in places.items()}
    return ReceiptRules(
        "json", STATUSES, found["status"], found.get("id"), found.get("code"), None if items is None else Items(items)
    )


def read(chosen: ReceiptRules, document: Any, **parameters: str) -> list[tuple[str, Receipt, str]]:
    found = reports_of("sms", chosen, Incoming(document, {}, parameters))
    return [(one.identity, one.receipt, one.code) for one in found]


WHATSAPP = {
    "entry": [
        {"changes": [{"value": {"statuses": [{"id": "a", "status": "delivered"}, {"id": "b", "status": "odd"}]}}]},
        {"changes": [{"value": {"statuses": [{"id": "c", "status": "failed", "errors": [{"code": 131026}]}]}}]},
        {"changes": [{"value": {"messages": []}}]},
    ]
}


def test_several_reports_are_found_wherever_they_are() -> None:
    chosen = rules(
        ("entry", "*", "changes", "*", "value", "statuses"), id="/id", status="/status", code="/errors/0/code"
    )
    assert read(chosen, WHATSAPP) == [("a", Receipt.RECEIVED, ""), ("c", Receipt.UNDELIVERED, "131026")]


def test_numbers_and_truth_values_are_statuses_as_well() -> None:
    chosen = rules((), id="/id", status="/s")
    assert read(chosen, [{"id": 5, "s": 3}, {"id": "x", "s": True}, {"id": "y", "s": None}]) == [
        ("5", Receipt.READ, ""),
        ("x", Receipt.SENT, ""),
    ]


def test_without_an_id_it_is_the_one_of_the_url() -> None:
    assert read(rules(status="/s"), {"s": "delivered"}, message="17") == [("17", Receipt.RECEIVED, "")]
    assert read(rules(status="/s"), {"s": "delivered"}) == []


@pytest.mark.parametrize("document", [None, 5, "x", [], [[]], {}, {"id": {}}, {"id": "x" * 201, "s": "failed"}])
def test_what_says_nothing_is_passed_over(document: Any) -> None:
    assert read(rules(id="/id", status="/s"), document) == []
    assert read(rules(("*", "0", "x"), id="/id", status="/s"), document) == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["id", "s", "0", "*"]), inner),
)


@given(JSON)
def test_no_document_does_harm(document: Any) -> None:
    for items in (None, (), ("*",), ("id", "*", "0")):
        for _, receipt, code in read(rules(items, id="/id", status="/s", code="/0"), document):
            assert receipt in Receipt
            assert len(code) <= 64


def test_of_several_reports_of_one_id_the_greatest_is_kept() -> None:
    reports = [
        Report("a", "1", Receipt.READ, "x"),
        Report("a", "1", Receipt.SENT, "y"),
        Report("b", "1", Receipt.SENT, ""),
    ]
    assert strongest(reports) == [reports[0], reports[2]]
