"""What a mailing would do, as tables."""

from __future__ import annotations

from rich.table import Table

from mailing.cli.terminal.tables import cell, enum_name, moment, new_table, short_moment
from mailing.cli.terminal.words import reason_words
from mailing.v1.mailing_service_pb2 import PreviewMailingResponse

_COLUMNS = (">client", ">phone", ">due", ">SMS", "~text", ">characters", "encoding")


def preview_facts(answer: PreviewMailingResponse) -> list[tuple[str, str]]:
    """Return how many a mailing reaches, who is left out, and when it is expected to end."""
    finish = moment(answer.estimated_finish_time)
    if not finish and answer.audience_size:
        finish = (
            "will not finish before the end time"
            if answer.sendable_before_end < answer.audience_size
            else "will not finish within a year"
        )
    return [
        ("audience", f"{answer.audience_size:,}"),
        *((f"left out: {reason_words(enum_name(one, 'reason'))}", f"{one.count:,}") for one in answer.exclusions),
        ("sendable before the end", f"{answer.sendable_before_end:,}"),
        ("expected end", finish),
    ]


def samples_table(answer: PreviewMailingResponse, wide: bool) -> Table:
    """Return the first texts, `wide` with their encoding and length."""
    columns = _COLUMNS if wide else _COLUMNS[:-2]
    table = new_table(*columns)
    for one in answer.samples:
        row = (
            str(one.client_id),
            one.phone,
            short_moment(one.due_time),
            str(one.sms_segments),
            one.text,
            f"{one.characters:,}",
            enum_name(one, "sms_encoding"),
        )
        table.add_row(*map(cell, row[: len(columns)]))
    return table
