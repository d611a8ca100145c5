"""The rules of clients and mailings, without a database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time, timedelta

import pytest

from dispatcher.model.states import STATE_TRANSITIONS, AudienceMode, MailingState, Semantics
from server.domain.clients import (
    ClientDefinition,
    ReceiveWindow,
    amended_client,
    check_client,
    completed,
    known_zones,
)
from server.domain.errors import InvalidFields, InvalidPageToken, WrongState
from server.domain.filters import ClientFilter, check_filter
from server.domain.mailings import (
    CANCELLABLE,
    CHANGEABLE,
    DELETABLE,
    MAILING_FIELDS,
    PAUSABLE,
    RESUMABLE,
    Mailing,
    MailingDefinition,
    Progress,
    RetryRule,
    amended_mailing,
    check_mailing,
    estimated_finish,
)
from server.domain.messages import message_id, split_message_id
from server.domain.pagination import decode_token, encode_token, query_digest
from server.domain.timetables import SendingHours
from server.domain.validation import Violations, request_id, update_mask

ZONES = frozenset({"Europe/Moscow"})
ANNA = ClientDefinition(phone="79261234567", timezone="Europe/Moscow")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def found(violations: Violations) -> dict[str, str]:
    try:
        violations.check()
    except InvalidFields as error:
        return {violation.path: violation.sentence for violation in error.violations}
    return {}


def client_violations(client: ClientDefinition) -> dict[str, str]:
    violations = Violations()
    check_client(client, ZONES, "client", violations)
    return found(violations)


@pytest.mark.parametrize("phone", ["1234567", "123456789012345", "79261234567"])
def test_the_digits_of_an_international_number_are_a_phone(phone: str) -> None:
    assert client_violations(replace(ANNA, phone=phone)) == {}


@pytest.mark.parametrize(
    "phone", ["", "123456", "1234567890123456", "0123456789", "7926 123", "٧٩٢٦١٢٣٤٥٦٧", "7926123\n"]
)
def test_anything_else_is_no_phone(phone: str) -> None:
    assert set(client_violations(replace(ANNA, phone=phone))) == {"client.phone"}


def test_a_plus_is_rejected_with_the_advice_to_leave_it_out() -> None:
    assert "leave it out" in client_violations(replace(ANNA, phone="+79261234567"))["client.phone"]


@pytest.mark.parametrize(
    ("phone", "derived"), [("79261234567", "926"), ("7926123456", ""), ("49261234567", ""), ("792612345678", "")]
)
def test_the_operator_code_is_derived_from_numbers_of_country_code_7_only(phone: str, derived: str) -> None:
    assert completed(replace(ANNA, phone=phone)).operator_code == derived


def test_a_given_operator_code_stays() -> None:
    assert completed(replace(ANNA, operator_code="999")).operator_code == "999"


def test_a_derived_operator_code_follows_a_new_phone_a_given_one_not() -> None:
    patch = replace(ANNA, phone="79161234567")
    assert amended_client(completed(ANNA), patch, {"phone"}).operator_code == "916"
    assert amended_client(replace(ANNA, operator_code="999"), patch, {"phone"}).operator_code == "999"


def test_an_update_of_another_field_keeps_the_operator_code() -> None:
    patch = replace(ANNA, tag="new")
    assert amended_client(completed(ANNA), patch, {"tag"}).operator_code == completed(ANNA).operator_code
    assert amended_client(replace(ANNA, operator_code="999"), patch, {"tag"}).operator_code == "999"


@pytest.mark.parametrize("seconds", [0, -1, 24 * 3600 + 1, 0.5])
def test_a_window_lasts_whole_seconds_up_to_a_day(seconds: float) -> None:
    window = ReceiveWindow(time(22), timedelta(seconds=seconds))
    assert set(client_violations(replace(ANNA, receive_window=window))) == {"client.receive_window.duration"}


def test_a_window_may_last_a_day_and_cross_midnight() -> None:
    assert client_violations(replace(ANNA, receive_window=ReceiveWindow(time(22), timedelta(days=1)))) == {}


def test_every_violation_of_a_client_is_reported_at_once() -> None:
    bad = ClientDefinition(
        phone="x",
        timezone="Mars/Olympus",
        operator_code="12",
        tag="t" * 101,
        receive_window=ReceiveWindow(time(), timedelta(days=2)),
        attributes={"bad name": "", "ok": "v" * 1001, "nul": "\0"},
    )
    assert set(client_violations(bad)) == {
        "client.phone",
        "client.timezone",
        "client.operator_code",
        "client.tag",
        "client.receive_window.duration",
        "client.attributes",
        "client.attributes.ok",
        "client.attributes.nul",
    }


def test_a_filter_is_checked_field_by_field() -> None:
    violations = Violations()
    bad = ClientFilter(
        tags=("ok", "t" * 101),
        operator_codes=("926", "9"),
        timezones=("Europe/Moscow", "Nowhere"),
        client_ids=tuple(range(10001)),
    )
    check_filter(bad, ZONES, "filter", violations)
    assert set(found(violations)) == {
        "filter.tags[1]",
        "filter.operator_codes[1]",
        "filter.timezones[1]",
        "filter.client_ids",
    }


def mailing_violations(mailing: MailingDefinition) -> set[str]:
    violations = Violations()
    check_mailing(mailing, ZONES, violations)
    return set(found(violations))


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"text": ""}, "mailing.text"),
        ({"text": " \n"}, "mailing.text"),
        ({"text": "x" * 4001}, "mailing.text"),
        ({"text": "{nobody}"}, "mailing.text"),
        ({"title": "x" * 201}, "mailing.title"),
        ({"priority": 1001}, "mailing.priority"),
        ({"priority": -1001}, "mailing.priority"),
        ({"max_rate": -1.0}, "mailing.max_rate"),
        ({"max_rate": float("nan")}, "mailing.max_rate"),
        ({"max_rate": float("inf")}, "mailing.max_rate"),
        ({"max_rate": 1e12}, "mailing.max_rate"),
        ({"max_rate": 5.55e-17}, "mailing.max_rate"),
        ({"retry": RetryRule(max_attempts=101)}, "mailing.retry.max_attempts"),
        ({"retry": RetryRule(initial_backoff=timedelta(milliseconds=9))}, "mailing.retry.initial_backoff"),
        ({"retry": RetryRule(max_backoff=timedelta(milliseconds=999))}, "mailing.retry.max_backoff"),
        ({"labels": {"": "x"}}, "mailing.labels"),
        ({"labels": {str(n): "" for n in range(33)}}, "mailing.labels"),
        ({"filter": ClientFilter(timezones=("Nowhere",))}, "mailing.filter.timezones[0]"),
        ({"start_time": NOW, "end_time": NOW}, "mailing.end_time"),
    ],
)
def test_a_bad_field_of_a_mailing_is_named(change: dict[str, object], path: str) -> None:
    assert mailing_violations(replace(MailingDefinition(text="Hello"), **change)) == {path}  # type: ignore[arg-type]


def stored(state: MailingState, **fields: object) -> Mailing:
    definition = replace(MailingDefinition(text="Hello", start_time=NOW), **fields)  # type: ignore[arg-type]
    return Mailing(1, definition, state, 1, NOW, NOW, Progress())


@pytest.mark.parametrize("state", list(MailingState))
def test_only_fields_that_really_differ_need_a_state_that_allows_them(state: MailingState) -> None:
    mailing = stored(state)
    begun = state is not MailingState.SCHEDULED
    assert amended_mailing(mailing, mailing.definition, MAILING_FIELDS, NOW, begun) == mailing.definition
    patch = replace(mailing.definition, title="New", endpoint="backup")
    if state is MailingState.SCHEDULED:
        assert amended_mailing(mailing, patch, MAILING_FIELDS, NOW, begun) == patch
    else:
        with pytest.raises(WrongState) as caught:
            amended_mailing(mailing, patch, MAILING_FIELDS, NOW, begun)
        assert caught.value.found is state
        assert caught.value.needed == (MailingState.SCHEDULED,)


OTHER: dict[str, object] = {
    "title": "New",
    "text": "New",
    "filter": ClientFilter(tags=("gold",)),
    "start_time": NOW + timedelta(minutes=1),
    "end_time": NOW + timedelta(hours=1),
    "audience_mode": AudienceMode.SNAPSHOT,
    "semantics": Semantics.AT_MOST_ONCE,
    "priority": 7,
    "max_rate": 5.0,
    "max_per_day": 100,
    "max_per_day_timezone": "Europe/Moscow",
    "endpoint": "backup",
    "retry": RetryRule(max_attempts=9),
    "labels": {"a": "b"},
    "important": True,
    "sending_hours": (SendingHours((1,), time(9), timedelta(hours=9)),),
    "holidays": "germany",
    "local_start": datetime(2026, 12, 1, 10),
    "skip_after": timedelta(hours=2),
}


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("state", list(MailingState))
@pytest.mark.parametrize("field", MAILING_FIELDS)
def test_each_field_changes_in_the_states_that_the_table_names(field: str, state: MailingState, begun: bool) -> None:
    """Fails for audience_mode, semantics and endpoint when `kept` is left out of `check_changeable`."""
    mailing = stored(state)
    patch = replace(mailing.definition, **{field: OTHER[field]})  # type: ignore[arg-type]
    kept = begun and field in ("audience_mode", "semantics", "endpoint")
    held = state is MailingState.PAUSED and not begun
    if field in CHANGEABLE[MailingState.SCHEDULED if held else state] and not kept:
        expected = replace(patch, start_time=None) if field == "local_start" else patch
        assert amended_mailing(mailing, patch, {field}, NOW, begun) == expected
        return
    with pytest.raises(WrongState) as caught:
        amended_mailing(mailing, patch, {field}, NOW, begun)
    assert caught.value.found is state
    assert set(caught.value.needed) == {other for other in MailingState if field in CHANGEABLE[other]}


def test_a_snapshot_that_has_begun_keeps_its_filter_in_any_state() -> None:
    for state in (MailingState.SCHEDULED, MailingState.RUNNING, MailingState.PAUSED):
        mailing = stored(state, audience_mode=AudienceMode.SNAPSHOT)
        patch = replace(mailing.definition, filter=ClientFilter(tags=("gold",)))
        with pytest.raises(WrongState, match=r"SNAPSHOT.* fixed at the start.*SCHEDULED and never have begun\."):
            amended_mailing(mailing, patch, {"filter"}, NOW, begun=True)
    assert amended_mailing(replace(mailing, state=MailingState.SCHEDULED), patch, {"filter"}, NOW, begun=False) == patch


def test_a_new_end_must_be_ahead_and_after_the_start() -> None:
    mailing = stored(MailingState.SCHEDULED, start_time=NOW + timedelta(hours=2))
    for end in (NOW, NOW + timedelta(hours=1)):
        with pytest.raises(InvalidFields):
            amended_mailing(mailing, replace(mailing.definition, end_time=end), {"end_time"}, NOW, begun=False)


def test_control_actions_follow_the_transitions() -> None:
    for sources, target in (
        (PAUSABLE, MailingState.PAUSED),
        (RESUMABLE, MailingState.RUNNING),
        (CANCELLABLE, MailingState.CANCELLED),
    ):
        assert all(target in STATE_TRANSITIONS[source] for source in sources)
    assert set(CHANGEABLE) == set(MailingState)
    assert not DELETABLE & {MailingState.RUNNING, MailingState.PAUSED}


def test_the_finish_is_estimated_while_something_moves() -> None:
    assert estimated_finish(100, 10.0, NOW) == NOW + timedelta(seconds=10)
    assert estimated_finish(0, 10.0, NOW) is None
    assert estimated_finish(5, 0.0, NOW) is None
    assert estimated_finish(10**9, 1e-9, NOW) is None


def test_a_token_belongs_to_its_query() -> None:
    digest = query_digest("clients", {"tags": ["a"]}, False)
    token = encode_token(digest, 42)
    assert decode_token(token, digest, (0,)) == (42,)
    assert decode_token("", digest, (7,)) == (7,)
    for other in (query_digest("clients", {"tags": ["b"]}, False), query_digest("mailings", {"tags": ["a"]}, False)):
        with pytest.raises(InvalidPageToken):
            decode_token(token, other, (0,))


@pytest.mark.parametrize("token", ["x", "é", "a" * 27, "AAAA", "====", "\x00"])
def test_garbage_is_no_token(token: str) -> None:
    with pytest.raises(InvalidPageToken):
        decode_token(token, query_digest("clients"), (0,))


def test_a_mask_names_updatable_fields_only() -> None:
    violations = Violations()
    fields = ("phone", "tag")
    assert update_mask([], fields, ["tag", "etag"], ["etag"], violations) == {"tag"}
    assert update_mask(["*"], fields, ["tag"], [], violations) == {"phone", "tag"}
    assert update_mask(["phone"], fields, ["tag"], [], violations) == {"phone"}
    assert not violations
    update_mask(["id", "receive_window.start"], fields, [], [], violations)
    assert set(found(violations)) == {"update_mask"}


def test_a_mask_of_fields_that_are_only_read_changes_nothing() -> None:
    """Fails when such a mask is taken for none, which means every populated field."""
    violations = Violations()
    assert update_mask(["etag", "opt_out.word"], ("phone", "tag"), ["tag"], ["etag", "opt_out"], violations) == set()
    assert not violations


def test_a_request_id_is_a_uuid() -> None:
    violations = Violations()
    assert request_id("", violations) is None
    assert request_id("3f0c6e0a-9d0b-4c5e-8a53-0d6d0ad1b6a4", violations) is not None
    assert not violations
    request_id("first", violations)
    assert set(found(violations)) == {"request_id"}


def test_a_message_id_names_its_mailing_and_its_client() -> None:
    assert split_message_id(message_id(7, 4294967295)) == (7, 4294967295)


def test_only_names_of_places_that_the_database_knows_are_zones() -> None:
    zones = known_zones(["Europe/Moscow", "UTC", "Factory", "localtime", "posixrules", "Europe/Nowhere"])
    assert zones == {"Europe/Moscow", "UTC"}
