"""Does what the Dockerfile says without a container engine: `make image-rehearsal`.

In a mount namespace of its own each stage gets an empty /opt, every COPY, RUN and ENV is carried out
as written, with this machine's Python in place of the base image. Then the root file system
becomes read-only and HEALTHCHECK and ENTRYPOINT run as USER, against a scratch Postgres. Linux, as root.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = Path(__file__).resolve().parent / "Dockerfile"
PYTHON = "/usr/bin/python3"
_INSIDE = "--inside"


@dataclass
class Stage:
    """A stage: its name, and its instructions as keyword and rest of the line."""

    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def last(self, keyword: str) -> str:
        """Return what the last instruction of this kind says; '' without one."""
        return next((rest for word, rest in reversed(self.steps) if word == keyword), "")

    def environment(self) -> dict[str, str]:
        """Return the variables that ENV sets, without PATH."""
        pairs = (word.partition("=") for keyword, rest in self.steps if keyword == "ENV" for word in shlex.split(rest))
        return {name: value for name, _, value in pairs if name != "PATH"}


def stages(text: str) -> list[Stage]:
    """Return the stages of a Dockerfile. Raise ValueError for an instruction that is not understood."""
    found: list[Stage] = []
    for line in _logical_lines(text):
        keyword, _, rest = line.partition(" ")
        if keyword == "FROM":
            found.append(Stage(rest.partition(" AS ")[2]))
        elif keyword == "ARG" and not found:
            continue  # of the base image, in whose place this machine's Python stands
        elif keyword in (
            "COPY",
            "RUN",
            "ENV",
            "WORKDIR",
            "USER",
            "EXPOSE",
            "STOPSIGNAL",
            "HEALTHCHECK",
            "ENTRYPOINT",
            "CMD",
        ):
            found[-1].steps.append((keyword, rest.strip()))
        else:
            raise ValueError(f"the rehearsal does not know {keyword}")
    return found


def command(rest: str) -> list[str]:
    """Return the words of a command in the exec form, whatever options stand before it."""
    words: list[str] = json.loads(rest[rest.index("[") :])
    return words


def _logical_lines(text: str) -> Iterator[str]:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    yield from "\n".join(lines).replace("\\\n", " ").splitlines()


def _build(all_stages: list[Stage], scratch: Path) -> None:
    """Carry out the stages; the last one's /opt stays mounted."""
    (scratch / "bin").mkdir()
    (scratch / "bin" / "python").symlink_to(PYTHON)
    for number, stage in enumerate(all_stages):
        folder = scratch / (stage.name or str(number))
        folder.mkdir()
        _run("mount", "--bind", str(folder), "/opt")
        where = Path("/")
        environment = {"PATH": f"{scratch / 'bin'}:/usr/bin:/bin", "HOME": str(scratch)} | stage.environment()
        for keyword, rest in stage.steps:
            if keyword == "WORKDIR":
                where = Path(rest)
                where.mkdir(parents=True)
            elif keyword == "COPY":
                _copy(rest, where, scratch)
            elif keyword == "RUN":
                print(f"RUN {rest}", flush=True)
                _run("/bin/sh", "-c", rest, where=where, environment=environment)


def _copy(rest: str, where: Path, scratch: Path) -> None:
    *sources, target = rest.split()
    origin = ROOT
    if sources[0].startswith("--from="):
        origin = scratch / sources.pop(0).removeprefix("--from=")
        sources = [str(Path(one).relative_to("/opt")) for one in sources]
    for source in sources:
        place = where / target
        place = place / Path(source).name if target.endswith("/") else place
        place.parent.mkdir(parents=True, exist_ok=True)
        if (origin / source).is_dir():
            shutil.copytree(origin / source, place, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(origin / source, place)


def _rehearse(stage: Stage, dsn: str) -> None:
    """Run the image's commands as its user on a read-only root."""
    _run("mount", "-o", "remount,bind,ro", "/")
    _run("mount", "-o", "remount,bind,ro", "/opt")
    uid, _, gid = stage.last("USER").partition(":")
    entry, check = command(stage.last("ENTRYPOINT")), command(stage.last("HEALTHCHECK"))
    drop = ["setpriv", "--reuid", uid, "--regid", gid, "--clear-groups", "--no-new-privs", "--bounding-set", "-all"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {"PATH": "/opt/mailing/bin:/usr/bin:/bin", "HOME": "/nonexistent"} | stage.environment()
    environment |= {"MAILING_DSN": dsn, "MAILING_LISTEN": address, "MAILING_ADDRESS": address}
    for arguments in (["--version"], ["config"], ["migrate"]):
        _run(*drop, *entry, *arguments, environment=environment)
    serve = subprocess.Popen(  # noqa: S603 - the Dockerfile's own
        [*drop, *entry, *command(stage.last("CMD"))], env=environment, cwd="/", stdout=subprocess.PIPE, text=True
    )
    try:
        assert serve.stdout is not None
        line = serve.stdout.readline()
        if line != f"serving on {address}\n":
            sys.exit(f"the entry point did not serve: {line!r}")
        _run(*drop, *check, environment=environment)
        serve.terminate()
        if status := serve.wait(60):
            sys.exit(f"SIGTERM ended the entry point with status {status}")
    finally:
        serve.kill()
    print(f"The image serves as {uid}:{gid} on a read-only root, is found healthy, and ends when asked.")


def _run(*words: str, where: Path = Path("/"), environment: Mapping[str, str] | None = None) -> None:
    subprocess.run(words, check=True, cwd=where, env=environment)  # noqa: S603 - the Dockerfile's own


def _outside() -> int:
    """Lend a Postgres and a folder to the rehearsal, which runs where its mounts are nobody else's."""
    from server.embedded_postgres import EmbeddedPostgres

    with tempfile.TemporaryDirectory() as folder:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        postgres = EmbeddedPostgres(Path(folder, "data"), {"listen_addresses": "127.0.0.1", "port": str(port)})
        postgres.start()
        Path(folder).chmod(0o755)
        try:
            dsn = f"postgresql://postgres@127.0.0.1:{port}/postgres"
            words = ["unshare", "--mount", "--propagation", "private", sys.executable, __file__, _INSIDE, dsn, folder]
            return subprocess.run(words, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode  # noqa: S603
        finally:
            postgres.stop()


if __name__ == "__main__":
    if sys.argv[1:2] != [_INSIDE]:
        sys.exit(_outside())
    found = stages(DOCKERFILE.read_text(encoding="utf-8"))
    _build(found, Path(sys.argv[3]))
    _rehearse(found[-1], sys.argv[2])
