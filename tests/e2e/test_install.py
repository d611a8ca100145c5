"""The page docs/install.md, line by line in a clean folder, as far as that goes without root, packages and systemd."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mailing.cli.processes import running
from tests.e2e.conftest import TOKEN, Endpoint, environment
from tests.support.documents import blocks, page
from tests.support.project import ROOT

ROOTS = re.compile(r"^(apt|sudo|systemctl|journalctl|cp|python3 -m venv|/opt/mailing/bin/pip) ")
"""What needs root, the network or systemd; the programs of this checkout stand for the installed ones."""

UNIT = (ROOT / "deploy" / "systemd" / "mailing.service").read_text(encoding="utf-8")


class Machine:
    """A folder in place of /, and the shell's variables."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.variables: list[str] = []
        (folder / "opt" / "mailing").mkdir(parents=True)
        (folder / "opt" / "mailing" / "bin").symlink_to(Path(sys.executable).parent)

    def moved(self, text: str) -> str:
        return re.sub(r"(?<![\w.])/(etc|opt)/mailing", lambda found: f"{self.folder}{found[0]}", text)

    def sh(self, line: str) -> str:
        """Run a line of the page; variables that it exports are there for the next ones."""
        moved = self.moved(line)
        script = "\n".join(["set -eu", *self.variables, moved])
        done = subprocess.run(["sh", "-c", script], env=environment(), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (line, done)
        if moved.startswith(("export ", "umask ")):
            self.variables.append(moved)
        return done.stdout


def lines_of(heading: str) -> list[str]:
    """Return the lines below a heading that can be run here."""
    text = page("install").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [line for block in blocks(text, "sh") for line in block.splitlines() if not ROOTS.match(line)]


def readable_by_all(path: Path) -> bool:
    """Return whether every user of the machine can read a file, or enter a folder."""
    wanted = stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0)
    return path.stat().st_mode & wanted == wanted


def credentials(machine: Machine) -> tuple[Path, dict[str, str]]:
    """Return the folder of the unit's credentials, as systemd makes it, and the unit's environment."""
    folder = machine.folder / "credentials"
    folder.mkdir()
    for name, source in re.findall(r"^LoadCredential=(\S+):(\S+)$", UNIT, re.MULTILINE):
        shutil.copy(machine.moved(source), folder / name)
    pairs = " ".join(re.findall(r"^Environment=(.*)$", UNIT, re.MULTILINE)).replace("%d", str(folder)).split()
    return folder, dict(pair.split("=", 1) for pair in pairs)


@pytest.mark.skipif(not (os.name == "posix" and shutil.which("openssl")), reason="needs openssl and a shell")
def test_a_machine_is_installed_as_the_page_says(database_dsn: str, endpoint: Endpoint, folder: Path) -> None:
    """Fails for a wrong line or setting, a file that the wrong users can read, and a secret that is not passed on."""
    root = folder / "machine"
    root.mkdir()
    machine = Machine(root)
    for line in lines_of("Settings and secrets"):
        machine.sh(line)
    etc = root / "etc" / "mailing"
    secrets = set(re.findall(r"^LoadCredential=\S+:/etc/mailing/(\S+)$", UNIT, re.MULTILINE)) - {"tls.crt"}
    assert readable_by_all(etc)
    assert {path.name for path in etc.iterdir() if not readable_by_all(path)} == {*secrets, "first-token"}
    (etc / "dsn").write_text(database_dsn)
    (etc / "endpoint-token").write_text(TOKEN)
    settings = (etc / "mailing.toml").read_text().replace("0.0.0.0:50051", "127.0.0.1:0")
    (etc / "mailing.toml").write_text(settings.replace("http://gateway.example.com/send/", endpoint.url))
    _, given = credentials(machine)
    (start,) = re.findall(r"^ExecStart=(.*)$", UNIT, re.MULTILINE)
    ready = re.compile(r"^serving on \S+:(\d+)$", re.MULTILINE)
    with running(machine.moved(start).split(), ready, root / "log", environment(**given)) as serving:
        answers = [machine.sh(line.replace(":50051", f":{serving[1]}")) for line in lines_of("The first mailing")]
        plain = environment(MAILING_ADDRESS=f"localhost:{serving[1]}")
        told = subprocess.run([f"{root}/opt/mailing/bin/mailing", "health"], env=plain, capture_output=True, text=True)
    assert "mailing 1: delivered, 1 attempt at default" in answers[-1]
    assert (told.returncode, "answers with TLS: set MAILING_CA_FILE" in told.stderr) == (3, True), told
    (verify,) = [line for line in lines_of("Upgrade, back up") if "verify" in line]
    assert machine.sh(verify) == "The records agree.\n"


def test_the_shell_completes_what_is_typed() -> None:
    typed = environment(_MAILING_COMPLETE="complete_bash", COMP_WORDS="mailing clients opt", COMP_CWORD="2")
    done = subprocess.run([Path(sys.executable).with_name("mailing")], env=typed, capture_output=True, text=True)
    assert done.stdout.split() == ["opt-out", "opt-in"]
