"""Logs: one line per entry, on standard error and in a file, without what they must not show."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from server.observability import logging as logs
from server.observability.logging import configure_logs


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


def test_a_file_gets_the_same_entries_as_json_and_is_rotated(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "FILE_BYTES", 2000)
    file = tmp_path / "mailing.log"
    configure_logs("info", "console", file)
    for n in range(100):
        logging.getLogger("a").info("entry %d", n, extra={"mailing": n})
    logging.getLogger("a").debug("detail")
    for handler in logging.getLogger().handlers:
        handler.close()
    kept = sorted(tmp_path.iterdir())
    assert len(kept) == 1 + logs.FILES_KEPT
    assert all(one.stat().st_size <= 2000 for one in kept)
    last = entries(file.read_text())[-1]
    assert (last["message"], last["level"], last["mailing"]) == ("entry 99", "info", 99)
    assert "entry 99" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_any_more_stops_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    configure_logs("info", "json", folder / "mailing.log")
    folder.rmdir()
    logging.getLogger("a").info("said")
    assert "said" in capsys.readouterr().err


def test_entries_below_the_level_and_chatter_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("debug", "json")
    logging.getLogger("httpx").info("POST")
    logging.getLogger("a").debug("detail")
    configure_logs("warning", "json")
    logging.getLogger("a").info("detail")
    structlog.get_logger("a").info("detail")
    assert [entry["message"] for entry in entries(capsys.readouterr().err)] == ["detail"]
