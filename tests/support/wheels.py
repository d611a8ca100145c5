"""Wheels of both distributions, and of what they need, made without any network.

What is installed beside the tests is packed into wheels again, so that pip can install a
distribution into an empty environment from a folder, by what its metadata says it needs.
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import Distribution, distribution
from pathlib import Path
from venv import EnvBuilder
from zipfile import ZIP_STORED, ZipFile

from packaging.requirements import Requirement
from packaging.tags import sys_tags

from tests.support.project import ROOT

PROJECTS = {"mailing": ROOT / "clients" / "python", "mailing-server": ROOT}


def build(name: str, folder: Path) -> Path:
    """Build the wheel of one of the project's distributions."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=PROJECTS[name], check=True, capture_output=True)
    (wheel,) = folder.glob(f"{name.replace('-', '_')}-*.whl")
    return wheel


def pack_needed(names: list[str], folder: Path) -> None:
    """Pack what these distributions need, directly or not, with all their extras but those of others."""
    seen: set[str] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        wanted = waiting.pop()
        for text in _requires(wanted):
            need = Requirement(text)
            key = str(need)
            if key not in seen:
                seen.add(key)
                waiting.append(need)
                if need.name not in PROJECTS:
                    _pack(distribution(need.name), folder)


class Environment:
    """A virtual environment with nothing in it, not even pip."""

    def __init__(self, folder: Path, wheels: Path) -> None:
        EnvBuilder(with_pip=False).create(folder)
        self.folder = folder
        self._wheels = wheels
        self.python = folder / "bin" / "python"

    def install(self, requirement: str) -> None:
        """Install a requirement and what it needs, from the folder of wheels only."""
        command = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet", "--no-compile"]
        command += ["--no-index", "--find-links", str(self._wheels), requirement]
        subprocess.run(command, check=True)

    def run(self, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run one of the environment's programs."""
        command = [str(self.python.with_name(words[0])), *words[1:]]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, cwd=self.folder)

    def packages(self) -> set[str]:
        """Return the names of the installed distributions."""
        code = "from importlib.metadata import distributions; print(*{one.name.lower() for one in distributions()})"
        return set(self.run("python", "-c", code).stdout.split())

    def megabytes(self) -> float:
        """Return the size of everything that is installed."""
        (packages,) = self.folder.glob("lib/python*/site-packages")
        return sum(path.stat().st_size for path in packages.rglob("*") if path.is_file()) / 1e6


def _requires(wanted: Requirement) -> list[str]:
    """Return what a requirement needs on this machine, with the extras it names."""
    found = []
    for text in distribution(wanted.name).requires or []:
        marker = Requirement(text).marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)):
            found.append(text)
    return found


def _pack(installed: Distribution, folder: Path) -> None:
    """Write the wheel from which a distribution was installed, without the scripts that pip made."""
    metadata = installed.read_text("WHEEL") or ""
    usable = {str(tag) for tag in sys_tags()}
    tag = next(tag for tag in re.findall(r"^Tag: (\S+)", metadata, re.MULTILINE) if tag in usable)
    name = re.sub(r"[-_.]+", "_", installed.name)
    with ZipFile(folder / f"{name}-{installed.version}-{tag}.whl", "w", ZIP_STORED) as wheel:
        for file in installed.files or []:
            generated = file.name in ("INSTALLER", "REQUESTED", "direct_url.json") or file.suffix == ".pyc"
            if not generated and ".." not in file.parts:
                wheel.write(str(file.locate()), str(file))
