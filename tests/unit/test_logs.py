"""Logs: one line per entry, on standard error, without what they must not show."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from server.logs import configure_logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def entries(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_both_kinds_of_loggers_write_json_lines_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "auto")
    logging.getLogger("a.b").info("found %d", 3, extra={"mailing": 7})
    structlog.get_logger("c").warning("приветствие", mailing=8)
    out, err = capsys.readouterr()
    assert out == ""
    first, second = entries(err)
    assert (first["message"], first["level"], first["logger"], first["mailing"]) == ("found 3", "info", "a.b", 7)
    assert (second["message"], second["level"], second["mailing"]) == ("приветствие", "warning", 8)
    assert "приветствие" in err


def test_a_failure_stays_on_one_line_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logging.getLogger("a").exception("failed")
    (entry,) = entries(capsys.readouterr().err)
    assert "RuntimeError: broken" in str(entry["exception"])


def test_the_console_form_shows_no_local_variables(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "console")
    secret = "-".join(["to", "ken"])
    try:
        raise RuntimeError(len(secret))
    except RuntimeError:
        logging.getLogger("a").exception("failed")
    shown = capsys.readouterr().err
    assert "RuntimeError" in shown
    assert secret not in shown


def test_entries_below_the_level_and_chatter_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("debug", "json")
    logging.getLogger("httpx").info("POST")
    logging.getLogger("a").debug("detail")
    configure_logs("warning", "json")
    logging.getLogger("a").info("detail")
    structlog.get_logger("a").info("detail")
    assert [entry["message"] for entry in entries(capsys.readouterr().err)] == ["detail"]
