"""The commands against a small service: what they ask, print and return."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from rich.console import Console

from mailing import new_client
from mailing.cli import main
from mailing.cli.commands import watch as watching
from mailing.cli.commands.client_import import import_csv
from mailing.cli.session import Session
from mailing.client_csv import ClientReader, open_csv
from mailing.v1.mailing_pb2 import Mailing
from mailing.v1.message_pb2 import Attempt, Message
from tests.unit.cli.conftest import Run, Service
from tests.unit.cli.service import progress


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(watching, "LINE_SECONDS", 0.0)


def csv_file(folder: Path, text: str) -> str:
    path = folder / "clients.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


class TestOutput:
    def test_a_table_shows_every_value_in_full(self, run: Run, service: Service) -> None:
        service.clients.stored = [new_client("70100000001", "Europe/Moscow", tag="n" * 100, window=("22:00", "06:00"))]
        _, out, _ = run("clients", "list")
        for text in ("70100000001", "Europe/Moscow", "n" * 100, "22:00-06:00"):
            assert text in out

    def test_json_has_numbers_for_ids_and_the_fields_that_are_zero(self, run: Run, service: Service) -> None:
        service.mailings.script = [progress(Mailing.STATE_RUNNING, 1 << 40)]
        status, out, err = run("mailings", "get", "7", "--json")
        document = json.loads(out)
        assert (status, err) == (0, "")
        assert (document["id"], document["state"], document["priority"]) == (7, "STATE_RUNNING", 0)
        assert document["progress"]["total"] == 1 << 40
        assert document["progress"]["failed"] == 0

    def test_json_keeps_durations_times_maps_and_repeated_numbers(self, run: Run, service: Service) -> None:
        mailing = Mailing(labels={"a": "b"})
        mailing.filter.client_ids.extend([1 << 50])
        mailing.filter.attributes["k"] = "v"
        mailing.retry.initial_backoff.FromSeconds(2)
        mailing.start_time.FromSeconds(0)
        service.mailings.script = [mailing]
        document = json.loads(run("--json", "mailings", "get", "7").out)
        assert document["filter"]["client_ids"] == [1 << 50]
        assert document["filter"]["attributes"] == {"k": "v"}
        assert document["retry"]["initial_backoff"] == "2s"
        assert document["start_time"] == "1970-01-01T00:00:00Z"

    @pytest.mark.parametrize("count", [0, 1, 3])
    def test_a_json_list_is_one_document(self, count: int, run: Run, service: Service) -> None:
        service.clients.stored = [new_client(f"701000000{number:02}", "UTC") for number in range(count)]
        document = json.loads(run("clients", "list", "--json").out)
        assert [one["phone"] for one in document["clients"]] == [one.phone for one in service.clients.stored]
        assert document["more"] is False

    @pytest.mark.parametrize(("limit", "shown"), [(3, 3), (5, 5), (0, 5)])
    def test_a_limit_says_whether_there_are_more(self, limit: int, shown: int, run: Run, service: Service) -> None:
        service.clients.stored = [new_client(f"701000000{number:02}", "UTC") for number in range(5)]
        document = json.loads(run("clients", "list", "--json", "--limit", str(limit)).out)
        assert (len(document["clients"]), document["more"]) == (shown, shown < 5)
        _, out, err = run("clients", "list", "--limit", str(limit))
        assert (out.count("7010"), "--limit 0 all" in err) == (shown, shown < 5)

    def test_a_call_that_fails_prints_no_half_document(self, run: Run) -> None:
        status, out, err = run("mailings", "list", "--json")
        assert (status, out) == (1, "")
        assert err.startswith("mailing: ")

    def test_stored_text_cannot_steer_the_terminal(self, run: Run, service: Service) -> None:
        service.clients.stored = [new_client("70100000001", "UTC", tag="\x1b[31m[bold]red\n")]
        _, out, _ = run("clients", "list")
        assert "\\x1b[31m[bold]red\\n" in out

    def test_messages_are_listed_by_status(self, run: Run, service: Service) -> None:
        service.messages.stored = [
            Message(id=1, status=Message.STATUS_DELIVERED, endpoint_status=200, endpoint_code=0),
            Message(id=2, status=Message.STATUS_FAILED, reason=Message.REASON_REFUSED),
        ]
        _, out, _ = run("messages", "list", "--mailing-id", "7", "--status", "Failed")
        assert "failed: refused by the gateway" in out
        assert "delivered" not in out


class TestFailures:
    def test_a_service_that_is_not_there_is_one_sentence_and_status_3(self, run: Run) -> None:
        status, out, err = run("clients", "list", "--address", "127.0.0.1:1")
        assert (status, out) == (3, "")
        assert err.startswith("mailing: no service answers at 127.0.0.1:1; ")
        assert err.count("\n") == 1

    def test_the_last_address_given_counts(self, run: Run) -> None:
        status, _, err = run("--address", "127.0.0.1:2", "clients", "list", "--address", "127.0.0.1:1")
        assert (status, "127.0.0.1:1;" in err) == (3, True)
        assert "127.0.0.1:2;" in run("--address", "127.0.0.1:2", "clients", "list").err

    def test_a_bad_field_is_named(self, run: Run, service: Service) -> None:
        service.clients.bad_phones["123"] = ("phone", "must have 7 to 15 digits")
        status, _, err = run("clients", "add", "123", "--timezone", "UTC")
        assert (status, err) == (2, "mailing: client.phone: must have 7 to 15 digits\n")

    def test_a_refused_call_is_status_1(self, run: Run) -> None:
        assert run("mailings", "get", "9") == (1, "", "mailing: There is no mailing 9.\n")
        assert run("mailings", "pause", "9").status == 1

    def test_the_same_phone_twice_is_status_1(self, run: Run) -> None:
        assert run("clients", "add", "70100000001", "--timezone", "UTC").status == 0
        assert run("clients", "add", "70100000001", "--timezone", "UTC").status == 1

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (["nonsense"], "nonsense"),
            (["mailings", "create"], "--text"),
            (["mailings", "create", "--text", "x", "--all", "--start", "soon"], "--start"),
            (["mailings", "create", "--text", "x", "--end", "soon"], "--end"),
            (["mailings", "create", "--text", "x", "--initial-backoff", "1"], "--initial-backoff"),
            (["mailings", "create", "--text", "x", "--attribute", "name"], "--attribute"),
            (["mailings", "create", "--text", "x", "--label", "a=1", "--label", "a=2"], "--label"),
            (["mailings", "create", "--text", "x", "--client-id", "one"], "--client-id"),
            (["mailings", "update", "7"], "nothing to change"),
            (["mailings", "update", "7", "--title", "x", "--clear", "title"], "--clear"),
            (["mailings", "list", "--state", "sleeping"], "--state"),
            (["messages", "list"], "--mailing-id"),
            (["retry", "7"], "--status"),
            (["retry", "7", "--status", "lost"], "--status"),
            (["attempts", "x"], "ID"),
            (["messages", "list", "--mailing-id", "7", "--status", "lost"], "--status"),
            (["clients", "add", "70100000001", "--timezone", "UTC", "--window", "9"], "--window"),
            (["clients", "list", "--limit", "-1"], "--limit"),
            (["clients", "import", "/nowhere/clients.csv"], "/nowhere/clients.csv"),
            (["clients", "import", "/"], "/: "),
            (["watch", "x"], "ID"),
        ],
    )
    def test_wrong_usage_is_one_sentence_that_names_what_and_status_2(
        self, arguments: list[str], named: str, run: Run
    ) -> None:
        status, out, err = run(*arguments)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("mailing: ")
        assert named in err

    def test_ctrl_c_is_130_and_says_nothing(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("mailing.client.MailingClient.get_mailing", interrupted)
        assert run("watch", "7") == (130, "", "")

    def test_help_tells_the_exit_statuses(self, run: Run) -> None:
        status, out, _ = run("--help")
        assert status == 0
        for meaning in ("0  done", "3  the service cannot be reached", "130  interrupted"):
            assert meaning in out


class TestClients:
    def test_a_file_is_imported(self, run: Run, service: Service, tmp_path: Path) -> None:
        rows = "".join(f"7010{number:07},UTC\n" for number in range(1200))
        status, out, _ = run("clients", "import", csv_file(tmp_path, "phone,timezone\n" + rows), "--json")
        assert (status, json.loads(out)["created"]) == (0, 1200)
        assert len(service.clients.stored) == 1200

    def test_the_columns_of_a_file_say_what_it_speaks_of(self, run: Run, service: Service, tmp_path: Path) -> None:
        text = "phone,timezone,window_end,attributes.city,window_start\n70100000001,UTC,21:00,,09:00\n"
        assert run("clients", "import", csv_file(tmp_path, text)).status == 0
        assert service.clients.import_masks == [["phone", "timezone", "receive_window", "attributes.city"]]

    def test_a_terminal_sees_how_far_an_import_is(self, service: Service, tmp_path: Path) -> None:
        rows = "".join(f"7010{number:07},UTC\n" for number in range(1200))
        screen = io.StringIO()
        session = Session(address=service.address, err=Console(file=screen, force_terminal=True, width=100))
        with open_csv(csv_file(tmp_path, "phone,timezone\n" + rows)) as lines, session.connected() as client:
            outcome, count = import_csv(session, client, lines, ClientReader(lines, "clients.csv"))
        assert (outcome.created, count) == (1200, 1200)
        assert "1,000 rows" in screen.getvalue()
        assert "━" in screen.getvalue()

    def test_standard_input_is_imported(
        self, run: Run, service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        with Path(csv_file(tmp_path, "phone,timezone\n70100000001,UTC\n")).open() as stream:
            monkeypatch.setattr("sys.stdin", stream)
            assert run("clients", "import", "-").status == 0
        assert [one.phone for one in service.clients.stored] == ["70100000001"]

    def test_a_bad_row_imports_nothing_and_is_named_by_row_and_column(
        self, run: Run, service: Service, tmp_path: Path
    ) -> None:
        rows = "".join(f"7010{number:07},UTC,,\n" for number in range(600)) + "70200000000,UTC,26:00,09:00\n"
        path = csv_file(tmp_path, "phone,timezone,window_start,window_end\n" + rows)
        status, out, err = run("clients", "import", path)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert f"{path}, row 601 (line 602), column window_start: '26:00'" in err
        assert service.clients.stored == []

    def test_a_row_the_service_refuses_is_named_by_row_and_column(
        self, run: Run, service: Service, tmp_path: Path
    ) -> None:
        service.clients.bad_phones = {f"7010000000{number}": ("timezone", "is none") for number in range(5)}
        rows = "".join(f'"7010000000{number}",Mars,"two\nlines"\n' for number in range(5))
        path = csv_file(tmp_path, "phone,timezone,tag\n" + rows)
        status, _, err = run("clients", "import", path)
        assert (status, err.count("\n")) == (2, 1)
        assert f"{path}, row 1 (line 2), column timezone: is none; row 2 (line 4), column timezone: is none; " in err
        assert "and 2 more" in err

    def test_rows_that_are_left_out_are_listed_and_the_status_says_so(
        self, run: Run, service: Service, tmp_path: Path
    ) -> None:
        service.clients.bad_phones = {f"7010000000{number}": ("timezone", "is none") for number in range(3)}
        path = csv_file(tmp_path, "phone,timezone\n" + "".join(f"7010000000{n},Mars\n" for n in range(9)))
        rejects = tmp_path / "rejects.csv"
        status, out, err = run("clients", "import", path, "--skip-invalid", str(rejects))
        complaints = [f"row {n} (line {n + 1}), column timezone: is none" for n in (1, 2, 3)]
        assert (status, err.splitlines()) == (
            2,
            [
                f"{path}: UTF-8, separated by commas",
                *complaints,
                f"mailing: 3 bad rows in {path}: written to {rejects}, with the reasons",
            ],
        )
        assert out
        rows = [f'7010000000{n - 1},Mars,"{complaints[n - 1]}"' for n in (1, 2, 3)]
        assert rejects.read_text().splitlines() == ["phone,timezone,error", *rows]

    def test_a_dry_run_says_that_nothing_was_saved(self, run: Run, tmp_path: Path) -> None:
        path = csv_file(tmp_path, "phone,timezone\n70100000001,UTC\n")
        assert run("clients", "import", path, "--dry-run").err.endswith("No bad row; nothing was saved.\n")
        assert "saved" not in run("clients", "import", path).err

    def test_an_encoding_that_does_not_exist_is_refused(self, run: Run, tmp_path: Path) -> None:
        path = csv_file(tmp_path, "phone,timezone\n")
        assert run("clients", "import", path, "--encoding", "cp9999").status == 2

    def test_an_export_can_be_imported(self, run: Run, service: Service, tmp_path: Path) -> None:
        text = (
            "phone,operator_code,tag,timezone,window_start,window_end,opted_out,attributes.city,attributes.name\n"
            '70100000001,010,"a, b",UTC,22:00,06:00,,,Анна\n'
            "70100000002,,,UTC,,,true,Rome,\n"
        )
        assert run("clients", "import", csv_file(tmp_path, text)).status == 0
        assert run("clients", "export").out == text
        assert run("clients", "export", "--output", str(tmp_path / "out.csv")).status == 0
        assert (tmp_path / "out.csv").read_text(encoding="utf-8") == text

    def test_a_failed_export_leaves_the_file_as_it_was(self, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "out.csv"
        path.write_text("before")
        assert run("clients", "export", "-o", str(path), "--address", "127.0.0.1:1").status == 3
        assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("out.csv", "before")]

    def test_an_export_keeps_modes_links_pipes_and_devices(self, run: Run, service: Service, tmp_path: Path) -> None:
        service.clients.stored = [new_client("70100000001", "UTC")]
        file, link, pipe = tmp_path / "out.csv", tmp_path / "link", tmp_path / "pipe"
        file.touch(0o640)
        file.chmod(0o640)
        link.symlink_to("out.csv")
        os.mkfifo(pipe)
        assert run("clients", "export", "-o", str(link)).status == 0
        assert (link.is_symlink(), stat.S_IMODE(file.stat().st_mode)) == (True, 0o640)
        with ThreadPoolExecutor() as threads:
            read = threads.submit(pipe.read_text)
            assert run("clients", "export", "-o", str(pipe)).status == 0
        assert file.read_text() == read.result()
        assert "70100000001" in read.result()
        assert stat.S_ISFIFO(pipe.lstat().st_mode)
        assert run("clients", "export", "-o", "/dev/null").status == 0
        assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
        assert {one.name for one in tmp_path.iterdir()} == {"out.csv", "link", "pipe"}

    def test_an_export_is_utf8_whatever_the_locale(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        service.clients.stored = [new_client("70100000001", "UTC", tag="Анна")]
        out = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
        monkeypatch.setattr(sys, "stdout", out)
        assert main(["clients", "export", "--address", service.address]) == 0
        assert "Анна" in out.buffer.getvalue().decode()

    def test_an_argument_that_is_not_utf8_is_bad_input(self, run: Run) -> None:
        for arguments in (["add", "70100000001", "--timezone", "UTC"], ["list"], ["export"]):
            status, out, err = run("clients", *arguments, "--tag", "n\udcffn")
            assert (status, out, err) == (2, "", "mailing: not UTF-8: 'n\\udcffn'\n")

    def test_a_client_is_added_with_everything(self, run: Run, service: Service) -> None:
        arguments = ["--timezone", "UTC", "--tag", "t", "--operator-code", "010", "--window", "22:00-06:00"]
        status, out, _ = run("clients", "add", "70100000001", *arguments, "--attribute", "name=A=B", "--opted-out")
        wanted = new_client(
            "70100000001",
            "UTC",
            operator_code="010",
            tag="t",
            window=("22:00", "06:00"),
            attributes={"name": "A=B"},
            opted_out=True,
        )
        wanted.id = service.clients.stored[0].id
        assert (status, service.clients.stored) == (0, [wanted])
        assert str(wanted.id) in out


class TestMailings:
    def test_create_sends_what_was_given(self, run: Run, service: Service) -> None:
        options = "--title T --tag a --tag b --attribute k=v --client-id 5 --snapshot --at-most-once --priority -3"
        quota = "--max-per-day 500 --max-per-day-timezone Asia/Tokyo"
        more = "--max-rate 10 --end 2090-01-01T00:00:00Z --max-attempts 2 --max-backoff 1m --label x=y"
        status, out, _ = run(
            "mailings",
            "create",
            "--text",
            "Hi",
            *options.split(),
            *more.split(),
            *quota.split(),
            "--yes",
            "--request-id",
            "r",
        )
        request = service.mailings.created[0]
        mailing = request.mailing
        assert (status, request.request_id, mailing.title, mailing.priority, mailing.max_rate) == (0, "r", "T", -3, 10)
        assert (list(mailing.filter.tags), dict(mailing.filter.attributes)) == (["a", "b"], {"k": "v"})
        assert (list(mailing.filter.client_ids), dict(mailing.labels)) == ([5], {"x": "y"})
        assert (mailing.max_per_day, mailing.max_per_day_timezone) == (500, "Asia/Tokyo")
        assert mailing.audience_mode == Mailing.AUDIENCE_MODE_SNAPSHOT
        assert mailing.semantics == Mailing.SEMANTICS_AT_MOST_ONCE
        assert (mailing.retry.max_attempts, mailing.retry.max_backoff.seconds) == (2, 60)
        assert mailing.end_time.ToJsonString() == "2090-01-01T00:00:00Z"
        assert not mailing.HasField("start_time")
        assert "RUNNING" in out

    def test_everybody_is_reached_only_when_that_is_said(self, run: Run, service: Service) -> None:
        """Fails when a filter that was forgotten sends to all clients."""
        for options in (("--yes",), ("--json",), ("--all", "--tag", "a", "--yes")):
            assert run("mailings", "create", "--text", "Hi", *options).status == 2
        assert not service.mailings.created
        assert run("mailings", "create", "--text", "Hi", "--all", "--yes").status == 0
        assert service.mailings.created[0].mailing == Mailing(text="Hi")

    def test_without_a_terminal_nothing_is_created_unasked(self, run: Run, service: Service) -> None:
        status, out, err = run("mailings", "create", "--text", "Hi", "--tag", "a")
        assert (status, service.mailings.created) == (2, [])
        assert "audience" in out
        assert "repeat with --yes" in err

    def test_update_names_exactly_what_was_given(self, run: Run, service: Service) -> None:
        assert run("mailings", "update", "7", "--title", "", "--clear", "end_time", "--etag", "e").status == 0
        request = service.mailings.updated[0]
        assert list(request.update_mask.paths) == ["title", "end_time"]
        assert request.mailing == Mailing(id=7, etag="e")


class TestVerbs:
    @pytest.mark.parametrize("where", [[], ["mailings"]], ids=["at the root", "below mailings"])
    @pytest.mark.parametrize(("verb", "state"), [("pause", "PAUSED"), ("resume", "RUNNING"), ("cancel", "CANCELLED")])
    def test_a_verb_shows_the_mailing_as_it_is_then(self, where: list[str], verb: str, state: str, run: Run) -> None:
        status, out, _ = run(*where, verb, "7")
        assert (status, state in out) == (0, True)
        assert json.loads(run(*where, verb, "7", "--json").out)["state"] == f"STATE_{state}"

    @pytest.mark.parametrize("where", [[], ["mailings"]], ids=["at the root", "below mailings"])
    def test_retry_names_the_statuses_and_tells_how_many(self, where: list[str], run: Run, service: Service) -> None:
        status, out, _ = run(*where, "retry", "7", "--status", "failed", "--status", "UNKNOWN")
        assert (status, out) == (0, "Mailing 7 sends 12,345 messages again.\n")
        assert json.loads(run(*where, "retry", "7", "--status", "failed", "--json").out) == {"requeued": 12345}
        assert [list(request.statuses) for request in service.mailings.retried] == [
            [Message.STATUS_FAILED, Message.STATUS_UNKNOWN],
            [Message.STATUS_FAILED],
        ]

    def test_attempts_are_a_table(self, run: Run, service: Service) -> None:
        attempt = Attempt(number=1, endpoint="default", error_class=Attempt.ERROR_CLASS_SERVER, endpoint_status=503)
        attempt.duration.FromMilliseconds(250)
        attempt.response_excerpt = "try\nlater"
        service.messages.attempts = [attempt, Attempt(number=2, error_class=Attempt.ERROR_CLASS_TIMEOUT)]
        status, out, _ = run("attempts", "30064771088")
        assert status == 0
        for text in ("number", "gateway error (HTTP 503)", "250", "try\\nlater", "no answer in time"):
            assert text in out
        document = json.loads(run("attempts", "30064771088", "--json").out)
        assert [one["number"] for one in document["attempts"]] == [1, 2]

    def test_a_deletion_may_find_nothing(self, run: Run) -> None:
        assert run("mailings", "delete", "9").status == 1
        assert run("mailings", "delete", "9", "--allow-missing").status == 0

    def test_a_deletion_says_how_much_is_left(self, run: Run, service: Service) -> None:
        service.mailings.remaining = 12_345
        _, out, _ = run("mailings", "delete", "9", "--allow-missing")
        assert "The service removes 12,345 messages more by itself." in out
        document = json.loads(run("mailings", "delete", "9", "--allow-missing", "--json").out)
        assert document == {"deleted_messages": 0, "remaining_messages": 12_345}


class TestWatch:
    def test_it_ends_with_0_when_everyone_was_reached(self, run: Run, service: Service) -> None:
        service.mailings.script = [
            progress(Mailing.STATE_SCHEDULED, 0, expanded=False),
            progress(Mailing.STATE_RUNNING, 0, expanded=False),
            progress(Mailing.STATE_RUNNING, 5, expanded=False, delivered=2),
            progress(Mailing.STATE_RUNNING, 10, delivered=9),
            progress(Mailing.STATE_COMPLETED, 10, delivered=10),
        ]
        status, out, err = run("watch", "7")
        assert (status, err) == (0, "")
        assert "running: the audience is being recorded\n" in out
        assert "running: 2 of 5+ delivered\n" in out
        assert "running: 9 of 10 delivered\n" in out
        assert "100.0%" in out

    def test_it_ends_with_4_when_somebody_was_not_reached(self, run: Run, service: Service) -> None:
        service.mailings.script = [progress(Mailing.STATE_CANCELLED, 10, delivered=7, failed=1, cancelled=2)]
        status, out, err = run("watch", "7")
        assert (status, err) == (4, "mailing: 3 of 10 messages were not delivered\n")
        assert "cancelled" in out

    def test_json_is_a_line_per_state(self, run: Run, service: Service) -> None:
        service.mailings.script = [
            progress(Mailing.STATE_RUNNING, 10, delivered=9),
            progress(Mailing.STATE_COMPLETED, 10, delivered=10),
        ]
        status, out, _ = run("watch", "7", "--json")
        states = [json.loads(line)["state"] for line in out.splitlines()]
        assert (status, states) == (0, ["STATE_RUNNING", "STATE_COMPLETED"])

    def test_until_sent_waits_for_the_expansion_but_not_for_the_end(self, run: Run, service: Service) -> None:
        service.mailings.script = [
            progress(Mailing.STATE_RUNNING, 5, expanded=False, delivered=5),
            progress(Mailing.STATE_RUNNING, 9, delivered=8),
            progress(Mailing.STATE_RUNNING, 9, delivered=9),
            grpc.StatusCode.INTERNAL,
        ]
        assert run("watch", "7", "--until-sent").status == 0

    def test_it_outlives_a_short_absence_of_the_service(self, run: Run, service: Service) -> None:
        service.mailings.script = [
            progress(Mailing.STATE_RUNNING, 10),
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.UNAVAILABLE,
            progress(Mailing.STATE_COMPLETED, 10, delivered=10),
        ]
        assert run("watch", "7").status == 0

    def test_it_gives_up_on_a_service_that_stays_away(
        self, run: Run, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watching, "PATIENCE_SECONDS", -1.0)
        service.mailings.script = [progress(Mailing.STATE_RUNNING, 10), grpc.StatusCode.UNAVAILABLE]
        assert run("watch", "7").status == 3

    def test_a_terminal_gets_a_bar(self, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
        from mailing.cli.session import Session

        reported = progress(Mailing.STATE_RUNNING, 10, delivered=4)
        reported.progress.receipts.received, reported.progress.receipts.undelivered = 2, 1
        service.mailings.script = [reported, progress(Mailing.STATE_COMPLETED, 10, delivered=10)]
        screen = io.StringIO()
        console = Console(file=screen, force_terminal=True, width=100)
        session = Session(address=service.address, out=console)
        with session.connected() as client:
            watching.follow(session, client, 7)
        assert "4 of 10 delivered, 6 pending, 2 received, 1 undelivered" in screen.getvalue()
        assert "━" in screen.getvalue()
