"""Write docs/a-day.md, the day of somebody who runs campaigns, from a real run: `python -m docs.a_day`.

The commands are run one after another against a service of their own, with the example endpoint behind it, and the page
has what they printed. A test runs them again and compares; `masked` removes what differs from run to run.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mailing.cli.processes import running

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "a-day.md"
PROGRAMS = Path(sys.executable).parent
REJECTED = "666666"

CRM = """\
Клиент;Мобильный;Город;Группа;Пояс
Анна;+7 (916) 000-00-01;Москва;news;
Борис;8 916 000-00-02;Москва;news;
Вера;8(916)666-66-66;Казань;news;
Глеб;9160000004;Омск;vip;Asia/Omsk
Дарья;89160000005;Омск;vip;Asia/Omsk
Егор;0049 151 23456789;Берлин;news;Europe/Berlin
Жанна;12;Москва;news;
Захар;+79160000008;Марс;news;Mars/Olympus
"""
MAPPING = (
    "--map 'Мобильный=phone' --map 'Клиент=attributes.name' --map 'Город=attributes.city' --map 'Группа=tag' "
    "--map 'Пояс=timezone' --country RU --timezone Europe/Moscow"
)
TEXT = "'Hello {attributes.name|friend}, 20% off today'"
_FAILED_ID = "FAILED"
"""Stands for the id of the message that failed, which the list before shows."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the day: a heading, what happens, who acts, and the commands with their exit status if it is not 0."""

    title: str
    words: str
    commands: tuple[str | tuple[str, int], ...]
    who: str = "anna"


BEFORE = Part(
    "Before: three people and a monitor",
    "Igor runs the service. He makes a token for each caller, and puts the second lines into the file that "
    "`MAILING_TOKENS_FILE` names. A role stands for the scopes that it usually needs.",
    (
        "mailing-server tokens create anna --role marketer",
        "mailing-server tokens create igor --role operator",
        "mailing-server tokens create grafana --role monitor",
        ("mailing-server tokens create eve --role monitor --scope admin", 2),
    ),
)

DAY = (
    Part(
        "9:00: the file of the CRM",
        "Anna has a marketer's token in `MAILING_TOKEN`. The CRM exports semicolons and windows-1251, names its "
        "columns in its own language, and writes phones as people do.",
        (
            "mailing health",
            ("mailing clients import contacts.xlsx", 2),
            ("mailing clients import crm.csv", 2),
            ("mailing clients import crm.csv --map 'Мобильный=phone' --map 'Клиент=phone'", 2),
            (f"mailing clients import crm.csv {MAPPING}", 2),
            (f"mailing clients import crm.csv {MAPPING} --dry-run", 2),
            (f"mailing clients import crm.csv {MAPPING} --skip-invalid rejects.csv", 2),
            "cat rejects.csv",
            "mailing clients list",
            "mailing clients list --tag vip",
        ),
    ),
    Part(
        "9:30: one client more",
        "A client is named by phone, as it is written; a national number needs its country.",
        (
            "mailing clients add '+7 916 999-88-77' --timezone Asia/Omsk --tag news --attribute name=Зоя",
            ("mailing clients add 79169998877 --timezone Asia/Omsk", 1),
            "mailing clients get '+7 (916) 999-88-77'",
            ("mailing clients get '8 916 999-88-77'", 2),
            "mailing clients get '8 916 999-88-77' --country RU",
            "mailing clients update +79169998877 --attribute city=Омск --window 09:00-21:00",
            "mailing clients update +79169998877 --window ''",
            ("mailing clients get +79991112233", 1),
            ("mailing clients update +79169998877", 2),
        ),
    ),
    Part(
        "10:00: tomorrow's sale",
        "Preview, test, create. Without a filter everybody would get it, so that has to be said; on a terminal "
        "`create` shows all of this and asks.",
        (
            f"mailing preview --text {TEXT} --tag news",
            f"mailing test 79160000001 --text {TEXT}",
            (f"mailing mailings create --text {TEXT}", 2),
            (f"mailing mailings create --text {TEXT} --tag news", 2),
            (f"mailing mailings create --text {TEXT} --tag nwes", 2),
            f"mailing mailings create --title Sale --text {TEXT} --tag news --snapshot --start 'tomorrow 10:00' --yes",
            "mailing mailings list",
        ),
    ),
    Part(
        "11:00: hold it, change it, send it",
        "The price is wrong. A scheduled mailing is held, changed, and scheduled again; then the boss wants it now.",
        (
            "mailing pause 1",
            "mailing mailings update 1 --text 'Hello {attributes.name|friend}, 25% off today'",
            "mailing resume 1",
            "mailing mailings update 1 --start now",
            ("mailing watch 1", 4),
        ),
    ),
    Part(
        "12:00: who got it",
        "The report for the boss, and every message for the analyst.",
        (
            "mailing report 1",
            "mailing report 1 --csv",
            "mailing messages list --mailing-id 1",
            "mailing messages list --mailing-id 1 --status failed",
            f"mailing attempts {_FAILED_ID}",
            (f"mailing messages attempts {_FAILED_ID}", 2),
            f"mailing messages get {_FAILED_ID}",
            "mailing messages export 1 --csv",
            "mailing messages export 1 --jsonl --status failed -o failed.jsonl",
            "mailing log --mailing-id 1",
            ("mailing log", 1),
        ),
    ),
    Part(
        "14:00: a customer calls",
        "What did you send me, and stop it. Everything that is known of a phone is one command.",
        (
            "mailing story +79160000001",
            "mailing clients opt-out +79160000001",
            "mailing story +79160000001",
            "mailing clients opt-out +79160000002",
            "mailing clients opt-in +79160000002",
            "mailing story '8 (916) 666-66-66' --country RU",
            ("mailing story +79991112233", 1),
            ("mailing clients opt-out", 2),
        ),
    ),
    Part(
        "16:00: once more, and something for new clients",
        "Failed messages are sent again. An open mailing waits for clients who are added later, and says so.",
        (
            "mailing retry 1 --status failed",
            ("mailing watch 1", 4),
            "mailing mailings create --title Welcome --text 'Welcome!' --tag vip --open --end +2h --yes",
            "mailing watch 2 --until-sent",
            "mailing cancel 2",
            "mailing mailings delete 2",
            "mailing clients add +79160000077 --timezone UTC --tag vip",
            "mailing clients delete +79160000077",
            "mailing clients export --tag news",
        ),
    ),
    Part(
        "17:00: what a monitor sees",
        "Grafana's token sees mailings and messages with masked phones, and can change nothing.",
        (
            "mailing mailings list",
            "mailing messages list --mailing-id 1",
            ("mailing clients list", 1),
            ("mailing pause 1", 1),
            ("mailing dispatchers pause", 1),
        ),
        "grafana",
    ),
    Part(
        "18:00: what an operator does",
        "Igor tries the gateway, and the emergency stop.",
        (
            "mailing endpoints --probe default",
            "mailing dispatchers pause",
            "mailing dispatchers resume",
            ("mailing mesages list", 2),
        ),
        "igor",
    ),
)


@dataclass(slots=True)
class World:
    """Where the day happens: a folder, the address of a service, and the tokens of the callers."""

    folder: Path
    environment: dict[str, str]
    tokens: dict[str, str] = field(default_factory=dict)
    failed: str = ""

    def run(self, command: str, who: str) -> subprocess.CompletedProcess[str]:
        """Run a command as this caller would."""
        words = shlex.split(command)
        program = words[0] if words[0] == "cat" else str(PROGRAMS / words[0])
        environment = {**self.environment, "MAILING_TOKEN": self.tokens.get(who, ""), "TZ": "UTC", "COLUMNS": "120"}
        return subprocess.run(  # noqa: S603 - our own programs
            [program, *words[1:]],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def transcript(world: World, part: Part) -> str:
    """Run a part of the day and return it as text of the page. Raise AssertionError for another exit status."""
    lines = [f"## {part.title}\n", f"{part.words}\n", "```console"]
    for one in part.commands:
        command, status = one if isinstance(one, tuple) else (one, 0)
        command = command.replace(_FAILED_ID, world.failed)
        ended = world.run(command, part.who)
        assert ended.returncode == status, (command, ended)
        if "--status failed" in command and (found := re.search(r"^ *(\d+) ", ended.stdout, re.MULTILINE)):
            world.failed = found[1]
        if "tokens create" in command and not status:
            token, line = ended.stdout.splitlines()
            world.tokens[line.split()[0]] = token
            with (world.folder / "tokens").open("a") as file:
                file.write(f"{line}\n")
        lines.append(f"$ {command}")
        lines += [line.rstrip() for text in (ended.stdout, ended.stderr) for line in text.splitlines() if line.strip()]
        lines += [f"# exit status {status}"] if status else []
    return "\n".join([*lines, "```\n"]).replace(f"{world.folder}/", "")


def whole_day(folder: Path, settings: Mapping[str, str]) -> str:
    """Run the day in a folder, on a service with these settings, and return the page."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MAILING_", "POSTGRES_"))}
    (folder / "crm.csv").write_text(CRM, encoding="cp1251")
    (folder / "contacts.xlsx").write_bytes(b"PK\x03\x04 a workbook")
    world = World(folder, clean)
    parts = [_HEAD, transcript(world, BEFORE)]
    with _service(folder, {**clean, **settings}) as address:
        world.environment["MAILING_ADDRESS"] = address
        parts += [transcript(world, part) for part in DAY]
    return _tidy("\n".join(parts))


@contextmanager
def _service(folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Run a service with the example endpoint behind it; yield its address."""
    endpoint = [sys.executable, str(ROOT / "examples" / "endpoint.py"), "--listen", "127.0.0.1:0"]
    endpoint += ["--token", "secret", "--reject", REJECTED]
    with running(endpoint, re.compile(r"listening on (\S+)"), folder / "endpoint.log", os.environ) as listening:
        settings = {
            "MAILING_LISTEN": "127.0.0.1:0",
            "MAILING_ENDPOINT_URL": listening[1],
            "MAILING_ENDPOINT_TOKEN": "secret",
            "MAILING_TOKENS_FILE": str(folder / "tokens"),
        }
        serve = [str(PROGRAMS / "mailing-server"), "serve"]
        ready = re.compile(r"^serving on (\S+)$", re.MULTILINE)
        with running(serve, ready, folder / "service.log", {**environment, **settings}) as serving:
            yield serving[1]


def _tidy(text: str) -> str:
    """Return the page without secrets, and without lines of which there may be more or fewer."""
    text = re.sub(r"mlg_[\w-]+", "mlg_…", text)
    text = re.sub(r"sha256:[0-9a-f]{64}", "sha256:…", text)
    passing = r"^(scheduled|running|paused|completed): .*\n"
    return re.sub(passing, "", text, flags=re.MULTILINE)


def masked(text: str) -> str:
    """Return a page without what differs from run to run: moments, spans, rates, and the widths that follow."""
    for pattern, mark in (
        (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?(Z| [+-]\d{4})?|\d\d-\d\d \d\d:\d\d|\d\d:\d\d(:\d\d)?", "<time>"),
        (r"[\d,.]+ ?(ms|s)\b|[\d,.]+/s", "<span>"),
        (r"^( *(seconds|messages/s)) .*$", r"\1"),
        (r"\d+\.\d +[\d,]+$", "<rate>"),
        (r"(latency,p\d\d,,,)[\d.]+", r"\1"),
        (r"^.*(<time>|minute,).*[█#].*$|^minute,.*$", ""),
        (r"^.* mailing\.expanded .*$", ""),  # at the same moment as the first attempts
        (r"^message +\d+$", "message <id>"),
        (r"(code \d+\)) +\d+ ", r"\1 <span> "),
        (r"[─ ]+", " "),
        (r"http://127\.0\.0\.1:\d+/?", "<url>"),
    ):
        text = re.sub(pattern, mark, text, flags=re.MULTILINE)
    return re.sub(r"\n\s*\n+", "\n", text)


_HEAD = """# A day with Mailing

<!-- Written by `python -m docs.a_day` from a real run; a test runs it again. -->

Somebody runs campaigns for a shop, somebody else runs the service, and a dashboard looks on. All of it is here as it
was typed and as it was answered. [Use the service](clients.md) explains the commands, [concepts](concepts.md) the
words.
"""


def main() -> None:
    """Write the page."""
    with tempfile.TemporaryDirectory(prefix="mailing-day-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        PAGE.write_text(whole_day(folder, {"MAILING_DATA_DIR": str(folder / "data")}), encoding="utf-8")


if __name__ == "__main__":
    main()
