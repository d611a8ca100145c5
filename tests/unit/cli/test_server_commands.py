"""`mailing-server` on its own, and `mailing serve`, which finds it by its entry points."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import mailing.cli.commands.server as finder
from mailing.cli.app import main as mailing
from server.auth.tokens_file import TokensFile
from server.cli import main

Capture = pytest.CaptureFixture[str]
Announce = Callable[..., None]

CALLS: list[list[str]] = []


def record(words: Sequence[str]) -> int:
    """What the entry points of these tests name."""
    CALLS.append(list(words))
    return 5 if "fail" in words else 0


@pytest.fixture
def announce(monkeypatch: pytest.MonkeyPatch) -> Announce:
    """Replaces the installed entry points by commands of these names, which only record their words."""
    CALLS.clear()

    def install(*names: str) -> None:
        found = {name: EntryPoint(name, f"{__name__}:record", finder.GROUP) for name in names}
        monkeypatch.setattr(
            finder,
            "entry_points",
            lambda *, group, name: [found[name]] if group == finder.GROUP and name in found else [],
        )

    return install


class TestForwarding:
    def test_words_behind_the_command_arrive_in_their_order(self, announce: Announce) -> None:
        announce("serve")
        assert mailing(["serve", "--listen", "x:1", "--help", "-v", "y", "--set", "a=1"]) == 0
        assert CALLS == [["serve", "--listen", "x:1", "--help", "-v", "y", "--set", "a=1"]]

    def test_the_exit_status_is_the_command_s(self, announce: Announce) -> None:
        announce("serve")
        assert mailing(["serve", "fail"]) == 5

    def test_former_commands_are_understood_and_not_shown(self, announce: Announce, capsys: Capture) -> None:
        announce("migrate", "tokens")
        assert mailing(["--json", "migrate"]) == 0
        assert mailing(["tokens", "create", "ops", "--scope", "all"]) == 0
        assert CALLS == [["migrate", "--json"], ["tokens", "create", "ops", "--scope", "all"]]
        assert mailing(["--help"]) == 0
        shown = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("│ ")]
        assert "serve" in shown
        assert {"dispatcher", "dispatch", "migrate", "config", "tokens"}.isdisjoint(shown)

    @pytest.mark.parametrize("command", ["serve", "migrate", "demo"])
    def test_without_the_server_one_sentence_says_what_to_install(
        self, command: str, announce: Announce, capsys: Capture
    ) -> None:
        announce()
        assert mailing([command]) == 1
        out, err = capsys.readouterr()
        needed = "migrate" if command == "migrate" else "serve"
        assert (out, err) == (
            "",
            f"mailing: `mailing {needed}` needs the server, which is not installed here: "
            "pip install 'mailing-server[embedded]'\n",
        )

    def test_the_installed_server_announces_its_commands(self) -> None:
        """Fails for a command of the server that its distribution does not name."""
        for name in ("serve", "dispatcher", "migrate", "config", "tokens"):
            assert finder.find(name) is main


class TestConfig:
    def test_values_and_places_are_shown_and_no_secret(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
    ) -> None:
        monkeypatch.setenv("AUTHTOKEN", "hidden")
        (tmp_path / "mailing.toml").write_text("poll_max = 2\n")
        arguments = ["config", "--config", str(tmp_path / "mailing.toml"), "--set", "pool_size=20"]
        assert main(arguments) == 0
        table = capsys.readouterr().out
        lines = [line for line in table.splitlines() if len(line.split()) > 2]
        rows = {line.split()[0]: line.strip().split(maxsplit=2)[1:] for line in lines}
        assert rows["poll_max"] == ["2.0", f"{tmp_path}/mailing.toml: poll_max"]
        assert rows["pool_size"] == ["20", "the option pool_size"]
        assert rows["endpoint_token"] == ["***", "AUTHTOKEN"]
        assert main([*arguments, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)["settings"]
        assert {"name": "lease", "variable": "MAILING_LEASE", "value": 60.0, "from": "default"} in document
        assert "hidden" not in table + json.dumps(document)

    @pytest.mark.parametrize("command", ["config", "serve", "dispatcher", "migrate"])
    def test_invalid_settings_end_a_command_before_anything_happens(self, command: str, capsys: Capture) -> None:
        assert main([command, "--set", "polsize=1"]) == 2
        out, err = capsys.readouterr()
        sentence = "The option polsize is not a setting of this service: did you mean pool_size?"
        assert (out, err) == ("", f"mailing-server: {sentence}\n")
        assert main([command, "--config", "/does/not/exist.toml"]) == 2
        assert "/does/not/exist.toml cannot be read" in capsys.readouterr().err
        assert main([command, "--set", "pool_size"]) == 2
        assert "--set" in capsys.readouterr().err

    def test_a_dispatcher_alone_needs_a_database(self, capsys: Capture) -> None:
        assert main(["dispatcher"]) == 2
        assert "MAILING_DSN should be the database of the service" in capsys.readouterr().err


class TestTokens:
    def test_the_service_knows_a_token_by_its_line(self, tmp_path: Path, capsys: Capture) -> None:
        assert main(["tokens", "create", "billing", "--scope", "mailings.read", "--scope", "mailings.write"]) == 0
        token, line = capsys.readouterr().out.splitlines()
        (tmp_path / "tokens").write_text(line)
        known = TokensFile(tmp_path / "tokens").by_digest(sha256(token.encode()).digest())
        assert known is not None
        assert (known.subject, sorted(known.scopes)) == ("billing", ["mailings.read", "mailings.write"])
        assert token not in line

    def test_it_is_a_document_with_json(self, capsys: Capture) -> None:
        assert main(["tokens", "create", "ops", "--scope", "all", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["name"] == "ops"
        assert document["line"] == f"ops sha256:{sha256(document['token'].encode()).hexdigest()} all"

    def test_a_role_stands_for_its_scopes(self, capsys: Capture) -> None:
        assert main(["tokens", "create", "grafana", "--role", "monitor"]) == 0
        assert capsys.readouterr().out.splitlines()[1].endswith(" mailings.read,messages.read,admin.read")

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (("ops", "--scope", "everything"), "'everything' is no scope: there are clients.read, "),
            (("two words", "--scope", "all"), "'two words' is no name"),
            (("ops",), "Give either --role or --scope"),
            (("ops", "--role", "monitor", "--scope", "admin"), "Give either --role or --scope"),
            (("ops", "--role", "boss"), "'boss' is no role: there are marketer, operator, monitor"),
        ],
    )
    def test_an_entry_the_file_could_not_have_is_not_made(
        self, arguments: tuple[str, ...], sentence: str, capsys: Capture
    ) -> None:
        assert main(["tokens", "create", *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert sentence in err


def test_both_programs_tell_their_version(capsys: Capture) -> None:
    assert main(["--version"]) == mailing(["version"]) == 0
    server, client = capsys.readouterr().out.splitlines()
    assert server.split() == ["mailing-server", client.split()[1]]
