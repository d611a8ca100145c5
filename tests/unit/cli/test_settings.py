"""`mailing config`, and the options of settings that the commands of the service share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mailing.cli.app import main


def test_config_shows_values_and_places_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AUTHTOKEN", "hidden")
    (tmp_path / "mailing.toml").write_text("poll_max = 2\n")
    arguments = ["config", "--config", str(tmp_path / "mailing.toml"), "--set", "pool_size=20"]
    assert main(arguments) == 0
    table = capsys.readouterr().out
    rows = {line.split()[0]: line.strip().split(maxsplit=2)[1:] for line in table.splitlines() if len(line.split()) > 2}
    assert rows["poll_max"] == ["2.0", f"{tmp_path}/mailing.toml: poll_max"]
    assert rows["pool_size"] == ["20", "the option pool_size"]
    assert rows["endpoint_token"] == ["***", "AUTHTOKEN"]
    assert main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)["settings"]
    assert {"name": "lease", "variable": "MAILING_LEASE", "value": 60.0, "from": "default"} in document
    assert "hidden" not in table + json.dumps(document)


@pytest.mark.parametrize("command", ["config", "serve", "dispatcher", "migrate"])
def test_settings_that_cannot_be_used_end_the_command_before_anything_happens(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--set", "polsize=1"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "mailing: The option polsize is not a setting of this service: did you mean pool_size?\n")
    assert main([command, "--config", "/does/not/exist.toml"]) == 2
    assert "/does/not/exist.toml cannot be read" in capsys.readouterr().err
    assert main([command, "--set", "pool_size"]) == 2
    assert "--set" in capsys.readouterr().err


def test_a_dispatcher_alone_can_be_run_beside_the_commands_that_steer_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Fails when both have one name: the group hides the command."""
    assert main(["dispatcher"]) == 2
    assert "MAILING_DSN should be the database of the service" in capsys.readouterr().err
    assert main(["dispatch", "replicas", "--help"]) == 0
