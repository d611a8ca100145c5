"""How the rules of retention are written."""

from __future__ import annotations

from datetime import timedelta

import pytest

from server.domain.message_retention import LabelRule, MessageRetention, parse_retention


def test_one_span_holds_for_all() -> None:
    assert parse_retention("90d") == MessageRetention(timedelta(days=90))
    assert parse_retention("12h").keep == timedelta(hours=12)
    assert not parse_retention("keep").removes


def test_labels_have_rules_of_their_own() -> None:
    rules = parse_retention("keep, purpose=otp:7d, purpose=contract:keep")
    week = timedelta(days=7)
    assert rules.labels == (LabelRule("purpose", "otp", week), LabelRule("purpose", "contract", None))
    assert rules.keep is None
    assert rules.removes


@pytest.mark.parametrize(
    "text", ["", "90", "d", "90d, 30d", "otp:7d", "purpose=otp:", "-1d", "0d", "99999d", "90 days"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^"):
        parse_retention(text)
