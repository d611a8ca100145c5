"""Starts Postgres programs as somebody Postgres accepts, bound to the life of this process.

Postgres refuses to run as root. So root's own folder is served inside a user namespace
that calls root `nobody` (no account, no change of owner), or, where namespaces are not
allowed, really by `nobody`; a folder of somebody else is served by its owner. The kernel
interrupts the child when the thread that started it ends, so start from the main thread.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from server.embedded_postgres.binaries import Binaries, EmbeddedPostgresError

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Runner:
    """Who runs the programs: this user, this user under another name, or another user.

    `owner` is a (uid, gid) to change to, None to stay. `prefix` stands before every command.
    """

    prefix: tuple[str, ...] = ()
    owner: tuple[int, int] | None = None

    def popen(self, command: Sequence[str], output: IO[bytes] | int, stdin: int = subprocess.DEVNULL) -> Process:
        """Start `command` in a session of its own; get SIGINT when this process ends, however it ends."""
        uid, gid = self.owner or (None, None)
        setpriv = shutil.which("setpriv")
        # The wish to die with the parent is lost whenever credentials change, so it comes last.
        bound = [setpriv, "--pdeathsig", "INT", "--"] if setpriv else []
        return subprocess.Popen(  # noqa: S603 - the command is ours
            [*self.prefix, *bound, *command],
            stdin=stdin,
            stdout=output,
            stderr=output,
            cwd="/",
            env=_environment(),
            user=uid,
            group=gid,
            extra_groups=None if uid is None else [],
            start_new_session=True,  # so that Ctrl-C reaches us alone, and Postgres ends after us
            preexec_fn=None if setpriv else _die_with_parent(),
        )

    def hand_over(self, *paths: Path) -> None:
        """Give files that this process made to the user who runs the programs."""
        if self.owner is not None:
            for path in paths:
                found = path.lstat()
                if stat.S_ISREG(found.st_mode) and found.st_nlink > 1 and found.st_uid != self.owner[0]:
                    raise EmbeddedPostgresError(f"{path} has a second name elsewhere: remove it, it is none of ours.")
                os.chown(path, *self.owner, follow_symlinks=False)

    def hand_over_tree(self, folder: Path) -> None:
        """Give a folder and everything in it to the user who runs the programs."""
        for parent, folders, files in os.walk(folder):
            self.hand_over(Path(parent), *(Path(parent, name) for name in folders + files))


Process = subprocess.Popen[bytes]


def choose_runner(data_dir: Path, binaries: Binaries) -> Runner:
    """Return the first way to run the programs that works here.

    Raise EmbeddedPostgresError when there is none.
    """
    for runner in _runners(data_dir):
        process = runner.popen([binaries.postgres, "--version"], subprocess.DEVNULL)
        if process.wait(30) == 0:
            return runner
    raise EmbeddedPostgresError(
        f"Postgres cannot be run here as root, neither in a user namespace nor as nobody on {data_dir}: start the "
        "service as an ordinary user, or set MAILING_DSN to a server that runs already."
        if os.geteuid() == 0
        else f"{binaries.postgres} does not run as this user: see its permissions, or set MAILING_DSN."
    )


def _runners(data_dir: Path) -> Iterator[Runner]:
    owner = data_dir.stat()
    if os.geteuid() != 0:
        # initdb wants its user to have a name; in a namespace everybody can have one.
        yield from [Runner()] if _has_name(os.geteuid()) else [*namespaces(), Runner()]
    elif owner.st_uid != 0:
        yield Runner(owner=(owner.st_uid, owner.st_gid))
    else:
        yield from namespaces()
        nobody = pwd.getpwnam("nobody")
        if all(parent.stat().st_mode & 0o001 for parent in data_dir.parents):
            yield Runner(owner=(nobody.pw_uid, nobody.pw_gid))


def namespaces() -> Iterator[Runner]:
    """Return how to run in a user namespace, where this machine has what that takes."""
    unshare, nobody = shutil.which("unshare"), pwd.getpwnam("nobody")
    # Without setpriv the wish to die with the parent would be lost inside.
    if unshare and shutil.which("setpriv"):
        ids = (f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}")
        yield Runner((unshare, "--user", *ids, "--"))


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _environment() -> dict[str, str]:
    """Return what the programs need of ours: no secrets, nor PG* and locale settings, which change what they do."""
    kept = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"LC_ALL": "C"}


def _die_with_parent() -> Callable[[], None] | None:
    """Return the same as setpriv's option, for systems without it; macOS has no such thing."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
