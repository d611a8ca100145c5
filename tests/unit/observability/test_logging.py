"""Logs: one line per entry, on standard error and in a file, without what they must not show."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from server.observability import logging as logs
from server.observability.library_errors import LibraryErrors
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
        logging.getLogger("server.a").exception("failed")
    (entry,) = entries(capsys.readouterr().err)
    assert "RuntimeError: broken" in str(entry["exception"])


def test_the_console_form_shows_no_local_variables(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "console")
    secret = "-".join(["to", "ken"])
    try:
        raise RuntimeError(len(secret))
    except RuntimeError:
        logging.getLogger("server.a").exception("failed")
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


def test_a_traceback_of_a_library_becomes_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    configure_logs("info", "json", tmp_path / "log")
    try:
        raise ValueError("invalid input for query argument $1: '79265551234'\n(expected int)")
    except ValueError as error:
        text = f"Task exception was never retrieved\nfuture: <Task exception={error!r}>"
        logging.getLogger("asyncio").error(text, exc_info=True)
    for handler in logging.getLogger().handlers:
        handler.close()
    for written in (capsys.readouterr().err, (tmp_path / "log").read_text()):
        (entry,) = entries(written)
        assert entry["message"] == (
            "Task exception was never retrieved: ValueError: invalid input for query argument $1"
        )
        assert "exception" not in entry


def test_alike_errors_of_a_library_are_logged_once_a_minute() -> None:
    now = [0.0]
    libraries = LibraryErrors(lambda: now[0])

    def logged(name: str = "grpc._cython.cygrpc", level: int = logging.ERROR) -> str | None:
        record = logging.LogRecord(name, level, "", 0, "peer %d\nis gone", (len(name),), None)
        passed = [libraries.filter(record) for _ in range(2)]  # as by two handlers
        assert passed[0] == passed[1]
        return record.getMessage() if passed[0] else None

    assert logged() == "peer 19"
    assert [logged() for _ in range(1234)] == [None] * 1234
    assert logged("httpx") == "peer 5"
    assert logged("server.a") == "peer 8\nis gone"
    assert logged("httpx", logging.INFO) == "peer 5\nis gone"
    now[0] = 60.0
    assert logged() == "peer 19 (1,234 like it since the last one)"
    assert logged() is None


def test_at_the_level_debug_libraries_keep_their_tracebacks(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("debug", "json")
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("uvicorn.error").exception("failed")
    (entry,) = entries(capsys.readouterr().err)
    assert "Traceback" in str(entry["exception"])


def test_kinds_of_errors_do_not_pile_up() -> None:
    libraries = LibraryErrors()
    for n in range(2000):
        libraries.filter(logging.LogRecord("grpc", logging.ERROR, "", 0, f"peer {n}", None, None))
    assert libraries.kinds == 500
