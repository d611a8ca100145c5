"""A mailing as the fields of a form: filled in from one, read back, and which of them somebody changed.

What cannot be read is noted in the form. What is read is checked by the API alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from mailing.builders import new_duration, new_local_time, new_timestamp
from mailing.errors import MailingError
from mailing.sending_hours import hours_text, parse_hours
from mailing.v1.client_pb2 import ClientFilter
from mailing.v1.mailing_pb2 import Mailing, SendingHours
from mailing.v1.segment_service_pb2 import ListSegmentsRequest, PreviewSegmentRequest
from server.console.forms import Form
from server.console.viewer import Viewer, form_civil, form_span
from server.console.visit import Visit
from server.console.words import LISTS, has_conditions

_SAME = ("title", "text", "sending_hours", "holidays", "local_start", "skip_after", "max_rate", "max_per_day")
PATHS: Mapping[str, str] = {
    **{name: name for name in (*_SAME, "max_per_day_timezone", "priority", "endpoint", "labels", "important")},
    **dict.fromkeys((*LISTS, "filter_text"), "filter"),
    "start": "start_time",
    "end": "end_time",
    "max_attempts": "retry.max_attempts",
    "snapshot": "audience_mode",
    "at_most_once": "semantics",
}
"""The fields of the form, and what each of them is in the API."""

TIMES = ("start", "local_start", "end")
"""The fields that a copy and the template of a schedule leave empty."""

NAMES = {"end_time": "end", "start_time": "start", "retry": "max_attempts", "phone": "test_phone"}
"""What the form calls fields of the API that it has under another name."""

_MOST_SEGMENTS = 1000


def read_mailing(form: Form, viewer: Viewer) -> Mailing:
    """Return the mailing that a form describes; what cannot be read is noted in the form."""

    def moment(text: str) -> Timestamp:
        return new_timestamp(viewer.parse_time(text))

    mailing = Mailing(
        title=form.get("title"),
        text=_text(form),
        audience_mode=Mailing.AUDIENCE_MODE_SNAPSHOT if form.get("snapshot") else Mailing.AUDIENCE_MODE_OPEN,
        semantics=Mailing.SEMANTICS_AT_MOST_ONCE if form.get("at_most_once") else Mailing.SEMANTICS_AT_LEAST_ONCE,
        priority=form.whole("priority"),
        max_rate=form.decimal("max_rate"),
        max_per_day=form.whole("max_per_day", bits=64),
        max_per_day_timezone=form.get("max_per_day_timezone"),
        endpoint=form.get("endpoint"),
        important=bool(form.get("important")),
        labels=form.pairs("labels"),
        holidays=form.get("holidays"),
        sending_hours=_hours_of(form),
        start_time=form.read("start", moment),
        end_time=form.read("end", moment),
        local_start=form.read("local_start", new_local_time),
        skip_after=form.read("skip_after", new_duration),
    )
    mailing.retry.max_attempts = form.whole("max_attempts")
    _read_audience(mailing, form)
    return mailing


async def fields_of(visit: Visit, mailing: Mailing) -> dict[str, str]:
    """Return the fields of the form that describe a mailing. Raise MailingError where its filter cannot be written."""
    return {
        "title": mailing.title,
        "text": mailing.text,
        **await _audience_fields(visit, mailing.filter),
        **_timetable_fields(mailing, visit.viewer),
        "endpoint": mailing.endpoint,
        "max_rate": f"{mailing.max_rate:.15g}" if mailing.max_rate else "",
        "max_per_day": str(mailing.max_per_day or ""),
        "max_per_day_timezone": mailing.max_per_day_timezone,
        "priority": str(mailing.priority or ""),
        "max_attempts": str(mailing.retry.max_attempts or ""),
        "labels": _lines(mailing.labels),
        "snapshot": "1" if mailing.audience_mode == Mailing.AUDIENCE_MODE_SNAPSHOT else "",
        "at_most_once": "1" if mailing.semantics == Mailing.SEMANTICS_AT_MOST_ONCE else "",
        "important": "1" if mailing.important else "",
    }


def changed_paths(before: Mapping[str, str], form: Form, paths: Mapping[str, str] = PATHS) -> list[str]:
    """Return what a form changes, by the names of the API: the fields that are not as `before` any more."""
    return sorted({path for name, path in paths.items() if _typed(form, name) != before.get(name, "").strip()})


async def segment_names(visit: Visit) -> Sequence[str]:
    """Return the names of the segments to choose from; none for people who may not read them."""
    if not visit.may.clients_read:
        return []
    try:
        found = await visit.call(visit.service.segments.ListSegments, ListSegmentsRequest(page_size=_MOST_SEGMENTS))
    except MailingError:
        return []
    return [one.name for one in found.segments]


def _typed(form: Form, name: str) -> str:
    return form.get(name).replace("\r\n", "\n")


def _text(form: Form) -> str:
    """Return the text of the message with the space that stands around it."""
    return str(form.data.get("text") or "").replace("\r\n", "\n")


def _hours_of(form: Form) -> list[SendingHours]:
    """Return the sending hours, one a line."""
    found = []
    for text in filter(str.strip, form.get("sending_hours").splitlines()):
        try:
            found.append(parse_hours(text))
        except ValueError as error:
            form.errors["sending_hours"] = str(error)
    return found


def _read_audience(mailing: Mailing, form: Form) -> None:
    mailing.filter.CopyFrom(_filter_of(form))
    if not form.get("filter_text"):
        return
    if mailing.filter.ListFields():
        form.errors["filter_text"] = "leave the other fields of the audience empty, or say all of it here"
    mailing.ClearField("filter")
    mailing.filter_text = form.get("filter_text")


def _filter_of(form: Form) -> ClientFilter:
    ids = []
    for word in form.words("client_ids"):
        if not (word.isascii() and word.isdecimal()) or len(word) > 18:
            form.errors["client_ids"] = f"{word[:40]!r} is no id"
        else:
            ids.append(int(word))
    return ClientFilter(
        tags=[one.strip() for one in form.get("tags").split(",") if one.strip()],
        timezones=form.words("timezones"),
        operator_codes=form.words("operator_codes"),
        attributes=form.pairs("attributes"),
        client_ids=ids,
        segment=form.get("segment"),
    )


async def _audience_fields(visit: Visit, chosen: ClientFilter) -> dict[str, str]:
    """Return a filter as fields; as text where the fields cannot say it."""
    if has_conditions(chosen):
        request = PreviewSegmentRequest(filter=chosen)
        return {"filter_text": (await visit.call(visit.service.segments.PreviewSegment, request)).filter_text}
    return {
        "tags": ", ".join(chosen.tags),
        "timezones": ", ".join(chosen.timezones),
        "operator_codes": ", ".join(chosen.operator_codes),
        "attributes": _lines(chosen.attributes),
        "client_ids": ", ".join(map(str, chosen.client_ids)),
        "segment": chosen.segment,
    }


def _timetable_fields(mailing: Mailing, viewer: Viewer) -> dict[str, str]:
    return {
        "start": viewer.form_time(mailing.start_time),
        "end": viewer.form_time(mailing.end_time),
        "local_start": form_civil(mailing.local_start) if mailing.HasField("local_start") else "",
        "sending_hours": "\n".join(map(hours_text, mailing.sending_hours)),
        "holidays": mailing.holidays,
        "skip_after": form_span(mailing.skip_after) if mailing.HasField("skip_after") else "",
    }


def _lines(pairs: Mapping[str, str]) -> str:
    return "\n".join(f"{name}={value}" for name, value in sorted(pairs.items()))
