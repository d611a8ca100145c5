"""What Postgres and its driver say of values is not logged; what failed and where is."""

from __future__ import annotations

import logging
import sys

import asyncpg
import pytest

from server.observability.redaction import Redaction

CANARY = "79265551234"


def logged(error: BaseException, *arguments: object) -> str:
    """Return what an entry with this exception looks like."""
    try:
        try:
            raise error
        except type(error):
            raise RuntimeError("while something else was done") from error
    except RuntimeError:
        entry = logging.LogRecord("a", logging.ERROR, "", 0, "failed: %s", (error, *arguments), sys.exc_info())
    assert Redaction().filter(entry)
    return logging.Formatter().format(entry)


@pytest.mark.parametrize(
    ("statement", "arguments", "kept"),
    [
        (f"SELECT '{CANARY}x'::bigint", (), "SQLSTATE 22P02"),
        ("SELECT $1::smallint", (int(CANARY),), "SQLSTATE 22"),
        ("SELECT $1::text", (int(CANARY),), "SQLSTATE 22"),
        (f"INSERT INTO client_phones (phone, bucket) VALUES ('{CANARY}', 1)", (), "client_phones"),
    ],
)
async def test_a_value_is_not_logged(
    pool: asyncpg.Pool, statement: str, arguments: tuple[object, ...], kept: str
) -> None:
    """Fails for each when exceptions are left as they are."""
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)) as caught:
        await pool.fetchval(statement, *arguments)
    text = logged(caught.value)
    assert CANARY not in text
    assert kept in text
    assert "while something else was done" in text


def test_other_exceptions_stay_as_they_are() -> None:
    group = ExceptionGroup("several", [ValueError("one"), KeyError("two")])
    assert "ValueError: one" in logged(group)
    assert "KeyError: 'two'" in logged(group)
