"""The webhooks file: what it may say, and what is said when it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.config import ConfigError
from server.domain.webhooks import WebhookConfig
from server.endpoints.webhooks_file import WebhookEntry, read_webhooks
from tests.support.documents import page

SECRET = "whsec_bmV3bmV3bmV3"
OTHER = "whsec_b2xkb2xkb2xk"


def written(folder: Path, lines: str) -> Path:
    path = folder / "webhooks.toml"
    path.write_text(f"[webhooks.crm]\n{lines}\n", encoding="utf-8")
    return path


def test_every_key_arrives(tmp_path: Path) -> None:
    (tmp_path / "s").write_text(f"{SECRET} {OTHER}\n")
    lines = "url = 'https://h/x?k=v'\nsecret_file = 's'\nevents = ['endpoint.up']\nlabels = { a = 'b' }\ntimeout = 5.0"
    [found] = read_webhooks(written(tmp_path, lines))
    assert found.config == WebhookConfig(
        "crm", "https://h/x?k=v", (SECRET, OTHER), frozenset({"endpoint.up"}), {"a": "b"}, 5.0
    )
    assert (found.config.shown_url, found.secret_files) == ("https://h/x?k=***", (tmp_path / "s",))
    assert SECRET not in repr(found)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("url = 'https://h/'", "one of secret, secret_file and secrets is missing"),
        ("url = 'https://h/'\nsecret = 'hidden'", "a secret is no secret of Standard Webhooks"),
        (f"url = 'ftp://h/'\nsecret = '{SECRET}'", "url should be an http:// or https:// address"),
        (f"url = 'https://h/'\nsecret = '{SECRET}'\nevents = ['odd']", "events has 'odd': there are mailing.started"),
        (
            f"url = 'https://h/'\nsecret = '{SECRET}'\ntimeout = 0.5",
            "timeout should be a number of seconds from 1 to 60",
        ),
        (f"url = 'https://h/'\nsecret = '{SECRET}'\nevent = []", "event is no key of this table: did you mean events?"),
        ("url = 'https://h/'\nsecret_file = 'nowhere'", "secret_file should be the path of a file"),
    ],
)
def test_what_cannot_work_ends_the_start(lines: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        read_webhooks(written(tmp_path, lines))
    [sentence] = raised.value.problems
    assert f": webhook crm: {expected}" in sentence
    assert "hidden" not in sentence


def test_a_file_without_webhooks_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "webhooks.toml"
    path.write_text("[hooks.crm]\nurl = 'https://h/'\n")
    with pytest.raises(ConfigError, match=r"hooks is not known here: a webhook is a table \[webhooks.hooks\]"):
        read_webhooks(path)


def test_the_page_names_every_key() -> None:
    assert [key for key in WebhookEntry.model_fields if f"`{key}`" not in page("webhooks")] == []
